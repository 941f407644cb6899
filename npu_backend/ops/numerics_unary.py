"""Functions of one tensor in float32, and as 256-entry tables between DequantizeLinear and QuantizeLinear.

Sums, products, quotients, roots, roundings, sigmoid and tanh are ONNX Runtime's bit for bit. The others are computed in
float64 and rounded to float32 once (see elementary.py), where ONNX Runtime's polynomials err by up to 1 ulp (and so
does the quotient in its softsign): of 122,880 random codes for each function none differs.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from npu_backend.ops import elementary, numerics_math
from npu_backend.ops.numerics_core import FLOAT, DType, FloatArray, IntegerArray, byte_values, dequantize, fma, quantize


def clip(x: FloatArray, low: float = -np.inf, high: float = np.inf) -> FloatArray:
    """min(max(x, low), high); NaN stays."""
    raised = np.where(x < FLOAT(low), FLOAT(low), x)
    return np.where(raised > FLOAT(high), FLOAT(high), raised)


def sigmoid(x: FloatArray) -> FloatArray:
    """Odd over even polynomial in x clamped to [-18, 18], plus one half, clamped to [0, 1].

    Horner by fma, as the x86 FMA3 kernel, in its vectors and its tail; the coefficients are Eigen's. x86 without FMA
    rounds each step twice.
    """
    return clip(_rational(clip(x, -18, 18), "sigmoid_odd", "sigmoid_even") + FLOAT(0.5), 0, 1)


def tanh(x: FloatArray) -> FloatArray:
    """Odd over even polynomial in x clamped to [-9, 9]; Horner by fma, as in `sigmoid`."""
    return _rational(clip(x, -9, 9), "tanh_odd", "tanh_even")


def _rational(x: FloatArray, odd: str, even: str) -> FloatArray:
    square = x * x
    return _horner(square, odd) * x / _horner(square, even)


def _horner(x: FloatArray, name: str) -> FloatArray:
    first, *rest = elementary.POLYNOMIALS[name]
    total = np.full_like(x, FLOAT(first))
    for coefficient in rest:
        total = fma(total, x, FLOAT(coefficient))
    return total


def sign(x: FloatArray) -> FloatArray:
    """1, -1, or x itself where it is 0 or NaN."""
    return np.where(x > 0, FLOAT(1), np.where(x < 0, FLOAT(-1), x))


def relu(x: FloatArray) -> FloatArray:
    """max(x, 0); NaN stays."""
    return np.where(x < 0, FLOAT(0), x)


def leaky_relu(x: FloatArray, alpha: float = 0.01) -> FloatArray:
    """x if x >= 0, else float32(alpha * x)."""
    return np.where(x >= 0, x, FLOAT(alpha) * x)


def thresholded_relu(x: FloatArray, alpha: float = 1.0) -> FloatArray:
    """x if x > alpha, else 0."""
    return np.where(x > FLOAT(alpha), x, FLOAT(0))


def hard_sigmoid(x: FloatArray, alpha: float = 0.2, beta: float = 0.5) -> FloatArray:
    """max(0, min(1, float32(float32(alpha * x) + beta)))."""
    return clip(FLOAT(alpha) * x + FLOAT(beta), 0, 1)


def hard_swish(x: FloatArray) -> FloatArray:
    """x * hard_sigmoid(x, 1/6, 0.5): the reference expands it into these two operators."""
    return x * hard_sigmoid(x, 1 / 6, 0.5)


def softsign(x: FloatArray) -> FloatArray:
    """x / (1 + |x|)."""
    return np.asarray(x / (FLOAT(1) + np.abs(x)), FLOAT)


def is_inf(x: FloatArray, detect_negative: float = 1, detect_positive: float = 1) -> FloatArray:
    """1 for the infinities that are looked for, else 0."""
    positive, negative = (x == np.inf) & bool(detect_positive), (x == -np.inf) & bool(detect_negative)
    return np.asarray(positive | negative, FLOAT)


def power(x: FloatArray, exponent: float) -> FloatArray:
    """x ** exponent; squares and cubes as products."""
    if exponent in (2, 3):
        return x * x if exponent == 2 else x * x * x
    return elementary.power(x.astype(np.float64), np.asarray(FLOAT(exponent), np.float64)).astype(FLOAT)


def mish(x: FloatArray) -> FloatArray:
    """x * tanh(softplus(x)), each rounded to float32: the reference expands it into these operators."""
    return x * tanh(FUNCTIONS["softplus"](x))


def _rounded(function: Callable[..., elementary.Doubles]) -> Callable[..., FloatArray]:
    """`function` in float64, rounded to float32 once; its parameters are float32 numbers."""

    def computed(x: FloatArray, *parameters: float) -> FloatArray:
        return function(x.astype(np.float64), *(float(FLOAT(value)) for value in parameters)).astype(FLOAT)

    computed.__doc__ = function.__doc__
    computed.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return computed


def _elu(x: elementary.Doubles, alpha: float = 1.0) -> elementary.Doubles:
    """x if x >= 0, else alpha * (exp(x) - 1)."""
    return np.where(x >= 0, x, alpha * (elementary.exp(x) - 1))


def _selu(
    x: elementary.Doubles, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323
) -> elementary.Doubles:
    """gamma * elu(x, alpha)."""
    return gamma * _elu(x, alpha)


def _celu(x: elementary.Doubles, alpha: float = 1.0) -> elementary.Doubles:
    """x if x >= 0, else alpha * (exp(x / alpha) - 1)."""
    return np.where(x >= 0, x, alpha * (elementary.exp(x / alpha) - 1))


def _softplus(x: elementary.Doubles) -> elementary.Doubles:
    """log(exp(x) + 1), of -|x| where x > 0, so that nothing overflows."""
    return np.where(x > 0, x, 0.0) + elementary.log(1 + elementary.exp(-np.abs(x)))


def _silu(x: elementary.Doubles) -> elementary.Doubles:
    """x * sigmoid(x)."""
    return x / (1 + elementary.exp(-x))


def _gelu(x: elementary.Doubles) -> elementary.Doubles:
    """0.5 * x * (1 + erf(x / sqrt(2)))."""
    return 0.5 * x * (1 + elementary.erf(x * math.sqrt(0.5)))


def _gelu_tanh(x: elementary.Doubles) -> elementary.Doubles:
    """0.5 * x * (1 + tanh(u)) with u = sqrt(2 / pi) * (x + 0.044715 * x**3): it is x / (1 + exp(-2 u))."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return x / (1 + elementary.exp(-2 * inner))


