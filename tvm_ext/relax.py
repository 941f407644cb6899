"""The Relax front end: a cleaned ONNX model to a module with NPU partitions, and the NPU graph of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
import tvm
from tvm import relax

from npu_backend.graph import Graph, GraphBuilder, Tensor
from npu_backend.ops import append_op
from tvm_ext.candidates import Candidate
from tvm_ext.find import find_matches
from tvm_ext.importer import import_onnx
from tvm_ext.lowering import Lowering
from tvm_ext.matching import Program, dtype_of, shape_of, variables_in
from tvm_ext.outline import MATCH_ATTRIBUTE, merge, outline, partitions
from tvm_ext.package import HostOp, NpuOp
from tvm_ext.program import index_program


@dataclass(frozen=True)
class Partitioned:
    """A Relax module that calls one function per NPU partition, and the graph of each by its symbol.

    `outputs` are shape and data type of the model's outputs, in order.
    """

    module: tvm.IRModule
    graphs: Mapping[str, Graph]
    npu_ops: tuple[NpuOp, ...]
    host_ops: tuple[HostOp, ...]
    outputs: tuple[tuple[tuple[int, ...], str], ...]


def partition(model: onnx.ModelProto, *, computes_float: bool = False) -> Partitioned:
    """Imports a cleaned model, gives the NPU what it can run and says of every other operator why not.

    `computes_float`: whether the machine takes float16 tensors; without, float operators stay on the host.
    """
    imported = import_onnx(model)
    program = index_program(imported, computes_float=computes_float)
    findings = find_matches(program)
    matches = [found.match for found in findings.found]
    module = merge(outline(imported.module, program, matches))
    functions = partitions(module)
    graphs, npu_ops = {}, []
    for symbol, function in functions.items():
        part = _Part.of(function, findings.found)
        graphs[symbol] = build_graph(f"{model.graph.name}.{symbol}" if len(functions) > 1 else model.graph.name, part)
        npu_ops += [NpuOp(name, op_type, symbol) for found in part.found for name, op_type in found.match.origins]
    return Partitioned(
        module, graphs, tuple(dict.fromkeys(npu_ops)), findings.host_ops, _outputs(imported.module["main"])
    )


@dataclass(frozen=True)
class _Part:
    """A partition in terms of the imported program's variables."""

    found: tuple[Candidate, ...]
    inputs: tuple[relax.Var, ...]
    outputs: tuple[relax.Var, ...]

    @staticmethod
    def of(function: relax.Function, found: Sequence[Candidate]) -> _Part:
        """Reads the calls of composites; each says by its number which match it is."""
        composites: dict[relax.Var, int] = {}
        known: dict[relax.Var, relax.Var] = {}
        taken = []
        for binding in (binding for block in function.body.blocks for binding in block.bindings):
            variable, value = binding.var, binding.value
            if isinstance(value, relax.Function):
                composites[variable] = int(value.attrs[MATCH_ATTRIBUTE])
            elif isinstance(value, tvm.ir.Call):
                item = found[composites[value.op]]
                taken.append(item)
                known[variable] = item.match.root
                known.update(zip(value.args, dict.fromkeys(item.match.inputs), strict=True))
            elif isinstance(value, relax.Var):
                known[variable] = known[value]
            else:
                assert isinstance(value, relax.Tuple), value
        results = _result_variables(function)
        inputs, outputs = (tuple(known[v] for v in variables) for variables in (function.params, results))
        return _Part(tuple(taken), inputs, outputs)


def build_graph(name: str, part: _Part) -> Graph:
    """The NPU graph of a partition; ports carry the names of the ONNX values."""
    program = part.found[0].match.program
    read = {variable for found in part.found for variable in found.match.inputs}
    lowering = Lowering(GraphBuilder(name), frozenset(part.outputs) - read)
    for variable in part.inputs:
        value = _value_name(program, variable)
        codes = program.codes.get(variable)
        tensor = Tensor(lowering.builder.unique(value), shape_of(variable), dtype_of(variable), codes)
        lowering.tensors[variable] = lowering.builder.input(tensor, value)
    for found in part.found:
        lowering.tensors[found.match.root] = found.entry.converter(found.match, lowering)
    for variable in part.outputs:
        lowering.builder.output(_leaving(lowering, variable, part), _value_name(program, variable))
    return lowering.builder.freeze()


def _leaving(lowering: Lowering, variable: relax.Var, part: _Part) -> str:
    """The tensor of an output in the data type that the host expects."""
    tensor, wanted = lowering.tensors[variable], dtype_of(variable)
    if lowering.builder.tensors[tensor].dtype == wanted:
        return tensor
    match = next(found.match for found in part.found if found.match.root.same_as(variable))
    origin = tuple(name for name, _ in match.origins)
    return append_op(lowering.builder, "cast", [tensor], name=f"{tensor}.{wanted}", dtype=wanted, origin=origin)


def _value_name(program: Program, variable: relax.Var) -> str:
    source = program.sources.get(variable)
    return source.value if source else str(variable.name)


def _result_variables(function: relax.Function) -> Iterator[relax.Var]:
    """The variables a function returns, one by one where it returns a tuple."""
    result = function.body.body
    bound = {binding.var: binding.value for block in function.body.blocks for binding in block.bindings}
    while isinstance(result, relax.Var) and isinstance(bound.get(result), relax.Tuple):
        result = bound[result]
    return variables_in(result)


def _outputs(function: relax.Function) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Shape and data type of what a function returns, constants among it too."""
    result = function.ret_ty
    types = result.fields if isinstance(result, relax.TupleType) else [result]
    return tuple((tuple(map(int, tensor.shape)), str(tensor.dtype)) for tensor in types)
