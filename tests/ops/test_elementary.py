"""Functions of float16 values against float64's: every half, powers of every kind, plain integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npu_backend.ops import numerics_unary as unary
from npu_backend.ops.numerics_binary import in_float, in_integers
from npu_backend.ops.numerics_core import to_half

Reals = np.ndarray[Any, np.dtype[np.float64]]
Function = Callable[[Reals], Reals]
HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
_erfc = np.vectorize(math.erfc, otypes=[np.float64])
_ALPHA, _GAMMA = float(np.float32(1.6732632423543772)), float(np.float32(1.0507009873554805))


def _softplus(x: Reals) -> Reals:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x: Reals) -> Reals:
    return np.where(x >= 0, x, np.expm1(x))


EXACT: dict[str, Function] = {
    "identity": lambda x: x, "abs": np.abs, "negative": np.negative, "sign": np.sign, "ceil": np.ceil,
    "floor": np.floor, "round": np.rint, "relu": lambda x: np.maximum(x, 0), "clip": lambda x: x,
    "leaky_relu": lambda x: np.where(x >= 0, x, float(np.float32(0.01)) * x),
    "thresholded_relu": lambda x: np.where(x > 1, x, 0),
    "hard_sigmoid": lambda x: np.clip(float(np.float32(0.2)) * x + 0.5, 0, 1),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1), "reciprocal": lambda x: 1 / x, "sqrt": np.sqrt,
    "softsign": lambda x: x / (1 + np.abs(x)), "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "tanh": np.tanh,
    "exp": np.exp, "log": np.log, "erf": np.vectorize(math.erf, otypes=[np.float64]), "sin": np.sin, "cos": np.cos,
    "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "elu": _elu, "celu": _elu,
    "selu": lambda x: _GAMMA * np.where(x >= 0, x, _ALPHA * np.expm1(x)), "softplus": _softplus,
    "mish": lambda x: x * np.tanh(_softplus(x)), "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * _erfc(-x * math.sqrt(0.5)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "not": lambda x: x == 0, "is_nan": np.isnan, "is_inf": np.isinf,
}  # fmt: skip
# Most steps from the nearest half, and most elements that are not there. ONNX Runtime's sigmoid, whose bits the tables
# need, adds its polynomial to one half; a hard sigmoid near 0 is a difference.
WITHIN = {"sigmoid": (2, 600), "hard_sigmoid": (1, 250)}


def _steps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many halves lie between two arrays of float16."""
    positions = [np.where(bits < 0, -(bits & 0x7FFF), bits) for bits in (v.view(np.int16).astype(int) for v in (a, b))]
    return np.abs(positions[0] - positions[1])


def test_every_function_is_tested() -> None:
    assert {*EXACT, "power"} == set(unary.FUNCTIONS)


@pytest.mark.parametrize("name", EXACT)
def test_every_half(name: str) -> None:
    # What silu and its kin make of minus infinity is nobody's concern; all other halves are.
    x = HALVES[-np.inf != HALVES]
    with np.errstate(all="ignore"):
        expected = EXACT[name](x.astype(np.float64)).astype(np.float16)
        actual = unary.evaluate(name, x.astype(np.float32), ()).astype(np.float16)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(actual), ~known)
    steps = _steps(actual[known], expected[known])
    most, elements = WITHIN.get(name, (1, 24))
    assert steps.max() <= most
    assert np.count_nonzero(steps) <= elements


@pytest.mark.parametrize("exponent", [2.0, 3.0, 0.7, -1.5, -2.0, 0.0, 1.0, 7.0])
def test_powers_of_every_half(exponent: float) -> None:
    x = HALVES.astype(np.float32)
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(np.float64), float(np.float32(exponent))).astype(np.float32)
    np.testing.assert_allclose(unary.evaluate("power", x, (exponent,)), expected, rtol=2**-22)


def test_powers_have_the_special_values_of_c() -> None:
    special = np.array([0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, np.inf, -np.inf, np.nan, 1e-40, 2.5], np.float32)
    base, exponent = (side.ravel() for side in np.meshgrid(special, special))
    with np.errstate(all="ignore"):
        expected = np.power(base.astype(np.float64), exponent.astype(np.float64)).astype(np.float32)
    actual = in_float("power", base, exponent)
    np.testing.assert_allclose(actual, expected, rtol=2**-23)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[known]), np.signbit(expected[known]))


@pytest.mark.parametrize("name", ["divide", "modulo", "fmod", "power"])
def test_integers(name: str) -> None:
    sides = [np.array([-9, -4, -1, 0, 1, 2, 5, 40], np.int64)] * 2
    a, b = (side.ravel() for side in np.meshgrid(*sides))
    functions: dict[str, Callable[[int, int], int]] = {
        "divide": lambda x, y: int(x / y) if y else 0, "modulo": lambda x, y: x % y if y else 0,
        "fmod": lambda x, y: int(math.fmod(x, y)) if y else 0,
        "power": lambda x, y: x**y if y >= 0 else {1: 1, -1: 1 - 2 * (y % 2)}.get(x, 0),
    }  # fmt: skip
    wrapped = [(functions[name](int(x), int(y)) + 2**63) % 2**64 - 2**63 for x, y in zip(a, b)]
    np.testing.assert_array_equal(in_integers(name, a, b, np.int64), wrapped)


def test_integers_wrap_to_their_type() -> None:
    a = np.array([2**31 - 1, -(2**31)], np.int32)
    np.testing.assert_array_equal(in_integers("add", a, np.array([1, -1], np.int32), np.int32), a[::-1])


def test_halves_saturate() -> None:
    values = to_half([-3.4e38, 7e4, 65504, -np.inf, np.nan, 1e-9])
    np.testing.assert_array_equal(values, np.float16([-65504, 65504, 65504, -np.inf, np.nan, 0]))
