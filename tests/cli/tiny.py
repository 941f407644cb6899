"""A quantised ONNX model of two convolutions that compiles in a moment, and the command line in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvm_ext.cli.app import run

INPUT_SHAPE = (1, 3, 16, 16)
OUTPUT_SHAPE = (1, 16, 8, 8)
OUTPUT_SCALE = 0.125


class Result(NamedTuple):
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


def npuc(capsys: pytest.CaptureFixture[str], *arguments: Any) -> Result:
    """Runs a command in this process."""
    capsys.readouterr()
    code = run([str(argument) for argument in arguments])
    return Result(code, *capsys.readouterr())


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.generator = np.random.default_rng(7)

    def constant(self, name: str, value: Any, dtype: str) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}_{op}", **attributes))
        return output

    def coded(self, value: str, scale: float, zero_point: int, output: str) -> str:
        """`value` through QuantizeLinear and DequantizeLinear."""
        parameters = [
            self.constant(f"{value}_scale", scale, "float32"),
            self.constant(f"{value}_zero", zero_point, "uint8"),
        ]
        codes = self.node("QuantizeLinear", [value, *parameters], f"{value}_codes")
        return self.node("DequantizeLinear", [codes, *parameters], output)

    def weight(self, name: str, *shape: int) -> str:
        codes = self.constant(f"{name}_codes", self.generator.integers(-127, 128, shape), "int8")
        parameters = [self.constant(f"{name}_scale", 0.01, "float32"), self.constant(f"{name}_zero", 0, "int8")]
        return self.node("DequantizeLinear", [codes, *parameters], name)


def tiny_model(first_extent: int | str = 1, tail: str | None = None) -> onnx.ModelProto:
    """Two convolutions between codes; `tail` is a float operator behind them."""
    b = _Builder()
    x = b.coded("image", 0.02, 128, "x")
    y = b.node("Conv", [x, b.weight("w0", 8, 3, 3, 3)], "c0", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    y = b.coded(y, 0.0625, 120, "y0")
    y = b.node("Conv", [y, b.weight("w1", 16, 8, 1, 1)], "c1", kernel_shape=[1, 1])
    y = b.coded(y, OUTPUT_SCALE, 100, "y1" if tail else "features")
    if tail:
        b.node(tail, [y], "features")
    shapes = [first_extent, *INPUT_SHAPE[1:]], [first_extent, *OUTPUT_SHAPE[1:]]
    graph = helper.make_graph(
        b.nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shapes[0])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shapes[1])],
        b.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path
