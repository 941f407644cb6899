"""Forms of operators that TVM takes for the plain operator: equal to ONNX's reference, through the cleaned model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from npu_backend.errors import UnsupportedError
from tvm_ext.backend import NpuBackend
from tvm_ext.onnx_cleanup import clean

OPSET = 17
INFINITE = np.float32([[-np.inf, 1, np.inf], [np.nan, -1, 2]])
OTHER = {"positive": "negative", "negative": "positive"}
X = np.random.default_rng(0).standard_normal((2, 3, 4), np.float32)


def model_of(
    node: onnx.NodeProto, x: np.ndarray, outputs: list[Any], opset: int = OPSET, **constants: np.ndarray
) -> onnx.ModelProto:
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)]
    values = [helper.make_tensor_value_info(name, data_type, None) for name, data_type in outputs]
    graph = helper.make_graph([node], "form", inputs, values, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_infinity_of_one_sign(side: str) -> None:
    node = helper.make_node(
        "IsInf", ["x"], ["y"], detect_positive=side == "positive", detect_negative=side != "positive"
    )
    check(model_of(node, INFINITE, [("y", TensorProto.BOOL)]), INFINITE)


def test_the_mask_of_a_dropout_that_drops_nothing() -> None:
    check(
        model_of(
            helper.make_node("Dropout", ["x"], ["y", "m"]), X, [("y", TensorProto.FLOAT), ("m", TensorProto.BOOL)]
        ),
        X,
    )


def test_statistics_of_a_layer_normalization() -> None:
    node = helper.make_node("LayerNormalization", ["x", "scale", "bias"], ["y", "mean", "deviation"], axis=1)
    outputs = [(name, TensorProto.FLOAT) for name in node.output]
    check(model_of(node, X, outputs, scale=X[0], bias=X[1]), X)


def test_batch_normalization_by_the_batch() -> None:
    node = helper.make_node(
        "BatchNormalization", ["x", "scale", "bias", "mean", "variance"], ["y", "m", "v"], training_mode=1
    )
    numbers = {name: np.float32([1, 2, 3]) for name in node.input[1:]}
    check(model_of(node, X, [(name, TensorProto.FLOAT) for name in node.output], **numbers), X)


def test_random_dropout_is_refused() -> None:
    node = helper.make_node("Dropout", ["x", "", "trains"], ["y"])
    with pytest.raises(UnsupportedError, match="drops at random"):
        NpuBackend.prepare(model_of(node, X, [("y", TensorProto.FLOAT)], trains=np.array(True)))


def test_powers_of_integers() -> None:
    x = np.int32([1, 2, 3])
    model = model_of(helper.make_node("Pow", ["x", "e"], ["y"]), x, [("y", TensorProto.INT32)], e=np.int32([4, 5, 6]))
    np.testing.assert_array_equal(NpuBackend.run_model(model, [x])[0], [1, 32, 729])


def check(model: onnx.ModelProto, x: np.ndarray) -> None:
    cleaned = clean(model)
    assert len(cleaned.graph.node) > 1 or cleaned.graph.node[0].op_type != model.graph.node[0].op_type
    expected, found = (ReferenceEvaluator(each).run(None, {"x": x}) for each in (model, cleaned))
    for wanted, value in zip(expected, found, strict=True):
        assert value.dtype == wanted.dtype
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
