"""Convolution and fully connected numerics against ONNX Runtime's default session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from npu_backend.ops import numerics_conv as convolution
from npu_backend.ops import numerics_core as core
from tests.ops.onnx_reference import (
    DTYPES,
    F,
    Graph,
    assert_within_one_step,
    draw_code,
    draw_values,
    draw_zero_point,
    seeds,
    to_nchw,
    to_nhwc,
)

# Thousands of random trials; tests/ops/test_onnx.py holds every operator to ONNX Runtime in the fast tests.
pytestmark = pytest.mark.slow


class Layer:
    """Random weights, bias and scales of a convolution; weight [o,kh,kw,c/groups]."""

    def __init__(self, rng: np.random.Generator, weight_shape: Sequence[int], x_dtype: np.dtype, per_channel: bool):
        channels = weight_shape[0]
        self.weight = rng.integers(-128, 128, weight_shape).astype(np.int8)
        self.bias = rng.integers(-5000, 5000, channels).astype(np.int32)
        self.x = draw_code(rng, x_dtype)
        scales = F(2.0) ** rng.uniform(-9, -5, channels).astype(F)
        self.weight_scale = scales if per_channel else scales[0]
        spread = np.sqrt(np.prod(weight_shape[1:])) * 2 ** rng.uniform(4, 8)
        self.y = F(self.x[0] * np.max(self.weight_scale) * spread), draw_zero_point(rng, x_dtype)

    def operands(self, graph: Graph, x: np.ndarray, weight: np.ndarray, axis: int) -> list[str]:
        zeros = np.zeros(np.shape(self.weight_scale), np.int8)
        bias_scale = self.x[0] * self.weight_scale
        along = {"axis": axis} if zeros.ndim else {}
        bias_along = {"axis": 0} if zeros.ndim else {}
        return [
            graph.quantized_input(x, self.x),
            graph.dequantize(graph.constant(weight), self.weight_scale, zeros, np.int8, **along),
            graph.dequantize(graph.constant(self.bias), bias_scale, zeros, np.int32, **bias_along),
        ]


def conv(layer: Layer, x: np.ndarray, dtype: Any, bounds: tuple[int, int] | None = None, **geometry: Any) -> np.ndarray:
    """As QLinearConv."""
    sums = convolution.conv_sums(x, layer.x[1], layer.weight, bias=layer.bias, **geometry)
    y = requantized(layer, sums, dtype)
    return y if bounds is None else np.clip(y, *bounds).astype(dtype)


def requantized(layer: Layer, sums: np.ndarray, dtype: Any) -> np.ndarray:
    multipliers = convolution.output_multipliers(layer.x[0], layer.weight_scale, layer.y[0])
    return convolution.requantize_sums(sums, multipliers, layer.y[1], dtype)


def run_conv(
    layer: Layer, x: np.ndarray, activation: tuple[float, float] | None = None, **attributes: Any
) -> np.ndarray:
    graph = Graph()
    y = graph.op("Conv", *layer.operands(graph, to_nchw(x), to_nchw(layer.weight), 0), **attributes)
    if activation == (0, np.inf):
        y = graph.op("Relu", y)
    elif activation is not None:
        y = graph.op("Clip", y, *(graph.constant(bound, F) for bound in activation))
    return to_nhwc(graph.run(graph.quantize(y, layer.y, x.dtype), x.dtype))


@pytest.mark.parametrize("depthwise", [False, True])
@given(rng=seeds)
def test_conv(rng: np.random.Generator, depthwise: bool) -> None:
    dtype = np.dtype(np.uint8)
    groups = int(rng.integers(2, 40)) if depthwise else int(rng.choice([1, 1, 2, 4]))
    group_in, group_out = (1, int(rng.integers(1, 3))) if depthwise else (int(v) for v in rng.integers(1, 48, 2))
    kernel = rng.integers(1, 4, 2)
    layer = Layer(rng, (groups * group_out, *kernel, group_in), dtype, bool(rng.integers(2)))
    strides, dilations = (tuple(int(v) for v in rng.integers(1, 3, 2)) for _ in range(2))
    pads = tuple(int(v) for v in rng.integers(0, 3, 4))
    x = draw_values(rng, (1, *rng.integers(6, 12, 2), groups * group_in), dtype)
    actual = conv(layer, x, dtype, strides=strides, pads=pads, dilations=dilations, groups=groups)
    expected = run_conv(layer, x, strides=strides, pads=pads, dilations=dilations, group=groups)
    np.testing.assert_array_equal(actual, expected)


@given(seeds)
def test_conv_with_uint8_weights(rng: np.random.Generator) -> None:
    dtype = np.dtype(np.uint8)
    layer = Layer(rng, (12, 3, 3, 20), dtype, False)
    weight, weight_zero_point = draw_values(rng, layer.weight.shape, dtype), draw_zero_point(rng, dtype)
    x = draw_values(rng, (1, 8, 8, 20), dtype)
    graph = Graph()
    operands = [
        graph.quantized_input(to_nchw(x), layer.x),
        graph.dequantize(graph.constant(to_nchw(weight)), layer.weight_scale, weight_zero_point, dtype),
    ]
    expected = to_nhwc(graph.run(graph.quantize(graph.op("Conv", *operands), layer.y, dtype), dtype))
    sums = convolution.conv_sums(x, layer.x[1], weight, weight_zero_point)
    actual = requantized(layer, sums, dtype)
    np.testing.assert_array_equal(actual, expected)


def test_conv_with_sums_beyond_float32() -> None:
    rng = np.random.default_rng(0)
    layer = Layer(rng, (64, 3, 3, 512), np.dtype(np.uint8), True)
    layer.weight = np.abs(layer.weight.astype(int)).clip(100, 127).astype(np.int8)
    layer.x, layer.y = (layer.x[0], 0), (F(layer.x[0] * np.max(layer.weight_scale) * 2.4e5), 3)
    x = rng.integers(200, 256, (1, 6, 6, 512)).astype(np.uint8)
    sums = convolution.conv_sums(x, 0, layer.weight)
    assert sums.max() > 2**24
    actual = conv(layer, x, np.uint8)
    np.testing.assert_array_equal(actual, run_conv(layer, x))


@given(seeds)
def test_conv_with_relu_at_the_minimum_is_exact(rng: np.random.Generator) -> None:
    layer = Layer(rng, (16, 3, 3, 24), np.dtype(np.uint8), True)
    layer.y = layer.y[0], 0
    x = draw_values(rng, (1, 9, 9, 24), np.dtype(np.uint8))
    actual = conv(layer, x, np.uint8)
    np.testing.assert_array_equal(actual, run_conv(layer, x, (0, np.inf)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [(0.0, np.inf), (0.0, 6.0), (-1.0, 2.0)])
def test_conv_with_clipping_activation_is_within_one_step(dtype: np.dtype, activation: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        layer = Layer(rng, (24, 3, 3, 24), dtype, True)
        layer.y = F(12 / 255), core.integer_range(dtype)[0] + 60
        layer.x = F(layer.y[0] / np.max(layer.weight_scale) / 1000), layer.x[1]
        x = draw_values(rng, (1, 12, 12, 24), dtype)
        bounds = convolution.activation_bounds(*activation, *layer.y, dtype)
        actual = conv(layer, x, dtype, bounds=bounds)
        assert_within_one_step(actual, run_conv(layer, x, activation), 1e-3)


@pytest.mark.parametrize("groups", [1, 2])
def test_conv_transpose_is_within_one_step(groups: int) -> None:
    rng = np.random.default_rng(2)
    dtype = np.dtype(np.uint8)
    for _ in range(15):
        channels, outputs = int(rng.integers(1, 30)), int(rng.integers(1, 20))
        kernel = tuple(int(v) for v in rng.integers(1, 5, 2))
        strides = tuple(int(v) for v in rng.integers(1, 4, 2))
        pads = tuple(int(v) for v in rng.integers(0, min(kernel), 4))
        extra = tuple(int(rng.integers(0, stride)) for stride in strides)
        dilation = int(rng.integers(1, 3))
        layer = Layer(rng, (groups * outputs, *kernel, channels), dtype, groups == 1)
        x = draw_values(rng, (1, *rng.integers(3, 10, 2), groups * channels), dtype)
        in_major = np.concatenate([part.transpose(3, 0, 1, 2) for part in np.split(layer.weight, groups)])
        graph = Graph()
        operands = layer.operands(graph, to_nchw(x), in_major, 1)
        attributes = {"strides": strides, "pads": pads, "dilations": (dilation, dilation), "group": groups}
        y = graph.op("ConvTranspose", *operands, output_padding=extra, **attributes)
        expected = to_nhwc(graph.run(graph.quantize(y, layer.y, dtype), dtype))
        sums = convolution.conv_transpose_sums(
            x, layer.x[1], layer.weight, layer.bias, strides, pads, extra, (dilation, dilation), groups
        )
        assert_within_one_step(requantized(layer, sums, dtype), expected, 2e-3)


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
@given(rng=seeds)
def test_matmul(rng: np.random.Generator, kind: str) -> None:
    dtype = np.dtype(np.uint8)
    rows, depth, columns = (int(v) for v in rng.integers(1, (6, 300, 70)))
    layer = Layer(rng, (columns, depth), dtype, bool(rng.integers(2)))
    x, weight = draw_values(rng, (rows, depth), dtype), np.ascontiguousarray(layer.weight.T)
    graph = Graph()
    operands = layer.operands(graph, x, weight, 1)
    product = graph.op(kind, *(operands if kind == "Gemm" else operands[:2]))
    expected = graph.run(graph.quantize(product, layer.y, dtype), dtype)
    bias = layer.bias if kind == "Gemm" else None
    actual = requantized(layer, convolution.matmul_sums(x, layer.x[1], weight, bias=bias), dtype)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
@given(rng=seeds)
def test_matmul_to_float(rng: np.random.Generator, kind: str) -> None:
    dtype = np.dtype(np.uint8)
    layer = Layer(rng, (20, 50), dtype, bool(rng.integers(2)))
    x, weight = draw_values(rng, (3, 50), dtype), np.ascontiguousarray(layer.weight.T)
    graph = Graph()
    operands = layer.operands(graph, x, weight, 1)
    expected = graph.run(graph.op(kind, *(operands if kind == "Gemm" else operands[:2])), F)
    sums = convolution.matmul_sums(x, layer.x[1], weight, 0, layer.bias if kind == "Gemm" else None)
    multipliers = convolution.output_multipliers(layer.x[0], layer.weight_scale, F(1))
    np.testing.assert_array_equal(convolution.dequantize_sums(sums, multipliers, F), expected)
