"""Partitions of a model for the NPU, and the NPU graph of each, whichever TVM made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from npu_backend.graph import Graph, GraphBuilder, Tensor
from npu_backend.ops import append_op
from tvm_ext.candidates import Candidate
from tvm_ext.lowering import Lowering
from tvm_ext.matching import Program
from tvm_ext.nodes import KERNEL
from tvm_ext.package import ENGINE, VECTOR, HostOp, NpuOp
from tvm_ext.values import Variable

# What TVM calls the compiler of the partitions.
CODEGEN = "npu"


@dataclass(frozen=True)
class Partitioned:
    """A module of TVM that calls one function per NPU partition, and the graph of each by its symbol.

    `outputs` are shape and data type of the model's outputs, in order.
    """

    module: Any
    graphs: Mapping[str, Graph]
    npu_ops: tuple[NpuOp, ...]
    host_ops: tuple[HostOp, ...]
    outputs: tuple[tuple[tuple[int, ...], str], ...]


@dataclass(frozen=True)
class Part:
    """A partition: its matches in order, what it reads and what it leaves."""

    found: tuple[Candidate, ...]
    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]


def build_graphs(model_name: str, parts: Mapping[str, Part]) -> dict[str, Graph]:
    """The NPU graph of every partition by its symbol, named after the model."""
    return {symbol: build_graph(f"{model_name}.{symbol}" if len(parts) > 1 else model_name, part)
            for symbol, part in parts.items()}  # fmt: skip


def npu_ops(parts: Mapping[str, Part]) -> tuple[NpuOp, ...]:
    """The operators of all partitions by the names a user knows."""
    every = (NpuOp(name, op_type, symbol, VECTOR if found.entry is KERNEL else ENGINE) for symbol, part in parts.items()
             for found in part.found for name, op_type in found.match.origins)  # fmt: skip
    return tuple(dict.fromkeys(every))


def build_graph(name: str, part: Part) -> Graph:
    """The NPU graph of a partition; ports carry the names of the ONNX values."""
    program = part.found[0].match.program
    read = {variable for found in part.found if found.entry is not KERNEL for variable in found.match.inputs}
    # What kernels read they read as the host would: in float32.
    read_by_kernels = {variable for found in part.found if found.entry is KERNEL for variable in found.match.inputs}
    lowering = Lowering(GraphBuilder(name), frozenset(read_by_kernels.union(part.outputs)) - read)
    for variable in part.inputs:
        value, codes = _value_name(program, variable), program.codes.get(variable)
        tensor = Tensor(lowering.builder.unique(value), variable.shape, variable.dtype, codes)
        lowering.tensors[variable] = lowering.builder.input(tensor, value)
    for found in part.found:
        lowering.tensors[found.match.root] = found.entry.converter(found.match, lowering)
    for variable in part.outputs:
        lowering.builder.output(_leaving(lowering, variable, part.found), _value_name(program, variable))
    return lowering.builder.freeze()


def _leaving(lowering: Lowering, variable: Variable, found: Sequence[Candidate]) -> str:
    """The tensor of an output in the data type that the host expects."""
    tensor = lowering.tensors[variable]
    if lowering.builder.tensors[tensor].dtype == variable.dtype:
        return tensor
    match = next(each.match for each in found if each.match.root is variable)
    origin = tuple(name for name, _ in match.origins)
    return append_op(
        lowering.builder, "cast", [tensor], name=f"{tensor}.{variable.dtype}", dtype=variable.dtype, origin=origin
    )


def _value_name(program: Program, variable: Variable) -> str:
    source = program.sources.get(variable)
    return source.value if source else variable.name
