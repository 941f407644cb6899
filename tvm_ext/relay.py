"""The Relay front end: a cleaned ONNX model to a module with NPU partitions, and the NPU graph of each.

Scales and zero points are those of the quantise and dequantise operators. TVM's own way, FakeQuantizationToInteger,
requantises in fixed point, which drifts from ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import tvm
from tvm import relay

from npu_backend.errors import UnsupportedError
from tvm_ext.candidates import Candidate
from tvm_ext.find import find_matches
from tvm_ext.matching import Match, dtype_of, shape_of
from tvm_ext.parts import CODEGEN, Part, Partitioned, build_graphs, npu_ops
from tvm_ext.program import index_program
from tvm_ext.relay_import import RelayModel, import_onnx
from tvm_ext.relay_kernels import kernels_of
from tvm_ext.relay_structured import constant
from tvm_ext.values import Constant, Value, Variable

_MATCH_ATTRIBUTE = "npu_match"


def partition(
    model: onnx.ModelProto, *, computes_float: bool = False, kernel_spm_bytes: int | None = None
) -> Partitioned:
    """Imports a cleaned model, gives the NPU what it can run and says of every other operator why not.

    `computes_float`: whether the machine takes float16 tensors; without, the engines leave float operators alone.
    `kernel_spm_bytes`: the smallest scratchpad, with which the vector processors run what TVM lowers and the engines
    do not know; None leaves that to the host.
    """
    imported = import_onnx(model)
    kernels = None if kernel_spm_bytes is None else kernels_of(imported, kernel_spm_bytes)
    findings = find_matches(index_program(imported.imported(), computes_float=computes_float, kernels=kernels))
    matches = [found.match for found in findings.found]
    merged = _merged(_outlined(imported, matches))
    regions = _regions(merged, findings.found, _reads(imported, matches))
    parts = {symbol: region.part for symbol, region in regions.items()}
    outputs = tuple((shape_of(value), dtype_of(value)) for value in imported.outputs)
    module = _finished(merged, regions, [_composite(imported, match, index) for index, match in enumerate(matches)])
    return Partitioned(module, build_graphs(model.graph.name, parts), npu_ops(parts), findings.host_ops, outputs)


def _outlined(imported: RelayModel, matches: Sequence[Match]) -> tvm.IRModule:
    """``main`` with every match as a call of a composite function that carries its number.

    The functions stay empty until the partitions are there: TVM's passes walk through all of them again and again.
    """
    by_root = {match.root: index for index, match in enumerate(matches)}
    vanished = {variable for match in matches for variable in match.inside}
    built = _Builder(imported, dict(imported.inputs), is_host=True)
    for variable in imported.calls:
        index = by_root.get(variable)
        if index is not None:
            arguments = [built.expressions[read] for read in matches[index].inputs]
            built.expressions[variable] = relay.Call(_empty_composite(matches[index], index), arguments)
        elif variable not in vanished:
            built.define(variable)
    results = [built.read(value) for value in imported.outputs]
    body = results[0] if len(results) == 1 else relay.Tuple(results)
    return tvm.IRModule.from_expr(relay.Function(list(imported.inputs.values()), body))


@dataclass(frozen=True)
class _Builder:
    """Relay expressions of variables, each node's made once; `is_host`: whether TVM is to run them."""

    imported: RelayModel
    expressions: dict[Variable, relay.Expr]
    is_host: bool

    def define(self, variable: Variable) -> None:
        """Makes all results of the node that the variable is one of, unless they are there."""
        if variable in self.expressions:
            return
        form = self.imported.forms[self.imported.sources[variable].node.name]
        if form.refusal is not None and self.is_host:
            raise UnsupportedError(form.refusal)
        names = list(form.results)
        arguments = {operand: self.read(self.imported.named[name]) for name, operand in form.operands.items()}
        bound = relay.bind(relay.Tuple([form.results[name] for name in names]), arguments)
        for name, result in zip(names, bound.fields, strict=True):
            value = self.imported.named[name]
            if isinstance(value, Variable):
                self.expressions.setdefault(value, result)

    def read(self, value: Value) -> relay.Expr:
        """What a node reads."""
        return constant(value.array) if isinstance(value, Constant) else self.expressions[value]


