"""Batch normalisations that stay in a float model: the same function without them, whole on the NPU once quantised."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.tvm_ext.small_models import Model, feeds, quantized
from tvm_ext.batch_norm import fold_batch_norms
from tvm_ext.onnx_cleanup import clean
from tvm_ext.relax import partition

CHANNELS = 6


def batch_norm(b: Model, x: str, channels: int = CHANNELS) -> str:
    generator = np.random.default_rng(1)
    parameters = [b.constant(generator.uniform(0.5, 1.5, channels)) for _ in range(4)]
    output: str = b.op("BatchNormalization", x, *parameters, epsilon=1e-3)
    return output


def transposed(bias: bool, addition: tuple[int, ...] | None, group: int = 1) -> onnx.ModelProto:
    b = Model("transposed")
    weights = [b.random(4, CHANNELS // group, 2, 2), *([b.random(CHANNELS)] if bias else [])]
    x = b.op("ConvTranspose", b.input(1, 4, 5, 5), *weights, strides=[2, 2], group=group)
    if addition is not None:
        x = b.op("Add", x, b.random(*addition))
    return b.build(b.op("Relu", batch_norm(b, x)))


def alone(*shape: int) -> onnx.ModelProto:
    b = Model("alone")
    x = b.op("Sigmoid", b.input(*shape))
    return b.build(batch_norm(b, x, shape[1]))


def read_twice() -> onnx.ModelProto:
    b = Model("twice")
    x = b.op("ConvTranspose", b.input(1, 4, 5, 5), b.random(4, CHANNELS, 2, 2))
    return b.build(b.op("Add", batch_norm(b, x), x))


CASES = {
    "plain": (transposed(False, None), ["ConvTranspose", "Relu"]),
    "bias": (transposed(True, None), ["ConvTranspose", "Relu"]),
    "addition": (transposed(False, (1, CHANNELS, 1, 1)), ["ConvTranspose", "Relu"]),
    "both": (transposed(True, (CHANNELS, 1, 1)), ["ConvTranspose", "Relu"]),
    "whole_addition": (transposed(True, (1, CHANNELS, 10, 10)), ["ConvTranspose", "Add", "Mul", "Add", "Relu"]),
    "groups": (transposed(True, None, 2), ["ConvTranspose", "Mul", "Add", "Relu"]),
    "image": (alone(1, 5, 7, 3), ["Sigmoid", "Mul", "Add"]),
    "sequence": (alone(2, 5, 7), ["Sigmoid", "Mul", "Add"]),
    "vector": (alone(3, 5), ["Sigmoid", "Mul", "Add"]),
    "read_twice": (read_twice(), ["ConvTranspose", "Mul", "Add", "Add"]),
}


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, feed)[0]
    return output


@pytest.mark.parametrize("name", CASES)
def test_same_function(name: str) -> None:
    model, operators = CASES[name]
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    fold_batch_norms(folded)
    onnx.checker.check_model(folded)
    assert {tensor.name for tensor in folded.graph.initializer} <= {n for node in folded.graph.node for n in node.input}
    assert [node.op_type for node in folded.graph.node] == operators
    (feed,) = feeds(model)
    np.testing.assert_allclose(run(folded, feed), run(model, feed), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["both", "image"])
def test_quantised_whole(name: str) -> None:
    model = quantized(CASES[name][0])
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert partition(clean(model)).host_ops == ()


def test_parameters_that_are_computed() -> None:
    model = alone(1, 5, 7, 3)
    mean = model.graph.node[1].input[3]
    constant = next(tensor for tensor in model.graph.initializer if tensor.name == mean)
    values = numpy_helper.to_array(constant)
    model.graph.initializer.remove(constant)
    model.graph.input.append(helper.make_tensor_value_info(mean, TensorProto.FLOAT, values.shape))
    before = model.SerializeToString()
    fold_batch_norms(model)
    assert model.SerializeToString() == before
