"""Softmax over the last axis on 8-bit values."""

from __future__ import annotations

import math

import numpy as np

from npu_backend.ops.numerics_core import FLOAT, FloatArray, IntegerArray, saturate


def softmax_table(x_scale: np.float32, length: int) -> FloatArray:
    """256 float32 values of exp, indexed by `x - row maximum + 255`; length is the size of the last axis.

    Entry i is float32(exp((i - 255 + shift) * x_scale)) in float64, shift = max(0, log(float32 maximum / length) - 5)
    / x_scale: a common factor that keeps the sum of a row below float32's maximum.
    """
    largest = FLOAT(np.finfo(np.float32).max) / FLOAT(length)
    scale = float(FLOAT(x_scale))
    shift = max(0.0, float(np.log(largest)) - 5.0) / scale
    return np.array([math.exp((index - 255 + shift) * scale) for index in range(256)], np.float64).astype(FLOAT)


def softmax_output_scale(y_scale: np.float32) -> np.float32:
    """`floor(1 / y_scale)` in float32: the reference rounds the reciprocal down, so 1/255 may give 254 or 255 and 0.3
    gives 3.
    """
    return FLOAT(np.floor(FLOAT(1) / FLOAT(y_scale)))


def softmax(x: IntegerArray, x_scale: np.float32, y_scale: np.float32, y_zero_point: int) -> IntegerArray:
    """QLinearSoftmax over the last axis, opset 13 on: bit for bit. The input's zero point cancels.

    Per row: e[i] = table[x[i] - max(x) + 255]; sum = float32 sum of e in ascending order; y =
    saturate(rint(float32(float32(e[i] * output_scale) / sum)) + y_zp). Scalar C++ on every machine; the table needs a
    correct `exp`.
    """
    table = softmax_table(x_scale, x.shape[-1])
    values = x.astype(np.int32)
    exponentials = table[values - values.max(axis=-1, keepdims=True) + 255]
    # cumsum adds one after the other; np.sum would add pairwise.
    total = np.cumsum(exponentials, axis=-1, dtype=FLOAT)[..., -1:]
    with np.errstate(over="ignore"):
        quotient = exponentials * softmax_output_scale(y_scale) / total
    # Nothing above 511 survives saturation; the bound keeps an infinite quotient convertible.
    rounded = np.rint(np.minimum(quotient, FLOAT(511))).astype(np.int32)
    return saturate(rounded + np.int32(y_zero_point), x.dtype)
