"""Tensors without elements, as inputs, between operators and as outputs: what ONNX Runtime gives for them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.tvm_ext.small_models import Model
from tests.tvm_ext.test_import import outputs_of
from tests.tvm_ext.test_package import compiled_from
from tvm_ext.driver import PackageRunner
from tvm_ext.onnx_empty import without_empty


def of_no_rows() -> onnx.ModelProto:
    b = Model("of_no_rows")
    return b.build(b.op("Relu", b.input(0, 3)))


def some_empty() -> onnx.ModelProto:
    """Three outputs: without elements, a number of which nothing is computed, and computed."""
    b = Model("some_empty")
    nothing, some = b.input(0, 4), b.input(2, 4)
    joined = b.op("Concat", nothing, some, nothing, axis=0)
    total = b.op("ReduceSum", nothing, keepdims=0)
    return b.build(b.op("Abs", nothing), total, b.op("Abs", joined))


def over_no_columns() -> onnx.ModelProto:
    b = Model("over_no_columns")
    return b.build(b.op("MatMul", b.input(2, 0), b.input(0, 3)))


def empty_slice() -> onnx.ModelProto:
    b = Model("empty_slice")
    x = b.input(3, 4)
    part = b.op("Slice", x, b.constant([1], "int64"), b.constant([1], "int64"))
    return b.build(b.op("Concat", part, b.op("Abs", x), axis=0), part)


def no_images() -> onnx.ModelProto:
    b = Model("no_images")
    return b.build(b.op("Conv", b.input(0, 3, 8, 8), b.random(4, 3, 3, 3)))


BUILDERS = (of_no_rows, some_empty, over_no_columns, empty_slice, no_images)


def feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("builder", BUILDERS)
def test_outputs(builder, tmp_path):
    model = builder()
    inputs = feeds(model)
    with PackageRunner(compiled_from(model, tmp_path).package) as runner:
        got = runner.run(inputs)
    expected = outputs_of(model, inputs)
    assert got.keys() == expected.keys()
    for name, wanted in expected.items():
        assert (got[name].shape, got[name].dtype) == (wanted.shape, wanted.dtype)
        assert (got[name] == wanted).all()


@pytest.mark.parametrize("builder", BUILDERS)
def test_nothing_empty_is_left(builder):
    graph = without_empty(builder()).graph
    inferred = onnx.shape_inference.infer_shapes(onnx.helper.make_model(graph)).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        assert all(dim.dim_value for dim in value.type.tensor_type.shape.dim), value.name


def test_a_model_without_any_is_the_same_one():
    b = Model("whole")
    model = b.build(b.op("Resize", b.input(1, 1, 4, 4), b.constant([]), b.constant([1, 1, 2, 2]), mode="nearest"))
    assert without_empty(model) is model
