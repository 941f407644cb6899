"""What a variable of the imported model may be on the NPU: matches of one ONNX operator, and of the few that join."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import onnx

from npu_backend.graph import CODES, FLOATS, NUMBERS
from tvm_ext.convert_matrix import is_dense
from tvm_ext.functions import CHAINED, clip_bounds
from tvm_ext.matching import (
    CODING,
    Match,
    Operand,
    Program,
    dtype_of,
    values_of,
)
from tvm_ext.nodes import CHAIN, DEQUANTIZE, ENTRIES, IDENTITY, KERNEL, QUANTIZE, Entry
from tvm_ext.rules import EIGHT_BIT
from tvm_ext.values import Variable


class Candidate(NamedTuple):
    """A match and the entry whose converter would make the operator of it."""

    match: Match
    entry: Entry


def quantized(program: Program, root: Variable) -> Iterator[Candidate]:
    """Operators that end in the quantise call at `root`: first those that take most in."""
    result = program.calls[root].operands[0]
    if not isinstance(result, Variable) or result not in program.calls or result not in program.sources:
        return
    call, source = program.calls[result], program.sources[result]
    if call.is_dequantize:
        nodes = (program.sources[root].node, source.node)
        yield from _built(program, root, nodes, (Operand(call.operands[0], call),), IDENTITY)
        return
    yield from _chains(program, root, source.node)
    yield from _activated(program, root, source.node)
    yield from _operators(program, root, source.node)


def plain(program: Program, root: Variable) -> Iterator[Candidate]:
    """The operator that `root` itself is the result of."""
    source = program.sources.get(root)
    if source is not None and source.value == source.node.output[0]:
        yield from _operators(program, root, source.node)


def coding(program: Program, root: Variable) -> Iterator[Candidate]:
    """The way into or out of codes at `root`."""
    call, source = program.calls[root], program.sources.get(root)
    if source is None or not (call.is_quantize or call.is_dequantize):
        return
    operand = Operand(call.operands[0], None if call.is_quantize else call)
    yield from _built(program, root, (source.node,), (operand,), QUANTIZE if call.is_quantize else DEQUANTIZE)


def kernel(program: Program, root: Variable) -> Iterator[Candidate]:
    """The node that `root` is one of the results of, as TVM lowers it."""
    source = program.sources.get(root)
    if source is None or program.kernels is None or isinstance(program.kernels.plan(source.node), str):
        return
    values = (program.named.get(name) for name in source.node.input)
    operands = tuple(None if value is None else Operand(value) for value in values)
    yield Candidate(Match(program, root, (source.node,), operands, ()), KERNEL)


def needs_float(match: Match) -> bool:
    """Whether it reads or leaves floats, or only turns plain numbers into others, for which floats are the reason."""
    reads = [operand for operand in match.operands if operand is not None and operand.is_computed]
    kinds = {dtype_of(match.root), *(operand.dtype for operand in reads if operand.dequantize is None)}
    return not kinds.isdisjoint(FLOATS) or (kinds <= set(NUMBERS) and all(each.dequantize is None for each in reads))


def fits_form(candidate: Candidate) -> bool:
    """Whether integers that are read without a dequantise are what the entry means."""
    match, entry = candidate
    reads = (operand for operand in match.operands if operand is not None and operand.is_computed)
    raw = [operand for operand in reads if operand.dequantize is None and operand.dtype in CODES]
    if not raw or entry in (QUANTIZE, DEQUANTIZE):
        return True
    return entry.on_integers or (entry.on_codes and not match.is_quantized)


def _operators(program: Program, root: Variable, node: onnx.NodeProto, activation: onnx.NodeProto | None = None,
               ) -> Iterator[Candidate]:  # fmt: skip
    yield from _biased(program, root, node, activation)
    entry = ENTRIES.get(node.op_type)
    if entry is not None and (activation is None or entry.activated):
        operands = tuple(program.operand(name) for name in node.input)
        yield from _built(program, root, (node,), operands, entry, activation)


def _activated(program: Program, root: Variable, node: onnx.NodeProto) -> Iterator[Candidate]:
    """Relu or Clip behind an operator that takes it in."""
    if node.op_type not in ("Relu", "Clip") or clip_bounds(program, node) is None:
        return
    producer = _producer(program, node.input[0])
    if producer is not None:
        yield from _operators(program, root, producer, node)


def _biased(program: Program, root: Variable, node: onnx.NodeProto, activation: onnx.NodeProto | None,
            ) -> Iterator[Candidate]:  # fmt: skip
    """MatMul by a constant matrix and Add of a constant row, where a quantise ends them."""
    if node.op_type != "Add" or not program.is_quantize(root):
        return
    for name, other in (node.input, reversed(node.input)):
        product, bias = _producer(program, name), program.operand(other)
        if product is not None and product.op_type == "MatMul" and bias is not None and not bias.is_computed:
            operands = (*(program.operand(each) for each in product.input), bias)
            for candidate in _built(program, root, (product, node), operands, ENTRIES["MatMul"], activation):
                if is_dense(candidate.match):
                    yield candidate


def _chains(program: Program, root: Variable, last: onnx.NodeProto) -> Iterator[Candidate]:
    """Functions of one 8-bit tensor, one after the other; a single one has an entry of its own, but Pow."""
    found = _chain(program, last)
    if found is None or (len(found.nodes) == 1 and last.op_type != "Pow"):
        return
    x = found.source
    if x.dtype in EIGHT_BIT and x.dtype == root.dtype and x.shape == root.shape:
        yield from _built(program, root, found.nodes, (x,), CHAIN)


class _Chain(NamedTuple):
    nodes: tuple[onnx.NodeProto, ...]
    source: Operand


def _chain(program: Program, last: onnx.NodeProto) -> _Chain | None:
    """The nodes from the one tensor they read to `last`, in order; None where anything else is read."""
    nodes: dict[str, onnx.NodeProto] = {}
    sources: list[Operand] = []
    waiting = [last]
    while waiting:
        node = waiting.pop()
        if node.op_type not in CHAINED:
            return None
        nodes[node.name] = node
        for name in filter(None, node.input):
            operand, producer = program.operand(name), _producer(program, name)
            if operand is None or (not operand.is_computed and values_of(operand).size != 1):
                return None
            if operand.dequantize is not None and operand.is_computed:
                sources.append(operand)
            elif operand.is_computed and producer is None:
                return None
            elif operand.is_computed and producer is not None and producer.name not in nodes:
                waiting.append(producer)
    if len({source.value for source in sources}) != 1:
        return None
    defined = (program.sources[variable].node for variable in program.calls if variable in program.sources)
    ordered = dict.fromkeys(node.name for node in defined if node.name in nodes)
    return _Chain(tuple(nodes[name] for name in ordered), sources[0])


def _producer(program: Program, name: str) -> onnx.NodeProto | None:
    """The node that makes a value, where it is no constant, no input and no dequantised tensor."""
    variable = program.named.get(name)
    source = program.sources.get(variable) if isinstance(variable, Variable) else None
    return None if source is None or source.node.op_type in CODING else source.node


def _built(program: Program, root: Variable, nodes: Sequence[onnx.NodeProto], operands: tuple[Operand | None, ...],
           entry: Entry, activation: onnx.NodeProto | None = None) -> Iterator[Candidate]:  # fmt: skip
    """The match, unless it reads nothing computed."""
    if not any(operand is not None and operand.is_computed for operand in operands):
        return
    every = (*nodes, activation) if activation is not None else tuple(nodes)
    inputs = frozenset(operand.variable for operand in operands if operand is not None and operand.variable)
    yield Candidate(Match(program, root, every, operands, _inside(program, root, inputs), activation), entry)


def _inside(program: Program, root: Variable, inputs: frozenset[Variable]) -> tuple[Variable, ...]:
    """The variables between the inputs and the root, in program order."""
    inside, waiting = set(), [root]
    while waiting:
        for read in program.calls[waiting.pop()].reads:
            if read not in inputs and read not in inside and read in program.calls:
                inside.add(read)
                waiting.append(read)
    return tuple(variable for variable in program.calls if variable in inside) if inside else ()
