"""Quantise, element-wise and unary numerics against ONNX Runtime's default session, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from npu_backend.ops import numerics_core as core
from npu_backend.ops import numerics_eltwise as eltwise
from npu_backend.ops import numerics_unary as unary
from tests.ops.onnx_reference import (
    Attributes,
    F,
    Graph,
    draw_code,
    draw_scale,
    draw_values,
    draw_zero_point,
    dtypes,
    near,
    reference,
    seeds,
)

# Thousands of random trials; tests/ops/test_onnx.py holds every operator to ONNX Runtime in the fast tests.
pytestmark = pytest.mark.slow

# quantise and requantise


@given(seeds, dtypes)
def test_quantize(rng: np.random.Generator, dtype: np.dtype) -> None:
    code = draw_code(rng, dtype)
    half_steps = rng.integers(-300, 300, 500).astype(F) * F(0.5) * code[0]
    x = np.concatenate([half_steps, rng.normal(0, 100 * code[0], 500).astype(F)])
    graph = Graph()
    expected = graph.run(graph.quantize(graph.input(x), code, dtype), dtype)
    np.testing.assert_array_equal(core.quantize(x, *code, dtype), expected)


@given(seeds, dtypes)
def test_dequantize(rng: np.random.Generator, dtype: np.dtype) -> None:
    code = draw_code(rng, dtype)
    x = core.byte_values(dtype)
    graph = Graph()
    np.testing.assert_array_equal(core.dequantize(x, *code), graph.run(graph.quantized_input(x, code), F))


@given(seeds, dtypes)
def test_requantize_every_value(rng: np.random.Generator, dtype: np.dtype) -> None:
    x, y = draw_code(rng, dtype), draw_code(rng, dtype)
    values = core.byte_values(dtype)
    graph = Graph()
    expected = graph.run(graph.quantize(graph.quantized_input(values, x), y, dtype), dtype)
    np.testing.assert_array_equal(core.requantize(values, *x, *y), expected)


@given(seeds, dtypes)
def test_requantize_to_the_same_code_changes_nothing(rng: np.random.Generator, dtype: np.dtype) -> None:
    code = draw_code(rng, dtype)
    values = core.byte_values(dtype)
    np.testing.assert_array_equal(core.requantize(values, *code, *code), values)


def test_fma_rounds_once() -> None:
    a = F(1 + 2**-12)
    assert core.fma(a, a, F(-1)) == F(2**-11 + 2**-24)
    # The product is the middle of two float32: a sum rounded to float64 first would lose which side the addend is on.
    assert core.fma(a, a, F(2**-80)) == F(1 + 2**-11 + 2**-23)
    assert core.fma(a, a, F(-(2**-80))) == F(1 + 2**-11)
    assert core.fma(F(2**40), F(2**-64), F(1)) == F(1)


@given(seeds)
def test_int8_pairs_run_as_uint8(rng: np.random.Generator) -> None:
    """An int8 QuantizeLinear -> DequantizeLinear pair becomes uint8 with the zero point plus 128."""
    int8 = np.dtype(np.int8)
    codes = [draw_code(rng, int8) for _ in range(3)]
    values = [draw_values(rng, (500,), int8) for _ in range(2)]
    graph = Graph()
    names = []
    for value, code in zip(values, codes[:2], strict=True):
        pair = graph.quantize(graph.input(core.dequantize(value, *code)), code, int8)
        names.append(graph.dequantize(pair, *code, int8))
    quantized = graph.quantize(graph.op("Add", *names), codes[2], int8)
    expected = graph.run(graph.dequantize(quantized, *codes[2], int8), F)
    (a, b, y) = [(scale, core.unsigned_zero_point(zero_point, int8)) for scale, zero_point in codes]
    sums = eltwise.add(core.to_unsigned(values[0]), *a, core.to_unsigned(values[1]), *b, *y, np.uint8)
    np.testing.assert_array_equal(core.dequantize(sums, *y), expected)


# elementwise


@pytest.mark.parametrize(("kind", "function"), [("Add", eltwise.add), ("Mul", eltwise.multiply)])
@settings(max_examples=200)
@given(rng=seeds, dtype=dtypes)
def test_add_and_multiply(rng: np.random.Generator, dtype: np.dtype, kind: str, function: Callable[..., Any]) -> None:
    a, b, y = (draw_code(rng, dtype) for _ in range(3))
    size = int(rng.integers(1, 5000))
    left, right = (draw_values(rng, (size,), dtype) for _ in range(2))
    expected = reference(kind, [(left, a), (right, b)], y)
    np.testing.assert_array_equal(function(left, *a, right, *b, *y, dtype), expected)


@pytest.mark.parametrize(("kind", "function"), [("Add", eltwise.add), ("Mul", eltwise.multiply)])
def test_every_pair_of_values(kind: str, function: Callable[..., Any]) -> None:
    """65,536 pairs under codes chosen so that one rounding more or less shows."""
    dtype = np.dtype(np.uint8)
    left, right = np.repeat(core.byte_values(dtype), 256), np.tile(core.byte_values(dtype), 256)
    rng = np.random.default_rng(3)
    for _ in range(40):
        a, b, y = (draw_code(rng, dtype) for _ in range(3))
        expected = reference(kind, [(left, a), (right, b)], y)
        np.testing.assert_array_equal(function(left, *a, right, *b, *y, dtype), expected)


@given(seeds, dtypes)
def test_concat(rng: np.random.Generator, dtype: np.dtype) -> None:
    codes = [draw_code(rng, dtype) for _ in range(3)]
    y = codes[0] if rng.integers(2) else draw_code(rng, dtype)
    parts = [draw_values(rng, (2, int(rng.integers(1, 90))), dtype) for _ in codes]
    expected = reference("Concat", list(zip(parts, codes, strict=True)), y, axis=1)
    scales, zero_points = [code[0] for code in codes], [code[1] for code in codes]
    np.testing.assert_array_equal(eltwise.concat(parts, scales, zero_points, *y, 1), expected)


@given(seeds, dtypes)
def test_pad(rng: np.random.Generator, dtype: np.dtype) -> None:
    x = draw_code(rng, dtype)
    y = x if rng.integers(2) else draw_code(rng, dtype)
    value = float(F(rng.choice([0, rng.normal()])))
    values = draw_values(rng, (3, 20), dtype)
    expected = reference("Pad", [(values, x)], y, [np.array([1, 2, 3, 0]), F(value)])
    np.testing.assert_array_equal(eltwise.pad(values, [(1, 3), (2, 0)], *x, *y, value), expected)


MOVEMENTS: list[tuple[str, list[np.ndarray], Attributes, Callable[[np.ndarray], np.ndarray]]] = [
    ("Transpose", [], {"perm": [1, 0]}, np.transpose),
    ("Reshape", [np.array([-1, 3])], {}, lambda x: x.reshape(-1, 3)),
    ("Slice", [np.array([1]), np.array([4]), np.array([1])], {}, lambda x: x[:, 1:4]),
]


@pytest.mark.parametrize(("kind", "constants", "attributes", "move"), MOVEMENTS)
@given(rng=seeds, dtype=dtypes)
def test_movement_requantizes(
    rng: np.random.Generator,
    dtype: np.dtype,
    kind: str,
    constants: list[np.ndarray],
    attributes: Attributes,
    move: Callable[[np.ndarray], np.ndarray],
) -> None:
    x, values = draw_code(rng, dtype), draw_values(rng, (5, 6), dtype)
    y = x if rng.integers(2) else draw_code(rng, dtype)
    axes = [np.array([1])] if kind == "Slice" else []
    operands = [*constants[:2], *axes] if kind == "Slice" else constants
    expected = reference(kind, [(values, x)], y, operands, **attributes)
    np.testing.assert_array_equal(core.requantize(move(values), *x, *y), expected)


# unary functions

UNARY: list[tuple[str, str, dict[str, float], Attributes]] = [
    ("Relu", "relu", {}, {}),
    ("Clip", "clip", {"low": -1.0, "high": 1.5}, {}),
    ("LeakyRelu", "leaky_relu", {"alpha": 0.1}, {"alpha": 0.1}),
    ("Sigmoid", "sigmoid", {}, {}),
    ("Tanh", "tanh", {}, {}),
    ("HardSigmoid", "hard_sigmoid", {}, {}),
    ("HardSigmoid", "hard_sigmoid", {"alpha": 1 / 6, "beta": 0.5}, {"alpha": 1 / 6, "beta": 0.5}),
    ("HardSwish", "hard_swish", {}, {}),
    ("Identity", "identity", {}, {}),
    ("Elu", "elu", {"alpha": 0.7}, {"alpha": 0.7}),
    ("Celu", "celu", {"alpha": 1.3}, {"alpha": 1.3}),
    ("Selu", "selu", {}, {}),
    ("ThresholdedRelu", "thresholded_relu", {"alpha": 0.4}, {"alpha": 0.4}),
    ("Gelu", "gelu", {}, {}),
    ("Gelu", "gelu_tanh", {}, {"approximate": "tanh"}),
    ("Pow", "power", {"exponent": 2.0}, {}),
    ("Pow", "power", {"exponent": 3.0}, {}),
    ("Pow", "power", {"exponent": 0.5}, {}),
    ("Pow", "power", {"exponent": -1.5}, {}),
    *((kind, kind.lower(), {}, {}) for kind in (
        "Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Log", "Mish", "Reciprocal", "Round", "Sign", "Sin", "Softplus",
        "Softsign", "Sqrt")),
    ("Neg", "negative", {}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "function", "parameters", "attributes"), UNARY)
@given(rng=seeds, dtype=dtypes)
def test_unary_table_every_value(
    rng: np.random.Generator,
    dtype: np.dtype,
    kind: str,
    function: str,
    parameters: dict[str, float],
    attributes: Attributes,
) -> None:
    x = draw_scale(rng, -8, 0), draw_zero_point(rng, dtype)
    bounded = "Sigmoid" in kind or kind == "Tanh"
    y_scale = rng.choice([F(1 / 256), F(1 / 128), draw_scale(rng, -9, -6)]) if bounded else near(rng, x, dtype)[0]
    y = F(y_scale), draw_zero_point(rng, dtype)
    constants = [F(value) for value in parameters.values()] if kind in ("Clip", "Pow") else []
    values = core.byte_values(dtype)
    expected = reference(kind, [(values, x)], y, constants, opset={"Mish": 18, "Gelu": 20}.get(kind, 17), **attributes)
    actual = unary.unary_table(function, *x, *y, dtype, **parameters)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(core.apply_table(values, actual), expected)
