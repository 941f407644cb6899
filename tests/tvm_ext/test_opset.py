"""Operator sets from 7 to 24: the cleaned model computes what the original means."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from npu_backend.errors import ModelError
from tests.tvm_ext.by_runtime import assert_close, by_onnx_runtime
from tests.tvm_ext.on_host import on_host
from tests.tvm_ext.one_node import feed_of, normal, one_node
from tvm_ext.onnx_cleanup import clean
from tvm_ext.onnx_opset import NEWEST_OPSET, opset_of
from tvm_ext.onnx_origin import origins

IMAGE = normal(1, 3, 4, 5)
TWICE = np.array([1, 1, 2, 3], np.float32)

OLD: list[tuple[str, list[Any], tuple[int, ...], dict[str, Any]]] = [
    ("Upsample", [IMAGE], (), {"scales": [1.0, 1.0, 2.0, 3.0], "opset": 7}),
    ("Upsample", [IMAGE], (), {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "linear", "opset": 7}),
    ("Upsample", [IMAGE, TWICE], (1,), {"mode": "linear", "opset": 9}),
    ("Resize", [IMAGE, TWICE], (1,), {"mode": "linear", "opset": 10}),
    ("Resize", [IMAGE, np.array([1, 1, 0.5, 2], np.float32)], (1,), {"opset": 10}),
    ("Softmax", [IMAGE], (), {"axis": 1, "opset": 8}),
    ("Softmax", [IMAGE], (), {"axis": 1, "opset": 11}),
    ("Softmax", [IMAGE], (), {"axis": 1, "opset": 13}),
    ("LogSoftmax", [IMAGE], (), {"axis": 2, "opset": 12}),
    ("BatchNormalization", [IMAGE, *(np.abs(normal(3)) + k for k in range(4))], (1, 2, 3, 4), {"opset": 7}),
    ("BatchNormalization", [IMAGE, *(np.abs(normal(3)) + k for k in range(4))], (1, 2, 3, 4), {"opset": 15}),
    ("Dropout", [IMAGE], (), {"opset": 7}),
    ("Clip", [IMAGE], (), {"min": -0.5, "max": 0.5, "opset": 10}),
    ("Pad", [IMAGE], (), {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 0.5, "opset": 10}),
    ("Slice", [IMAGE], (), {"starts": [1], "ends": [3], "axes": [2], "opset": 9}),
    ("ReduceMean", [IMAGE, np.array([2, 3])], (1,), {"keepdims": 0, "opset": NEWEST_OPSET}),
]


@pytest.mark.parametrize(("op", "operands", "constants", "attributes"), OLD)
def test_meaning(op: str, operands: list[Any], constants: tuple[int, ...], attributes: dict[str, Any]) -> None:
    model = one_node(op, operands, constants, **attributes)
    assert opset_of(clean(model)) >= 11
    feed = feed_of(model, operands)
    expected = by_onnx_runtime(model, feed)
    assert_close(on_host(model, feed), expected)
    assert_close(by_onnx_runtime(clean(model), feed), expected)


def test_newer_than_known() -> None:
    model = one_node("Relu", [IMAGE])
    model.opset_import[0].version = 99
    with pytest.raises(ModelError, match=r"opset 99 is newer than 24, the newest known; export it with opset 24"):
        clean(model)


def test_weights_made_by_nodes() -> None:
    """As the light networks of the onnx package have them."""
    shape = numpy_helper.from_array(np.array([4, 3, 3, 3]), "shape")
    value = numpy_helper.from_array(np.array([0.25], np.float32))
    model = one_node("Conv", [IMAGE, normal(4, 3, 3, 3)], opset=9)
    del model.graph.input[1]
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", ["shape"], ["x1"], value=value))
    assert [node.op_type for node in clean(model).graph.node] == ["Conv"]
    assert_close(on_host(model, {"x0": IMAGE}), by_onnx_runtime(model, {"x0": IMAGE}))


def test_normalisation_behind_a_convolution() -> None:
    model = one_node("Conv", [IMAGE, normal(6, 1, 3, 3)], (1,), group=3)
    names = [f"p{k}" for k in range(4)]
    model.graph.initializer.extend(numpy_helper.from_array(np.abs(normal(6)) + k, n) for k, n in enumerate(names))
    model.graph.node.append(onnx.helper.make_node("BatchNormalization", ["y0", *names], ["z"], name="norm"))
    model.graph.output[0].name = "z"
    (convolution,) = clean(model).graph.node
    assert origins(convolution) == (("node", "Conv"), ("norm", "BatchNormalization"))
    assert_close(by_onnx_runtime(clean(model), {"x0": IMAGE}), by_onnx_runtime(model, {"x0": IMAGE}))
