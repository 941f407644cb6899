"""QOperator forms (QLinearConv and its kin) rewritten to DequantizeLinear, the float operator and QuantizeLinear.

TVM's importer knows only the latter. The float operator keeps the node's name; the helpers are named after it.
Operand orders: ONNX operator specification and ONNX Runtime's contributed operators (com.microsoft).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from npu_backend.errors import ModelError
from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_opset import REDUCE_AXES_OPERAND

_ONE_INPUT = {
    "QLinearSigmoid": "Sigmoid",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSoftmax": "Softmax",
    "QLinearAveragePool": "AveragePool",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearReduceMean": "ReduceMean",
}
_TWO_INPUTS = {"QLinearAdd": "Add", "QLinearMul": "Mul"}
# Attributes that the contributed operators have and ONNX's do not.
_FOREIGN_ATTRIBUTES = ("channels_last", "opset")


@dataclass
class _Rewrite:
    """One node's replacement under construction."""

    node: onnx.NodeProto
    constants: Constants
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def operand(self, index: int) -> str:
        """The name of an operand, empty where it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def attribute(self, name: str) -> onnx.AttributeProto | None:
        """An attribute of the node, if it is there."""
        return next((attribute for attribute in self.node.attribute if attribute.name == name), None)

    def dequantize(self, first: int, label: str, axis: int | None = None) -> str:
        """DequantizeLinear of the operand triple (codes, scale, zero point) that starts at `first`."""
        names = [name for name in (self.operand(first + i) for i in range(3)) if name]
        per_axis = names[1] in self.constants and self.constants.element_count(names[1]) > 1
        return self._append(names, label, {"axis": axis} if per_axis and axis is not None else {})

    def dequantize_bias(self, index: int, x_scale: str, weight_scale: str) -> str:
        """DequantizeLinear of an int32 bias, whose scale is the product of the other two; empty without a bias."""
        if not self.operand(index):
            return ""
        scale = np.float32(self._constant(x_scale)) * self._constant(weight_scale)
        shape = (-1,) if scale.size > 1 else ()
        name = self.constants.add(f"{self.node.name}.bias_scale", scale.astype(np.float32).reshape(shape))
        return self._append([self.operand(index), name], "bias", {"axis": 0})

    def compute(self, op_type: str, inputs: Sequence[str], scale: int, drop: Sequence[str] = ()) -> None:
        """The float operator, and QuantizeLinear by the operands (scale, zero point) that start at `scale`."""
        quantized = bool(self.operand(scale))
        output = f"{self.node.output[0]}.float" if quantized else self.node.output[0]
        node = helper.make_node(op_type, inputs, [output], name=self.node.name)
        node.attribute.extend(a for a in self.node.attribute if a.name not in (*_FOREIGN_ATTRIBUTES, *drop))
        self.nodes.append(node)
        if quantized:
            names = [output, *(name for name in (self.operand(scale), self.operand(scale + 1)) if name)]
            label = f"{self.node.name}.quantize"
            self.nodes.append(helper.make_node("QuantizeLinear", names, [self.node.output[0]], name=label))

    def _append(self, inputs: Sequence[str], label: str, attributes: dict[str, Any]) -> str:
        name, output = f"{self.node.name}.{label}", f"{self.node.output[0]}.{label}"
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], name=name, **attributes))
        return output

    def _constant(self, name: str) -> np.ndarray:
        if name not in self.constants:
            raise ModelError(f"{self.node.op_type} {self.node.name!r}: its scale {name!r} must be a constant")
        return self.constants[name]


def _convolution(r: _Rewrite) -> None:
    inputs = [r.dequantize(0, "x"), r.dequantize(3, "weight", axis=0)]
    bias = r.dequantize_bias(8, r.operand(1), r.operand(4))
    r.compute("Conv", [*inputs, bias] if bias else inputs, 6)


def _matmul(r: _Rewrite) -> None:
    rank = r.constants.rank(r.operand(3)) if r.operand(3) in r.constants else 2
    r.compute("MatMul", [r.dequantize(0, "a"), r.dequantize(3, "b", axis=rank - 1)], 6)


def _gemm(r: _Rewrite) -> None:
    transposed = r.attribute("transB")
    inputs = [r.dequantize(0, "a"), r.dequantize(3, "b", axis=0 if transposed is not None and transposed.i else 1)]
    bias = r.dequantize_bias(6, r.operand(1), r.operand(4))
    r.compute("Gemm", [*inputs, bias] if bias else inputs, 7)


def _concat(r: _Rewrite) -> None:
    starts = range(2, len(r.node.input), 3)
    r.compute("Concat", [r.dequantize(start, f"x{i}") for i, start in enumerate(starts)], 0)


def _one_input(r: _Rewrite) -> None:
    channels_last, axes = r.attribute("channels_last"), r.attribute("axes")
    if channels_last is not None and channels_last.i:
        raise ModelError(f"{r.node.op_type} {r.node.name!r}: channels_last is not supported; export channels first")
    inputs, drop = [r.dequantize(0, "x")], list[str]()
    if axes is not None and r.opset >= REDUCE_AXES_OPERAND:
        inputs.append(r.constants.add(f"{r.node.name}.axes", np.array(axes.ints, np.int64)))
        drop.append("axes")
    r.compute(_ONE_INPUT[r.node.op_type], inputs, 3, drop)


def _where(r: _Rewrite) -> None:
    r.compute("Where", [r.operand(0), r.dequantize(1, "a"), r.dequantize(4, "b")], 7)


def _two_inputs(r: _Rewrite) -> None:
    r.compute(_TWO_INPUTS[r.node.op_type], [r.dequantize(0, "a"), r.dequantize(3, "b")], 6)


_REWRITES: dict[str, Callable[[_Rewrite], None]] = {
    "QLinearConv": _convolution,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
    **dict.fromkeys(_ONE_INPUT, _one_input),
    **dict.fromkeys(_TWO_INPUTS, _two_inputs),
}


def rewritten_operators() -> tuple[str, ...]:
    """Names of the operators that `to_qdq` replaces."""
    return tuple(_REWRITES)


def to_qdq(nodes: Sequence[onnx.NodeProto], constants: Constants, opset: int) -> list[onnx.NodeProto]:
    """The nodes with every QOperator form replaced; new constants are added to `constants`.

    Raises ModelError for a form without an equivalent: channels_last, or a bias whose scale is no constant.
    """
    replaced: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type not in _REWRITES:
            replaced.append(node)
            continue
        rewrite = _Rewrite(node, constants, opset)
        _REWRITES[node.op_type](rewrite)
        replaced += rewrite.nodes
    return replaced