def _empty_composite(match: Match, index: int) -> relay.Function:
    root = match.root
    return _marked(list(_parameters(match).values()), relay.zeros(root.shape, root.dtype), match, index)


def _composite(imported: RelayModel, match: Match, index: int) -> relay.Function:
    """The match as TVM would compute it."""
    parameters = _parameters(match)
    built = _Builder(imported, dict(parameters), is_host=False)
    for variable in (*match.inside, match.root):
        built.define(variable)
    return _marked(list(parameters.values()), built.expressions[match.root], match, index)


def _parameters(match: Match) -> dict[Variable, relay.Var]:
    return {variable: relay.var(f"x{number}", shape=variable.shape, dtype=variable.dtype)
            for number, variable in enumerate(match.inputs)}  # fmt: skip


def _marked(parameters: list[relay.Var], body: relay.Expr, match: Match, index: int) -> relay.Function:
    attributes = {"Composite": f"{CODEGEN}.{match.node.op_type}", _MATCH_ATTRIBUTE: index, "Primitive": 1}
    function = relay.Function(parameters, body)
    for name, value in attributes.items():
        function = function.with_attr(name, tvm.tir.IntImm("int32", value) if isinstance(value, int) else value)
    return function


def _merged(module: tvm.IRModule) -> tvm.IRModule:
    """Composites gathered into functions for the NPU."""
    passes = (
        relay.transform.InferType(),
        # Tuples of inputs would become functions without content.
        relay.transform.AnnotateTarget(CODEGEN, include_non_call_ops=False),
        relay.transform.MergeCompilerRegions(),
        relay.transform.PartitionGraph(),
        relay.transform.InferType(),
    )
    return tvm.transform.Sequential(passes)(module)


@dataclass(frozen=True)
class _Region:
    """A function for the NPU as TVM made it, and the order in which parameters and results are wanted."""

    name: str
    function: relay.Function
    part: Part
    parameters: tuple[int, ...]
    results: tuple[int, ...]


@dataclass(frozen=True)
class _Reads:
    """What is read in one place: by the match of this number, or None by the host or as outputs of the model."""

    match: int | None
    variables: tuple[Variable, ...]


def _reads(imported: RelayModel, matches: Sequence[Match]) -> Sequence[_Reads]:
    """All of them, in the order of the model."""
    by_root = {match.root: index for index, match in enumerate(matches)}
    vanished = {variable for match in matches for variable in match.inside}
    places = [
        _Reads(by_root.get(variable), matches[by_root[variable]].inputs if variable in by_root else (*call.reads,))
        for variable, call in imported.calls.items()
        if variable not in vanished
    ]
    return [*places, _Reads(None, tuple(value for value in imported.outputs if isinstance(value, Variable)))]


def _regions(module: tvm.IRModule, found: Sequence[Candidate], reads: Sequence[_Reads]) -> Mapping[str, _Region]:
    """The partitions by symbol, ``npu_<k>`` in the order of the model."""
    functions = {name.name_hint: function for name, function in module.functions.items()
                 if function.attrs and "Compiler" in function.attrs.keys()}  # noqa: SIM118  # fmt: skip
    taken = {name: sorted(_composites(function.body)) for name, function in functions.items()}
    ordered = sorted(functions, key=lambda name: taken[name])
    return {f"{CODEGEN}_{number}": _region(name, functions[name], taken[name], found, reads)
            for number, name in enumerate(ordered)}  # fmt: skip


