"""Fused, contributed and rare operators, and unusual codes, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from npu_backend.errors import ModelError
from tests.tvm_ext.by_runtime import assert_close, by_onnx_runtime
from tests.tvm_ext.on_host import calls, on_host
from tests.tvm_ext.one_node import feed_of, normal, one_node
from tvm_ext.onnx_cleanup import clean
from tvm_ext.onnx_graph import MICROSOFT
from tvm_ext.onnx_origin import origins

IMAGE, KERNEL, BIAS = normal(1, 4, 7, 5), normal(6, 4, 3, 3), normal(6)
ROWS, MATRIX = normal(3, 8), normal(8, 5)
SENTENCE = normal(2, 3, 8)
IDS = np.array([[1, 0, 4], [3, 3, 2]], np.int32)
BYTES = (np.arange(24) * 37 % 251).astype(np.uint8).reshape(3, 8)
WEIGHTS = (np.arange(40) * 29 % 251 - 125).astype(np.int8).reshape(8, 5)
LAYER_NORM = "relax.nn.layer_norm"


def scalar(value: Any, dtype: Any = np.float32) -> np.ndarray:
    return np.array(value, dtype)


CONTRIBUTED: list[tuple[str, list[Any], tuple[int, ...], dict[str, Any], list[str]]] = [
    ("FusedConv", [IMAGE, KERNEL, BIAS], (1, 2), {"activation": "Relu"}, ["Conv", "relax.nn.relu"]),
    ("FusedConv", [IMAGE, KERNEL, BIAS, normal(1, 6, 5, 3)], (1, 2),
     {"activation": "Clip", "activation_params": [-1.0, 2.0]},
     ["Conv", "relax.add", "relax.clip"]),
    ("FusedConv", [IMAGE, KERNEL], (1,), {"activation": "LeakyRelu", "activation_params": [0.3], "strides": [2, 1]},
     ["relax.nn.conv2d", "relax.nn.leakyrelu"]),
    ("FusedGemm", [ROWS, MATRIX, normal(5)], (1, 2), {"activation": "Tanh"}, ["Gemm", "relax.tanh"]),
    ("FusedMatMul", [SENTENCE, normal(2, 4, 8)], (), {"transB": 1, "alpha": 0.25},
     ["relax.permute_dims", "relax.matmul", "relax.multiply"]),
    ("Gelu", [ROWS], (), {}, ["relax.nn.gelu"]),
    ("FastGelu", [ROWS], (), {}, ["relax.nn.gelu_tanh"]),
    ("FastGelu", [ROWS, normal(8)], (1,), {}, ["relax.add", "relax.nn.gelu_tanh"]),
    ("BiasGelu", [ROWS, normal(8)], (1,), {}, ["relax.add", "relax.nn.gelu"]),
    ("QuickGelu", [ROWS], (), {"alpha": 1.5}, ["relax.multiply", "relax.sigmoid", "relax.multiply"]),
    ("SkipLayerNormalization", [SENTENCE, SENTENCE + 1, normal(8), normal(8) + 1, normal(8) - 1], (2, 3, 4),
     {"epsilon": 1e-5},
     ["relax.add", "relax.add", LAYER_NORM]),
    ("SkipLayerNormalization", [SENTENCE, SENTENCE + 1, normal(8)], (2,), {"epsilon": 1e-5}, ["relax.add", LAYER_NORM]),
    ("SkipSimplifiedLayerNormalization", [SENTENCE, SENTENCE + 1, normal(8)], (2,), {"epsilon": 1e-5},
     ["relax.add", "relax.nn.rms_norm"]),
    ("EmbedLayerNormalization", [IDS, IDS % 2, normal(5, 8), normal(4, 8), normal(2, 8), normal(8), normal(8) + 1],
     (2, 3, 4, 5, 6), {"epsilon": 1e-5, "outputs": 2}, ["Gather", "relax.add", "Gather", "relax.add", LAYER_NORM]),
    ("MatMulIntegerToFloat", [BYTES, WEIGHTS, scalar(0.5), scalar(0.25), scalar(120, np.uint8), None,
                              normal(5)],
     (1, 2, 3, 4, 6), {}, ["MatMulInteger", "relax.astype", "relax.multiply", "relax.add"]),
    ("QuantizeLinear", [ROWS, scalar(0.01), scalar(3, np.int16)], (1, 2), {}, ["relax.quantize"]),
]  # fmt: skip
STANDARD: list[tuple[str, list[Any], dict[str, Any], list[str]]] = [
    ("LpNormalization", [np.vstack([ROWS, np.zeros((1, 8), np.float32)])], {"opset": 13},
     ["ReduceL2", "relax.maximum", "relax.divide"]),
    ("LpNormalization", [ROWS], {"p": 1, "axis": 0, "opset": 22}, ["ReduceL1", "relax.maximum", "relax.divide"]),
]  # fmt: skip


@pytest.mark.parametrize(("op", "operands", "constants", "attributes", "expected"), CONTRIBUTED)
def test_contributed(op: str, operands: list[Any], constants: tuple[int, ...], attributes: dict[str, Any],
                     expected: list[str]) -> None:  # fmt: skip
    model = one_node(op, operands, constants, domain=MICROSOFT, **attributes)
    del model.graph.output[1:]
    if op == "QuantizeLinear":
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT16
    assert calls(model) == expected
    assert {origin for node in clean(model).graph.node for origin in origins(node)} == {("node", op)}
    feed = feed_of(model, operands)
    assert_close(on_host(model, feed), by_onnx_runtime(model, feed))


@pytest.mark.parametrize(("op", "operands", "attributes", "expected"), STANDARD)
def test_standard(op: str, operands: list[Any], attributes: dict[str, Any], expected: list[str]) -> None:
    model = one_node(op, operands, **attributes)
    assert calls(model) == expected
    feed = feed_of(model, operands)
    assert_close(on_host(model, feed), by_onnx_runtime(model, feed))


def test_swish() -> None:
    model = one_node("Swish", [ROWS], opset=24)
    (result,) = on_host(model, {"x0": ROWS})
    np.testing.assert_allclose(result, ROWS / (1 + np.exp(-ROWS)), rtol=1e-5, atol=1e-6)


def test_sum_of_a_skip_is_an_output() -> None:
    model = one_node("SkipLayerNormalization", [SENTENCE, SENTENCE + 1, normal(8)], (2,), domain=MICROSOFT)
    model.graph.node[0].output.extend(["", "", "sum"])
    model.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))
    feed = {"x0": SENTENCE, "x1": SENTENCE + 1}
    assert_close(on_host(model, feed), by_onnx_runtime(model, feed))


def test_unknown_activation() -> None:
    model = one_node("FusedConv", [IMAGE, KERNEL], (1,), domain=MICROSOFT, activation="Wave")
    with pytest.raises(ModelError, match="FusedConv 'node': its activation 'Wave' is unknown"):
        clean(model)


def four_bits(codes: TensorProto.DataType, scale: np.ndarray, **attributes: int) -> onnx.ModelProto:
    """A MatMul with weights of four bits."""
    signed = codes == TensorProto.INT4
    numbers = np.arange(40).reshape(8, 5) % 16 - (8 if signed else 0)
    zeros = np.full(scale.shape, 0 if signed else 7)
    packed = [helper.make_tensor(name, codes, values.shape, values.flatten().tolist())
              for name, values in (("w", numbers), ("z", zeros))]  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], name="weight", **attributes),
        helper.make_node("MatMul", ["x", "d"], ["y"], name="product"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", (3, 8)), ("y", (3, 5)))]
    graph = helper.make_graph(nodes, "four", values[:1], values[1:], [*packed, numpy_helper.from_array(scale, "s")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("codes", [TensorProto.INT4, TensorProto.UINT4])
@pytest.mark.parametrize(
    ("scale", "attributes"),
    [
        (scalar(0.1), {}),
        (np.abs(normal(5)), {"axis": 1}),
        (np.abs(normal(2, 5)), {"axis": 0, "block_size": 4}),
        (np.abs(normal(3, 5)), {"axis": 0, "block_size": 3}),
    ],
)
def test_four_bits(codes: TensorProto.DataType, scale: np.ndarray, attributes: dict[str, int]) -> None:
    model = four_bits(codes, scale, **attributes)
    types = {tensor.data_type for tensor in clean(model).graph.initializer}
    assert types <= {TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8}
    # Optimised, ONNX Runtime multiplies such weights by activations that it rounds to eight bits.
    expected = by_onnx_runtime(model, {"x": ROWS}, optimised=False)
    assert_close(by_onnx_runtime(clean(model), {"x": ROWS}, optimised=False), expected)
    assert_close(on_host(model, {"x": ROWS}), expected)


def test_quantised_choice() -> None:
    condition, codes = BYTES % 3 == 0, [BYTES, BYTES[::-1].copy()]
    numbers = ((0.1, 120), (0.2, 130), (0.15, 110))
    first, second, result = ([scalar(scale), scalar(zero, np.uint8)] for scale, zero in numbers)
    operands = [condition, codes[0], *first, codes[1], *second, *result]
    model = one_node("QLinearWhere", operands, (2, 3, 5, 6, 7, 8), domain=MICROSOFT)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    assert calls(model) == ["relax.dequantize", "relax.dequantize", "relax.where", "relax.quantize"]
    feed = feed_of(model, operands)
    assert_close(on_host(model, feed), by_onnx_runtime(model, feed), 0)
