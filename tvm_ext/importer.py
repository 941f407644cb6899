"""TVM's own ONNX importer for Relax, made to say which ONNX node every value came from."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from npu_backend.errors import UnsupportedError
from tvm_ext.branches import BranchInliner
from tvm_ext.onnx_cleanup import opset_of

# What the importer raises for a form it does not know; it has no exception of its own.
# What TVM's converters raise for a form they do not know; they have no error class of their own for it.
_REFUSALS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, NotImplementedError, RuntimeError)
_NCHW_RANK = 4


@dataclass(frozen=True)
class Source:
    """Where a Relax variable came from: the ONNX node, and the name of the ONNX value it holds."""

    node: onnx.NodeProto
    value: str


@dataclass(frozen=True)
class Imported:
    """A Relax module whose ``main`` is the model, and the ONNX source of its variables."""

    module: tvm.IRModule
    sources: Mapping[relax.Var, Source]


def import_onnx(model: onnx.ModelProto) -> Imported:
    """Imports a cleaned model; raises UnsupportedError naming the node and the reason where TVM refuses."""
    importer = _Importer()
    # The importer prints before it raises, and warns of what the clean-up has settled.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        inliner = BranchInliner(importer.from_onnx(model.graph, opset_of(model)))
    module, sources = inliner.run(), importer.sources
    inner = {variable: sources[owner] for variable, owner in inliner.owners.items() if owner in sources}
    return Imported(module, {**sources, **inner})


class _Importer(ONNXGraphImporter):  # type: ignore[misc]
    """Imports node by node; a few operators become the Relax operator that says the same without TIR."""

    def __init__(self) -> None:
        super().__init__({}, "float32", keep_params_in_input=False, sanitize=False)
        self.sources: dict[relax.Var, Source] = {}

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        """Left to `_construct_nodes`, which knows the node's name."""

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            try:
                super()._construct_nodes(SimpleNamespace(node=[node]))
            except _REFUSALS as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise UnsupportedError(f"{node.op_type} {node.name!r}: TVM's importer refuses it: {lines[-1]};"
                                       " replace the operator or cut the model before it") from error  # fmt: skip
            for index, name in enumerate(node.output):
                if name:
                    self._record(node, name, index)

    def _record(self, node: onnx.NodeProto, name: str, index: int) -> None:
        value = self._nodes[name]
        if isinstance(value, tvm.ir.Call | relax.TupleGetItem):
            value = self._nodes[name] = self.bb.emit(value, name_hint=f"{node.name}.{index}" if index else node.name)
        if isinstance(value, relax.Var) and value not in self.sources:
            self.sources[value] = Source(node, name)
            if node.op_type == "If":
                self._record_choice(value)

    def _record_choice(self, value: relax.Var) -> None:
        """An If of several outputs is a tuple that they are items of."""
        bound = self.bb.lookup_binding(value)
        if isinstance(bound, relax.TupleGetItem):
            self.sources.setdefault(bound.tuple_value, self.sources[value])

    def _convert_operator(self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
        structured = _STRUCTURED.get(op_name)
        call = structured(inputs, attrs) if structured else None
        if call is None:
            return super()._convert_operator(op_name, inputs, attrs, opset)
        return self.bb.normalize(call)


def _scalar(value: Any) -> float | None:
    """The number in a constant of one element, else None."""
    if not isinstance(value, tvm.ir.GenericConst) or value.value.numpy().size != 1:
        return None
    return float(value.value.numpy().reshape(()))


def _bound(inputs: list[Any], attrs: dict[str, Any], index: int, name: str, default: float) -> float | None:
    operand = inputs[index] if index < len(inputs) else None
    return float(attrs.get(name, default)) if operand is None else _scalar(operand)


def _clip(inputs: list[Any], attrs: dict[str, Any]) -> relax.Expr | None:
    low, high = _bound(inputs, attrs, 1, "min", -float("inf")), _bound(inputs, attrs, 2, "max", float("inf"))
    # NaN bounds mean "no bound" to ONNX Runtime; TVM's own converter knows.
    if low is None or high is None or low != low or high != high:
        return None
    return relax.op.clip(inputs[0], low, high)


def _pad(inputs: list[Any], attrs: dict[str, Any]) -> relax.Expr | None:
    constant = attrs.get("mode", b"constant") == b"constant"
    if not constant or len(inputs) < 2 or not isinstance(inputs[1], tvm.ir.GenericConst):
        return None
    value = 0.0 if len(inputs) < 3 or inputs[2] is None else _scalar(inputs[2])
    pads, rank = inputs[1].value.numpy().tolist(), len(inputs[0].ty.shape)
    if value is None or min(pads) < 0 or len(pads) != 2 * rank or (len(inputs) > 3 and inputs[3] is not None):
        return None
    widths = [width for axis in range(rank) for width in (pads[axis], pads[axis + rank])]
    return relax.op.nn.pad(inputs[0], widths, "constant", value)


def _global_average_pool(inputs: list[Any], attrs: dict[str, Any]) -> relax.Expr | None:
    del attrs
    # TVM's converter makes it a mean, which ONNX Runtime rounds differently once quantised.
    return relax.op.nn.adaptive_avg_pool2d(inputs[0], [1, 1]) if len(inputs[0].ty.shape) == _NCHW_RANK else None


def _of_two(call: Callable[[Any, Any], relax.Expr]) -> Callable[[list[Any], dict[str, Any]], relax.Expr | None]:
    """Max or Min of two operands; TVM's converter stacks them and reduces."""

    def convert(inputs: list[Any], attrs: dict[str, Any]) -> relax.Expr | None:
        del attrs
        computed = any(isinstance(operand, relax.Var) for operand in inputs)
        return call(*inputs) if len(inputs) == 2 and computed else None

    return convert


_STRUCTURED: Mapping[str, Callable[[list[Any], dict[str, Any]], relax.Expr | None]] = {
    "Clip": _clip,
    "Pad": _pad,
    "GlobalAveragePool": _global_average_pool,
    "Max": _of_two(relax.op.maximum),
    "Min": _of_two(relax.op.minimum),
}