def _region(
    name: str, function: relay.Function, taken: Sequence[int], found: Sequence[Candidate], reads: Sequence[_Reads]
) -> _Region:
    """Inputs in the order of their readers inside, outputs in that of their readers outside, as Relax has them."""
    composites = _composites(function.body)
    known: dict[relay.Var, Variable] = {}
    for index, call in composites.items():
        pairs = zip(call.args, found[index].match.inputs, strict=True)
        known.update((argument, variable) for argument, variable in pairs if isinstance(argument, relay.Var))
    read = dict.fromkeys(variable for index in taken for variable in found[index].match.inputs)
    inputs = tuple(variable for variable in read if variable in set(known.values()))
    results = function.body.fields if isinstance(function.body, relay.Tuple) else [function.body]
    roots = [found[_number(result)].match.root for result in results]
    inside, leaving = set(taken), set(roots)
    outside = (variable for place in reads if place.match not in inside for variable in place.variables)
    outputs = tuple(dict.fromkeys(variable for variable in (*outside, *roots) if variable in leaving))
    places = {known[parameter]: place for place, parameter in enumerate(function.params)}
    return _Region(
        name, function, Part(tuple(found[index] for index in taken), inputs, outputs),
        tuple(places[variable] for variable in inputs), tuple(roots.index(root) for root in outputs),
    )  # fmt: skip


def _composites(body: relay.Expr) -> dict[int, relay.Call]:
    """The calls of composites by the number of their match."""
    calls: dict[int, relay.Call] = {}

    def visit(expression: relay.Expr) -> None:
        if isinstance(expression, relay.Call) and isinstance(expression.op, relay.Function):
            calls[_number(expression)] = expression

    relay.analysis.post_order_visit(body, visit)
    return calls


def _number(call: relay.Call) -> int:
    return int(call.op.attrs[_MATCH_ATTRIBUTE])


class _Renaming(relay.ExprMutator):  # type: ignore[misc]
    """Calls of partitions under their new name, parameters and results in the wanted order."""

    def __init__(self, regions: Mapping[str, tuple[relay.GlobalVar, _Region]]) -> None:
        super().__init__()
        self._regions = regions

    def visit_call(self, call: relay.Call) -> relay.Expr:
        """The call itself where it is no partition's."""
        region = self._regions.get(call.op.name_hint) if isinstance(call.op, relay.GlobalVar) else None
        if region is None:
            return super().visit_call(call)
        variable, found = region
        return relay.Call(variable, [self.visit(call.args[place]) for place in found.parameters])

    def visit_tuple_getitem(self, item: relay.TupleGetItem) -> relay.Expr:
        """The place of a partition's result."""
        call, value = item.tuple_value, self.visit(item.tuple_value)
        is_partition = isinstance(call, relay.Call) and isinstance(call.op, relay.GlobalVar)
        region = self._regions.get(call.op.name_hint) if is_partition else None
        return relay.TupleGetItem(value, item.index if region is None else region[1].results.index(item.index))


class _Filling(relay.ExprMutator):  # type: ignore[misc]
    """Calls of empty composites made calls of those with content."""

    def __init__(self, composites: Sequence[relay.Function]) -> None:
        super().__init__()
        self._composites = composites

    def visit_call(self, call: relay.Call) -> relay.Expr:
        """The call of the composite of the same number."""
        return relay.Call(self._composites[_number(call)], [self.visit(argument) for argument in call.args])


def _finished(
    module: tvm.IRModule, regions: Mapping[str, _Region], composites: Sequence[relay.Function]
) -> tvm.IRModule:
    """Partitions under their symbols, parameters and results in the wanted order, composites with content."""
    variables = {region.name: (relay.GlobalVar(symbol), region) for symbol, region in regions.items()}
    functions = {
        variable: _reordered(region, variable.name_hint, composites) for variable, region in variables.values()
    }
    main = _Renaming(variables).visit(module["main"])
    return relay.transform.InferType()(tvm.IRModule({**functions, relay.GlobalVar("main"): main}))


def _reordered(region: _Region, symbol: str, composites: Sequence[relay.Function]) -> relay.Function:
    function, returned = region.function, region.function.ret_type
    body = _Filling(composites).visit(function.body)
    if isinstance(body, relay.Tuple):
        body = relay.Tuple([body.fields[place] for place in region.results])
        returned = relay.TupleType([returned.fields[place] for place in region.results])
    parameters = [function.params[place] for place in region.parameters]
    made = relay.Function(parameters, body, returned, function.type_params, function.attrs)
    return made.with_attr("global_symbol", symbol)
