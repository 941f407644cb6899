"""A small float classifier, and samples of its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 3, 16, 16)
CLASSES = 5


def float_model(batch: int | str = 1, channels: int = 3, dtype: str = "float32") -> onnx.ModelProto:
    """Convolution, Relu, convolution of stride 2, global average, fully connected: image -> scores."""
    generator = np.random.default_rng(3)
    shapes = {"w0": (8, channels, 3, 3), "b0": (8,), "w1": (16, 8, 3, 3), "w2": (CLASSES, 16), "b2": (CLASSES,)}
    weights = [
        numpy_helper.from_array(generator.normal(0, 0.3, shape).astype(dtype), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w0", "b0"], ["c0"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="second", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c1"], ["mean"], name="pool"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w2", "b2"], ["scores"], name="classify", transB=1),
    ]
    kind = TensorProto.FLOAT if dtype == "float32" else TensorProto.FLOAT16
    inputs = [helper.make_tensor_value_info("image", kind, [batch, channels, *SHAPE[2:]])]
    outputs = [helper.make_tensor_value_info("scores", kind, [batch, CLASSES])]
    graph = helper.make_graph(nodes, "classifier", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def two_inputs() -> onnx.ModelProto:
    """left + right."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("left", "right")]
    outputs = [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 4])]
    graph = helper.make_graph([helper.make_node("Add", ["left", "right"], ["sum"])], "two", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32[count, 3, 16, 16]."""
    return np.random.default_rng(seed).normal(0, 1, (count, *SHAPE[1:])).astype(np.float32)
