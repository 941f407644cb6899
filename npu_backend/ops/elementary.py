"""Elementary functions whose every bit is ours: polynomials in float64, or in float32 by fma, in a fixed order.

The C kernels (emulator/elementary.h) are the same step by step, and their coefficients are generated from POLYNOMIALS,
so all kernel levels and NumPy agree bit for bit. A result in float64 is within 2**-34 of the true one, relative to it
(odd functions near 0 and the error function near 1: 2**-25; sine and cosine: for arguments up to 2**20), so its
rounding to float32 is off by less than one unit in the last place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

# Horner's coefficients, the highest power first; in float64 unless named in SINGLE.
POLYNOMIALS: dict[str, tuple[float, ...]] = {
    # Taylor: exp(x); atanh(s) / s, sin(x) / x, cos(x) and atan(x) / x in the square of the argument.
    "exp": tuple(1 / math.factorial(n) for n in range(9, -1, -1)),
    "atanh": tuple(1 / (2 * n + 1) for n in range(6, -1, -1)),
    "sin": tuple((-1) ** n / math.factorial(2 * n + 1) for n in range(5, -1, -1)),
    "cos": tuple((-1) ** n / math.factorial(2 * n) for n in range(6, -1, -1)),
    "atan": tuple((-1) ** n / (2 * n + 1) for n in range(12, -1, -1)),
    # erf(x) / x in x * x / 8 - 1: interpolated at 23 Chebyshev points of |x| <= 4.
    "erf": (
        1.4847774645718543e-06, -4.585389473030101e-06, 5.088267599880364e-06, -1.2640567982326385e-05,
        5.0474032199734075e-05, -0.00012648284641529796, 0.00027314126509736514, -0.0006048767893340166,
        0.0012940268888502506, -0.002583019044823478, 0.004853008565359942, -0.008604364490232764,
        0.014349731625669786, -0.022474028121113862, 0.03306061302879038, -0.04576504107028729, 0.059886906576729036,
        -0.07472787154625182, 0.09020899405413609, -0.10771044230495758, 0.13167511689525005, -0.17657623330391473,
        0.35353099564340573,
    ),
    # ONNX Runtime's (and Eigen's) sigmoid and tanh: odd over even polynomials.
    "sigmoid_odd": (
        4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03, 2.48287947061529e-01,
    ),
    "sigmoid_even": (
        6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03, 1.16817656904453e-01,
        9.93151921023180e-01,
    ),
    "tanh_odd": (
        -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08, 1.48572235717979e-05,
        6.37261928875436e-04, 4.89352455891786e-03,
    ),
    "tanh_even": (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03),
}  # fmt: skip
SINGLE = frozenset(("sigmoid_odd", "sigmoid_even", "tanh_odd", "tanh_even"))

LN2, LOG2E = math.log(2), 1 / math.log(2)
# The sum with it leaves the nearest integer in the lowest bits.
SHIFTER = 1.5 * 2.0**52
_SQRT_HALF_BITS = np.uint64(0x3FE6A09E667F3BCD)
_BIAS = np.uint64(1023)
_FRACTION_BITS = np.uint64(52)
# pi / 2: 33 bits, so that products with integers below 2**20 are exact, and the rest.
HALF_PI_HIGH, HALF_PI_LOW = 1.57079632673412561417, 6.07710050650619224932e-11


def polynomial(name: str, x: Doubles) -> Doubles:
    """The polynomial `name` at x, by plain products and sums in float64."""
    first, *rest = POLYNOMIALS[name]
    total = np.full_like(x, first)
    for coefficient in rest:
        total = total * x + coefficient
    return total


def exp(x: Doubles) -> Doubles:
    """By the nearest k * ln 2: a power of two times the rest's polynomial. Bounded by what float32 holds."""
    bounded = np.where(x > 150, 150.0, np.where(x < -150, -150.0, x))
    shifted = bounded * LOG2E + SHIFTER
    power = (shifted.view(np.uint64) + _BIAS) << _FRACTION_BITS
    return polynomial("exp", bounded - (shifted - SHIFTER) * LN2) * power.view(np.float64)


def log(x: Doubles) -> Doubles:
    """Of 2**k * m with m between the roots of 1/2 and 2: k * ln 2 + 2 atanh((m - 1) / (m + 1))."""
    bits = x.view(np.uint64)
    exponent = (bits - _SQRT_HALF_BITS + (_BIAS << _FRACTION_BITS)) >> _FRACTION_BITS
    k = (exponent | np.uint64(0x4330000000000000)).view(np.float64) - (2.0**52 + 1023)
    m = (bits - ((exponent - _BIAS) << _FRACTION_BITS)).view(np.float64)
    s = (m - 1) / (m + 1)
    value = k * LN2 + 2 * s * polynomial("atanh", s * s)
    return np.where(x > 0, np.where(x < np.inf, value, x), np.where(x == 0, -np.inf, np.nan))


def erf(x: Doubles) -> Doubles:
    """An odd polynomial, and 1 where float32 has nothing closer to it (|x| > 4)."""
    inside = x * polynomial("erf", x * x * 0.125 - 1)
    return np.where(x > 4, 1.0, np.where(x < -4, -1.0, inside))