# The names in lower case of isa_functions.UnaryFunction, in its order.
FUNCTIONS: dict[str, Callable[..., FloatArray]] = {
    "identity": lambda x: x,
    "abs": np.abs,
    "negative": lambda x: -x,
    "sign": sign,
    "ceil": np.ceil,
    "floor": np.floor,
    "round": np.rint,
    "relu": relu,
    "clip": clip,
    "leaky_relu": leaky_relu,
    "thresholded_relu": thresholded_relu,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": hard_swish,
    "reciprocal": lambda x: FLOAT(1) / x,
    "sqrt": np.sqrt,
    "softsign": softsign,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "exp": numerics_math.exp,
    "log": numerics_math.log,
    "erf": _rounded(elementary.erf),
    "sin": _rounded(elementary.sin),
    "cos": _rounded(elementary.cos),
    "tan": _rounded(elementary.tan),
    "asin": _rounded(elementary.asin),
    "acos": _rounded(elementary.acos),
    "atan": _rounded(elementary.atan),
    "sinh": _rounded(elementary.sinh),
    "cosh": _rounded(elementary.cosh),
    "asinh": _rounded(elementary.asinh),
    "acosh": _rounded(elementary.acosh),
    "atanh": _rounded(elementary.atanh),
    "power": power,
    "elu": _rounded(_elu),
    "celu": _rounded(_celu),
    "selu": _rounded(_selu),
    "softplus": _rounded(_softplus),
    "mish": mish,
    "silu": _rounded(_silu),
    "gelu": _rounded(_gelu),
    "gelu_tanh": _rounded(_gelu_tanh),
    "not": lambda x: (x == 0).astype(FLOAT),
    "is_nan": lambda x: np.isnan(x).astype(FLOAT),
    "is_inf": is_inf,
}

_PARAMETERS = {
    name: [] if isinstance(function, np.ufunc) else list(inspect.signature(function).parameters.values())[1:]
    for name, function in FUNCTIONS.items()
}
# Names of the functions' own numbers, in ONNX's order, for those that have any.
PARAMETER_NAMES = {name: tuple(each.name for each in own) for name, own in _PARAMETERS.items() if own}


def parameters_of(function: str, given: tuple[float, ...]) -> tuple[float, ...]:
    """The function's own numbers, with its defaults after those given."""
    return (*given, *(float(each.default) for each in _PARAMETERS[function][len(given) :]))


def evaluate(function: str, x: npt.NDArray[np.float32], parameters: tuple[float, ...]) -> FloatArray:
    """A key of FUNCTIONS on values; infinities and NaN as they come."""
    with np.errstate(all="ignore"):
        return np.asarray(FUNCTIONS[function](x, *parameters_of(function, parameters)), FLOAT)


def unary_table(
    function: str,
    x_scale: np.float32,
    x_zero_point: int,
    y_scale: np.float32,
    y_zero_point: int,
    dtype: DType,
    **parameters: float,
) -> IntegerArray:
    """256 outputs of DequantizeLinear, `function` (a key of FUNCTIONS) and QuantizeLinear, indexed by the raw byte
    (`value & 0xff`).

    parameters: by the names that the function in FUNCTIONS gives them. Infinities saturate, NaN becomes the lowest
    code. Raises KeyError for an unknown function.
    """
    x = dequantize(byte_values(dtype), x_scale, x_zero_point)
    return quantize(evaluate(function, x, tuple(parameters.values())), y_scale, y_zero_point, dtype)
