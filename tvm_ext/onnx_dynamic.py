"""DynamicQuantizeLinear as the operators that ONNX defines it by: the scale is a number of the graph like any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_origin import inherit


def expand_dynamic_quantization(nodes: Sequence[onnx.NodeProto], constants: Constants) -> list[onnx.NodeProto]:
    """The nodes with every DynamicQuantizeLinear written out; a range of zero has scale 1, as in ONNX Runtime."""
    result: list[onnx.NodeProto] = []
    for node in nodes:
        result += _expanded(node, constants) if node.op_type == "DynamicQuantizeLinear" else [node]
    return result


def _expanded(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    x, (y, scale, zero_point) = node.input[0], (*node.output, *[f"{node.output[0]}.unread"] * 2)[:3]
    made: list[onnx.NodeProto] = []

    def op(op_type: str, *inputs: str, label: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{node.output[0]}.{label}"
        made.append(helper.make_node(op_type, inputs, [name], name=f"{node.name}.{label}", **attributes))
        return name

    def number(label: str, value: float) -> str:
        return constants.add(f"{node.output[0]}.{label}", np.array(value, np.float32))

    zero, codes = number("zero", 0), number("codes", 255)
    low = op("Min", op("ReduceMin", x, label="minimum", keepdims=0), zero, label="low")
    high = op("Max", op("ReduceMax", x, label="maximum", keepdims=0), zero, label="high")
    span = op("Sub", high, low, label="range")
    empty = op("Equal", span, zero, label="empty")
    op("Where", empty, number("one", 1), op("Div", span, codes, label="step"), label="scale", output=scale)
    shift = op("Sub", zero, op("Div", low, scale, label="low_codes"), label="shift")
    origin = op("Round", op("Clip", shift, zero, codes, label="inside"), label="origin")
    op("Cast", origin, label="zero_point", output=zero_point, to=onnx.TensorProto.UINT8)
    steps = op("Round", op("Div", x, scale, label="quotient"), label="steps")
    bounded = op("Clip", op("Add", steps, origin, label="shifted"), zero, codes, label="bounded")
    op("Cast", bounded, label="values", output=y, to=onnx.TensorProto.UINT8)
    return [inherit(each, [node]) for each in made]
