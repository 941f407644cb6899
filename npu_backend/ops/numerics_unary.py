"""Unary functions between DequantizeLinear and QuantizeLinear as 256-entry tables.

Sums, products, quotients, roots, roundings, sigmoid and tanh are ONNX Runtime's bit for bit. Exponentials, logarithms,
sines, powers and the error function are float64's rounded to float32, where its polynomials err by up to 1 ulp (and so
does the quotient in its softsign); of 122,880 random codes for each function none differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from npu_backend.ops.numerics_core import FLOAT, DType, FloatArray, IntegerArray, byte_values, dequantize, fma, quantize

_SIGMOID_ODD = (
    4.37031012579801e-11,
    1.15627324459942e-07,
    6.08574864600143e-05,
    8.51377133304701e-03,
    2.48287947061529e-01,
)
_SIGMOID_EVEN = (
    6.10247389755681e-13,
    5.76102136993427e-09,
    6.29106785017040e-06,
    1.70198817374094e-03,
    1.16817656904453e-01,
    9.93151921023180e-01,
)
_TANH_ODD = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_EVEN = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def sigmoid(x: FloatArray) -> FloatArray:
    """Odd over even polynomial in x clamped to [-18, 18], plus one half, clamped to [0, 1].

    Horner by fma, as the x86 FMA3 kernel, in its vectors and its tail; the coefficients are Eigen's. x86 without FMA
    rounds each step twice.
    """
    clamped = np.clip(np.asarray(x, FLOAT), FLOAT(-18), FLOAT(18))
    shifted = _rational(clamped, _SIGMOID_ODD, _SIGMOID_EVEN) + FLOAT(0.5)
    return np.asarray(np.clip(shifted, FLOAT(0), FLOAT(1)))


def tanh(x: FloatArray) -> FloatArray:
    """Odd over even polynomial in x clamped to [-9, 9]; Horner by fma, as in `sigmoid`."""
    return _rational(np.clip(np.asarray(x, FLOAT), FLOAT(-9), FLOAT(9)), _TANH_ODD, _TANH_EVEN)


def relu(x: FloatArray) -> FloatArray:
    """max(x, 0)."""
    return np.maximum(np.asarray(x, FLOAT), FLOAT(0))


def clip(x: FloatArray, low: float = -np.inf, high: float = np.inf) -> FloatArray:
    """min(max(x, low), high)."""
    return np.asarray(np.clip(np.asarray(x, FLOAT), FLOAT(low), FLOAT(high)))


def leaky_relu(x: FloatArray, alpha: float = 0.01) -> FloatArray:
    """x if x >= 0, else float32(alpha * x)."""
    value = np.asarray(x, FLOAT)
    return np.where(value >= 0, value, FLOAT(alpha) * value)


def hard_sigmoid(x: FloatArray, alpha: float = 0.2, beta: float = 0.5) -> FloatArray:
    """max(0, min(1, float32(float32(alpha * x) + beta)))."""
    return np.asarray(np.clip(FLOAT(alpha) * np.asarray(x, FLOAT) + FLOAT(beta), FLOAT(0), FLOAT(1)))


def hard_swish(x: FloatArray) -> FloatArray:
    """x * hard_sigmoid(x, 1/6, 0.5): the reference expands it into these two operators."""
    return np.asarray(x, FLOAT) * hard_sigmoid(x, 1 / 6, 0.5)


def identity(x: FloatArray) -> FloatArray:
    """x."""
    return np.asarray(x, FLOAT)


def _rounded(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[FloatArray], FloatArray]:
    """`function` in float64, rounded once."""

    def computed(x: FloatArray) -> FloatArray:
        return np.asarray(function(np.asarray(x, FLOAT).astype(np.float64)), FLOAT)

    computed.__doc__ = f"{getattr(function, '__name__', 'erf')} in float64, rounded to float32."
    return computed


exponential = _rounded(np.exp)
logarithm = _rounded(np.log)
error_function = _rounded(np.vectorize(math.erf, otypes=[np.float64]))


def elu(x: FloatArray, alpha: float = 1.0) -> FloatArray:
    """x if x >= 0, else alpha * (exp(x) - 1)."""
    value = np.asarray(x, FLOAT)
    return np.where(value >= 0, value, FLOAT(alpha) * (exponential(value) - FLOAT(1)))


def selu(x: FloatArray, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> FloatArray:
    """gamma * (max(x, 0) + min(alpha * (exp(x) - 1), 0))."""
    value = np.asarray(x, FLOAT)
    below = np.minimum(FLOAT(alpha) * (exponential(value) - FLOAT(1)), FLOAT(0))
    return np.asarray(FLOAT(gamma) * (relu(value) + below))


def celu(x: FloatArray, alpha: float = 1.0) -> FloatArray:
    """max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0)."""
    value = np.asarray(x, FLOAT)
    below = np.minimum(FLOAT(alpha) * (exponential(value / FLOAT(alpha)) - FLOAT(1)), FLOAT(0))
    return np.asarray(relu(value) + below)


def thresholded_relu(x: FloatArray, alpha: float = 1.0) -> FloatArray:
    """x if x > alpha, else 0."""
    value = np.asarray(x, FLOAT)
    return np.where(value > FLOAT(alpha), value, FLOAT(0))


def softplus(x: FloatArray) -> FloatArray:
    """log(exp(x) + 1), of -|x| where x > 0, so that nothing overflows."""
    value = np.asarray(x, FLOAT)
    return relu(value) + logarithm(exponential(-np.abs(value)) + FLOAT(1))


def softsign(x: FloatArray) -> FloatArray:
    """x / (1 + |x|)."""
    value = np.asarray(x, FLOAT)
    return np.asarray(value / (FLOAT(1) + np.abs(value)), FLOAT)


def mish(x: FloatArray) -> FloatArray:
    """x * tanh(softplus(x))."""
    return np.asarray(x, FLOAT) * tanh(softplus(x))


def gelu(x: FloatArray) -> FloatArray:
    """0.5 * x * (1 + erf(x / sqrt(2)))."""
    value = np.asarray(x, FLOAT)
    return FLOAT(0.5) * value * (FLOAT(1) + error_function(value * FLOAT(math.sqrt(0.5))))


def gelu_tanh(x: FloatArray) -> FloatArray:
    """0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))."""
    value = np.asarray(x, FLOAT)
    inner = FLOAT(math.sqrt(2 / math.pi)) * (value + FLOAT(0.044715) * value * value * value)
    return FLOAT(0.5) * value * (FLOAT(1) + tanh(inner))


def power(x: FloatArray, exponent: float) -> FloatArray:
    """x ** exponent; squares and cubes as products."""
    value = np.asarray(x, FLOAT)
    if exponent in (2, 3):
        return value * value if exponent == 2 else value * value * value
    return np.asarray(np.power(value.astype(np.float64), np.float64(FLOAT(exponent))), FLOAT)


def reciprocal(x: FloatArray) -> FloatArray:
    """1 / x."""
    return FLOAT(1) / np.asarray(x, FLOAT)


FUNCTIONS: dict[str, Callable[..., FloatArray]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "celu": celu,
    "cos": _rounded(np.cos),
    "elu": elu,
    "erf": error_function,
    "exp": exponential,
    "floor": np.floor,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "log": logarithm,
    "mish": mish,
    "negative": np.negative,
    "power": power,
    "reciprocal": reciprocal,
    "round": np.rint,
    "selu": selu,
    "sign": np.sign,
    "sin": _rounded(np.sin),
    "softplus": softplus,
    "softsign": softsign,
    "sqrt": np.sqrt,
    "thresholded_relu": thresholded_relu,
    "relu": relu,
    "clip": clip,
    "leaky_relu": leaky_relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": hard_swish,
    "identity": identity,
}


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
    with np.errstate(all="ignore"):
        values = FUNCTIONS[function](dequantize(byte_values(dtype), x_scale, x_zero_point), **parameters)
        return quantize(values, y_scale, y_zero_point, dtype)


def _rational(x: FloatArray, odd: tuple[float, ...], even: tuple[float, ...]) -> FloatArray:
    square = x * x
    return _horner(square, odd) * x / _horner(square, even)


def _horner(x: FloatArray, coefficients: tuple[float, ...]) -> FloatArray:
    total = np.full_like(x, FLOAT(coefficients[0]))
    for coefficient in coefficients[1:]:
        total = fma(total, x, FLOAT(coefficient))
    return total
