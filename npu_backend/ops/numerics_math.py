"""exp and log in float32 as the emulator computes them (``emulator/float_math.h``): the Cephes library's expf and logf.

Plain additions and multiplications, one rounding each, so that C and NumPy agree bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npu_backend.ops.numerics_core import FLOAT, FloatArray

_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
_LOG_2_HIGH, _LOG_2_LOW = FLOAT(0.693359375), FLOAT(-2.12194440e-4)


def exp(x: npt.ArrayLike) -> FloatArray:
    """``e ** x``; beyond float32's range 0 or infinity, NaN stays NaN."""
    x = np.asarray(x, FLOAT)
    bounded = np.fmin(np.fmax(x, FLOAT(-104)), FLOAT(89))
    whole = np.rint(bounded * FLOAT(1.44269504088896341))
    r = bounded - whole * _LOG_2_HIGH - whole * _LOG_2_LOW
    total = _polynomial(_EXP, r) * (r * r) + r + FLOAT(1)
    n = whole.astype(np.int32)
    with np.errstate(over="ignore", under="ignore"):
        result = total * _power_of_two(n >> 1) * _power_of_two(n - (n >> 1))
    return np.where(np.isnan(x), x, result)


def log(x: npt.ArrayLike) -> FloatArray:
    """The natural logarithm; of 0 minus infinity, of less NaN."""
    x = np.asarray(x, FLOAT)
    with np.errstate(all="ignore"):
        is_small = x < FLOAT(1.17549435e-38)
        bits = np.asarray(np.where(is_small, x * FLOAT(2**23), x)).view(np.uint32)
        fraction = ((bits & np.uint32(0x007FFFFF)) | np.uint32(0x3F000000)).view(FLOAT)
        is_low = fraction < FLOAT(0.707106781186547524)
        e = ((bits >> np.uint32(23)).astype(np.int32) - 126 - 23 * is_small - is_low).astype(FLOAT)
        r = np.where(is_low, fraction + fraction, fraction) - FLOAT(1)
        square = r * r
        total = _polynomial(_LOG, r) * r * square + e * _LOG_2_LOW - FLOAT(0.5) * square
        finite = r + total + e * _LOG_2_HIGH
    positive = np.where(x < np.inf, finite, x)
    return np.where(x > 0, positive, np.where(x == 0, FLOAT(-np.inf), FLOAT(np.nan)))


def _polynomial(coefficients: tuple[float, ...], r: FloatArray) -> FloatArray:
    total = FLOAT(coefficients[0]) * r
    for coefficient in coefficients[1:-1]:
        total = (total + FLOAT(coefficient)) * r
    return total + FLOAT(coefficients[-1])


def _power_of_two(n: np.ndarray) -> FloatArray:
    return ((n + 127).astype(np.uint32) << np.uint32(23)).view(FLOAT)
