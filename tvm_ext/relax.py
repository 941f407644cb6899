"""The Relax front end: a cleaned ONNX model to a module with NPU partitions, and the NPU graph of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import tvm
from tvm import relax

from tvm_ext.candidates import Candidate
from tvm_ext.find import find_matches
from tvm_ext.importer import import_onnx
from tvm_ext.outline import MATCH_ATTRIBUTE, merge, outline, partitions
from tvm_ext.parts import Part, Partitioned, build_graphs, npu_ops
from tvm_ext.program import index_program
from tvm_ext.relax_kernels import kernels_of
from tvm_ext.relax_values import Values, variables_in
from tvm_ext.values import Variable


def partition(
    model: onnx.ModelProto, *, computes_float: bool = False, kernel_spm_bytes: int | None = None
) -> Partitioned:
    """Imports a cleaned model, gives the NPU what it can run and says of every other operator why not.

    `computes_float`: whether the machine takes float16 tensors; without, the engines leave float operators alone.
    `kernel_spm_bytes`: the smallest scratchpad, with which the vector processors run what TVM lowers and the engines
    do not know; None leaves that to the host.
    """
    imported = import_onnx(model)
    values = Values.of(imported)
    kernels = None if kernel_spm_bytes is None else kernels_of(imported.host_forms, kernel_spm_bytes)
    findings = find_matches(index_program(values.imported(), computes_float=computes_float, kernels=kernels))
    matches = [found.match for found in findings.found]
    module = merge(outline(imported, values, matches))
    parts = {symbol: _part(function, findings.found) for symbol, function in partitions(module).items()}
    return Partitioned(
        module, build_graphs(model.graph.name, parts), npu_ops(parts), findings.host_ops,
        _outputs(imported.module["main"]),
    )  # fmt: skip


def _part(function: relax.Function, found: Sequence[Candidate]) -> Part:
    """A partition in terms of the imported model: each of its composites says by its number which match it is."""
    composites: dict[relax.Var, int] = {}
    known: dict[relax.Var, Variable] = {}
    taken = []
    for binding in (binding for block in function.body.blocks for binding in block.bindings):
        variable, value = binding.var, binding.value
        if isinstance(value, relax.Function):
            composites[variable] = int(value.attrs[MATCH_ATTRIBUTE])
        elif isinstance(value, tvm.ir.Call):
            item = found[composites[value.op]]
            taken.append(item)
            known[variable] = item.match.root
            known.update(zip(value.args, item.match.inputs, strict=True))
        elif isinstance(value, relax.Var):
            known[variable] = known[value]
        else:
            assert isinstance(value, relax.Tuple), value
    results = _result_variables(function)
    inputs, outputs = (tuple(known[v] for v in variables) for variables in (function.params, results))
    return Part(tuple(taken), inputs, outputs)


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
