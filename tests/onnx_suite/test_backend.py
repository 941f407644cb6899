"""ONNX's backend interface: models, single nodes, symbolic extents, where operators ran, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from npu_backend.errors import InputError, OptionError, UnsupportedError
from tvm_ext.backend import HOST, NpuBackend
from tvm_ext.package import ENGINE

OPSET = 17


def model_of(node: onnx.NodeProto, inputs: list, outputs: list) -> onnx.ModelProto:
    graph = helper.make_graph([node], "small", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def tensor(name: str, shape: list, data_type: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, data_type, shape)


def sum_of(shape: list) -> onnx.ModelProto:
    return model_of(helper.make_node("Add", ["x", "y"], ["z"]), [tensor("x", shape), tensor("y", shape)],
                    [tensor("z", shape)])  # fmt: skip


def test_inputs_in_order_or_by_name() -> None:
    x, y = np.float32([[1, 2]]), np.float32([[3, 5]])
    rep = NpuBackend.prepare(sum_of([1, 2]))
    np.testing.assert_array_equal(rep.run([x, y]).z, x + y)
    np.testing.assert_array_equal(rep.run({"y": y, "x": x})[0], x + y)


def test_symbolic_extents_are_taken_from_the_inputs() -> None:
    rep = NpuBackend.prepare(sum_of(["n"]))
    with pytest.raises(InputError, match="no package is made before"):
        rep.places()
    for extent in (2, 3):
        x = np.arange(extent, dtype=np.float32)
        np.testing.assert_array_equal(rep.run([x, x])[0], x + x)


def test_one_node() -> None:
    x = np.float32([[-1, 2]])
    outputs = NpuBackend.run_node(helper.make_node("Relu", ["x"], ["y"]), [x], opset_version=OPSET)
    np.testing.assert_array_equal(outputs[0], [[0, 2]])


def test_codes_run_on_the_engines() -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], name="pool", kernel_shape=[2, 2])
    model = model_of(
        node, [tensor("x", [1, 1, 4, 4], TensorProto.UINT8)], [tensor("y", [1, 1, 3, 3], TensorProto.UINT8)]
    )
    rep = NpuBackend.prepare(model, machine="exynos2100", cores=2, strategy="base")
    assert rep.places() == {"pool": ENGINE}
    assert (rep.metadata().machine, rep.metadata().cores, rep.metadata().strategy) == ("exynos2100", 2, "base")
    x = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(rep.run([x])[0], x[:, :, 1:, 1:])


def test_what_is_neither_engine_nor_vector_is_host() -> None:
    assert set(NpuBackend.prepare(sum_of([1, 2])).places().values()) <= {"vector", HOST}


def test_mistakes_are_told() -> None:
    with pytest.raises(OptionError, match="strategy"):
        NpuBackend.prepare(sum_of([1]), strategy="none such")
    with pytest.raises(InputError, match=r"2 inputs \(x, y\) and was given 1"):
        NpuBackend.prepare(sum_of([1])).run([np.zeros(1, np.float32)])
    strings = model_of(helper.make_node("Identity", ["x"], ["y"]), [tensor("x", [1], TensorProto.STRING)],
                       [tensor("y", [1], TensorProto.STRING)])  # fmt: skip
    with pytest.raises(UnsupportedError, match="holds string, which nothing"):
        NpuBackend.prepare(strings)
    assert not NpuBackend.is_compatible(strings)


def test_devices() -> None:
    assert NpuBackend.supports_device("CPU")
    assert not NpuBackend.supports_device("CUDA")


def test_extents_known_only_at_run_time_leave_the_model_to_the_host() -> None:
    model = model_of(
        helper.make_node("NonZero", ["x"], ["y"]), [tensor("x", [4])], [tensor("y", [1, "n"], TensorProto.INT64)]
    )
    rep = NpuBackend.prepare(model)
    assert set(rep.places().values()) == {HOST}
    assert rep.metadata().outputs[0].shape == (-1, -1)
    np.testing.assert_array_equal(rep.run([np.float32([0, 3, 0, 5])])[0], [[1, 3]])


def test_a_sequence_is_a_list() -> None:
    graph = helper.make_graph(
        [helper.make_node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=0)], "parts", [tensor("x", [2, 3])],
        [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(NpuBackend.run_model(model, [x])[0], list(x))


def test_an_integer_has_no_infinite_bound() -> None:
    model = model_of(helper.make_node("Clip", ["x", "", "high"], ["y"]),
                     [tensor("x", [3], TensorProto.INT8), tensor("high", [], TensorProto.INT8)],
                     [tensor("y", [3], TensorProto.INT8)])  # fmt: skip
    np.testing.assert_array_equal(NpuBackend.run_model(model, [np.int8([-5, 3, 9]), np.int8(4)])[0], [-5, 3, 4])


@pytest.mark.parametrize("data_type", [TensorProto.FLOAT8E4M3FN, TensorProto.INT4])
def test_narrow_types_are_refused_rather_than_wrong(data_type: int) -> None:
    model = model_of(helper.make_node("Cast", ["x"], ["y"], to=data_type), [tensor("x", [2])],
                     [tensor("y", [2], data_type)])  # fmt: skip
    with pytest.raises(UnsupportedError, match="which nothing here computes"):
        NpuBackend.prepare(model)


def test_parameters_among_the_inputs_are_compiled_in() -> None:
    model = model_of(helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0),
                     [tensor("x", [2, 3]), tensor("axes", [1], TensorProto.INT64)], [tensor("y", ["n"])])  # fmt: skip
    rep = NpuBackend.prepare(model)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for axis in (0, 1, 0):
        np.testing.assert_array_equal(rep.run([x, np.int64([axis])])[0], x.sum(axis))


def test_what_reads_nothing_stays_on_the_host() -> None:
    model = model_of(helper.make_node("EyeLike", ["x"], ["y"]), [tensor("x", [2, 2])], [tensor("y", [2, 2])])
    np.testing.assert_array_equal(NpuBackend.run_model(model, [np.zeros((2, 2), np.float32)])[0], np.eye(2))


def test_a_ratio_among_the_inputs_may_be_nothing() -> None:
    node = helper.make_node("Dropout", ["x", "ratio", "trains"], ["y"])
    model = model_of(
        node, [tensor("x", [2]), tensor("ratio", []), tensor("trains", [], TensorProto.BOOL)], [tensor("y", [2])]
    )
    rep = NpuBackend.prepare(model)
    x = np.float32([1, 2])
    np.testing.assert_array_equal(rep.run([x, np.float32(0), np.array(True)])[0], x)
    with pytest.raises(UnsupportedError, match="drops at random"):
        rep.run([x, np.float32(0.5), np.array(True)])


def test_a_node_needs_no_opset() -> None:
    """The newest that the front end knows, where the installed onnx knows newer ones."""
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    (y,) = NpuBackend.run_node(onnx.helper.make_node("Celu", ["x"], ["y"], alpha=2.0), [x])
    np.testing.assert_allclose(y, np.maximum(0, x) + np.minimum(0, 2 * (np.exp(x / 2) - 1)), rtol=1e-5, atol=1e-6)