def _sin_ahead(x: Doubles, quarters: int) -> Doubles:
    """The sine of x + quarters * pi / 2."""
    shifted = x * (2 / math.pi) + SHIFTER
    k = shifted - SHIFTER
    r = (x - k * HALF_PI_HIGH) - k * HALF_PI_LOW
    quadrant = shifted.view(np.uint64) + np.uint64(quarters)
    magnitude = np.where(quadrant & np.uint64(1), polynomial("cos", r * r), r * polynomial("sin", r * r))
    return np.where(quadrant & np.uint64(2), -magnitude, magnitude)


def sin(x: Doubles) -> Doubles:
    """The sine."""
    return _sin_ahead(x, 0)


def cos(x: Doubles) -> Doubles:
    """The sine a quarter of a turn ahead."""
    return _sin_ahead(x, 1)


def tan(x: Doubles) -> Doubles:
    """sin(x) / cos(x)."""
    return sin(x) / cos(x)


def atan(x: Doubles) -> Doubles:
    """Of |x|, less 45 degrees where it is above tan(22.5 degrees), or less 90 where above tan(67.5 degrees)."""
    magnitude = np.abs(x)
    steep, middle = magnitude > 2.414213562373095, magnitude > 0.41421356237309503
    above = np.where(steep, -1.0, np.where(middle, magnitude - 1, magnitude))
    below = np.where(steep, magnitude, np.where(middle, magnitude + 1, 1.0))
    start = np.where(steep, math.pi / 2, np.where(middle, math.pi / 4, 0.0))
    tangent = above / below
    return np.copysign(start + tangent * polynomial("atan", tangent * tangent), x)


def asin(x: Doubles) -> Doubles:
    """atan(x / sqrt(1 - x * x))."""
    return atan(x / np.sqrt((1 - x) * (1 + x)))


def acos(x: Doubles) -> Doubles:
    """pi / 2 - asin(x)."""
    return math.pi / 2 - asin(x)


def small_or(x: Doubles, value: Doubles) -> Doubles:
    """x where it is so small that an odd function of slope 1 is x itself, to float32; `value` elsewhere."""
    return np.where(np.abs(x) < 2.0**-13, x, value)


def sinh(x: Doubles) -> Doubles:
    """(exp(x) - exp(-x)) / 2."""
    return small_or(x, 0.5 * (exp(x) - exp(-x)))


def cosh(x: Doubles) -> Doubles:
    """(exp(x) + exp(-x)) / 2."""
    return 0.5 * (exp(x) + exp(-x))


def asinh(x: Doubles) -> Doubles:
    """log(|x| + sqrt(x * x + 1)), with x's sign."""
    magnitude = np.abs(x)
    return small_or(x, np.copysign(log(magnitude + np.sqrt(magnitude * magnitude + 1)), x))


def acosh(x: Doubles) -> Doubles:
    """log(x + sqrt((x - 1) * (x + 1)))."""
    return log(x + np.sqrt((x - 1) * (x + 1)))


def atanh(x: Doubles) -> Doubles:
    """log((1 + x) / (1 - x)) / 2."""
    return small_or(x, 0.5 * log((1 + x) / (1 - x)))


def power(x: Doubles, exponent: Doubles) -> Doubles:
    """exp(exponent * log(|x|)) with the sign and the special values of C's pow."""
    whole = np.rint(exponent) == exponent
    odd = whole & (np.rint(exponent * 0.5) * 2 != exponent)
    magnitude = np.abs(x)
    value = np.where((magnitude == 1) & (exponent == exponent), 1.0, exp(exponent * log(magnitude)))
    signed = np.where(odd, np.copysign(value, x), value)
    real = np.where((x < 0) & (magnitude < np.inf) & ~whole, np.nan, signed)
    return np.where((exponent == 0) | (x == 1), 1.0, real)


def header() -> str:
    """The polynomials as C functions: emulator/npu_polynomials.h."""
    return "\n".join((
        "/* Generated by npu_backend/generate_header.py from npu_backend/ops/elementary.py; do not edit. */",
        "#ifndef NPU_POLYNOMIALS_H\n#define NPU_POLYNOMIALS_H\n\n#include \"vector.h\"\n",
        *(_function(name, coefficients) for name, coefficients in POLYNOMIALS.items()),
        "#endif\n",
    ))  # fmt: skip


def _function(name: str, coefficients: tuple[Any, ...]) -> str:
    single = name in SINGLE
    c_type, step = ("float", "    sum = fmaf(sum, x, {}f);") if single else ("double", "    sum = sum * x + {};")
    first, *rest = (repr(float(np.float32(c)) if single else float(c)) for c in coefficients)
    return "\n".join((
        f"NPU_INLINE {c_type} npu_polynomial_{name}({c_type} x) {{",
        f"    {c_type} sum = {first}{'f' if single else ''};",
        *(step.format(coefficient).replace("+ -", "- ") for coefficient in rest),
        "    return sum;\n}\n",
    ))  # fmt: skip
