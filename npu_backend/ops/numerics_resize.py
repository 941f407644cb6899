"""Nearest and bilinear resize of height and width. Layout [n,h,w,c]."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from npu_backend.ops.numerics_core import FLOAT, FloatArray, IntegerArray, byte_values, dequantize, quantize

CoordinateMode = Literal["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
NearestMode = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
IndexArray = npt.NDArray[np.int32]


class LinearTaps(NamedTuple):
    """Two source indices and their float32 weights per output position of one axis."""

    low: IndexArray
    high: IndexArray
    low_weight: FloatArray
    high_weight: FloatArray


def resize_scale(in_length: int, out_length: int, scale: float | None = None) -> np.float32:
    """The operator's scale input if it has one, else `float32(out_length) / float32(in_length)`."""
    return FLOAT(scale) if scale is not None else FLOAT(FLOAT(out_length) / FLOAT(in_length))


def resize_coordinates(in_length: int, out_length: int, mode: CoordinateMode, scale: float | None = None) -> FloatArray:
    """Source coordinate of every output position, float32, each operation of ONNX's formulas rounded."""
    factor = resize_scale(in_length, out_length, scale)
    position = np.arange(out_length, dtype=FLOAT)
    if factor == 1:
        return position
    if mode == "asymmetric":
        return position / factor
    if mode == "align_corners":
        return np.zeros_like(position) if out_length == 1 else position * FLOAT(in_length - 1) / FLOAT(out_length - 1)
    if mode == "pytorch_half_pixel" and out_length == 1:
        return np.zeros_like(position)
    return (position + FLOAT(0.5)) / factor - FLOAT(0.5)


def nearest_indices(
    in_length: int, out_length: int, mode: CoordinateMode, rounding: NearestMode, scale: float | None = None
) -> IndexArray:
    """Source index of every output position of one axis.

    The two rounding modes take a fraction within 1e-6 of one half for a tie (ONNX Runtime since mid 2026: float32
    coordinates of exact ties come out a step beside one half).
    """
    source = resize_coordinates(in_length, out_length, mode, scale)
    floor, ceil = np.floor(source), np.ceil(source)
    if rounding == "floor":
        index = floor
    elif rounding == "ceil":
        index = ceil
    else:
        tie = np.abs(source - floor - FLOAT(0.5)) <= FLOAT(1e-6)
        index = np.where(tie, floor if rounding == "round_prefer_floor" else ceil, np.rint(source))
    return np.clip(index, 0, in_length - 1).astype(np.int32)


def linear_taps(in_length: int, out_length: int, mode: CoordinateMode, scale: float | None = None) -> LinearTaps:
    """Neighbours and weights of one axis: the coordinate clamped to [0, in_length - 1], weights 0.5 and 0.5 where both
    neighbours are one.
    """
    source = np.clip(resize_coordinates(in_length, out_length, mode, scale), FLOAT(0), FLOAT(in_length - 1))
    low = np.minimum(source.astype(np.int32), in_length - 1)
    high = np.minimum(low + 1, in_length - 1)
    same = low == high
    high_weight = np.where(same, FLOAT(0.5), np.abs(source - low.astype(FLOAT)))
    low_weight = np.where(same, FLOAT(0.5), np.abs(source - high.astype(FLOAT)))
    return LinearTaps(low.astype(np.int32), high.astype(np.int32), low_weight, high_weight)


def resize_nearest(x: IntegerArray, rows: IndexArray, columns: IndexArray) -> IntegerArray:
    """Gather by `nearest_indices` of both axes; exact. With different scales `requantize` the result (or the input:
    the same).
    """
    return x[:, rows][:, :, columns]


def resize_linear(
    x: IntegerArray,
    x_scale: np.float32,
    x_zero_point: int,
    y_scale: np.float32,
    y_zero_point: int,
    rows: LinearTaps,
    columns: LinearTaps,
) -> IntegerArray:
    """Bilinear resize between DequantizeLinear and QuantizeLinear (ONNX Runtime runs it in float, equal scales or
    not): bit for bit.

    With d = dequantised float32 values and the weights' products rounded first, per element, left to right, no fma: v
    = (low_x * low_y) * d[low_y, low_x] + (high_x * low_y) * d[low_y, high_x] + (low_x * high_y) * d[high_y, low_x] +
    (high_x * high_y) * d[high_y, high_x]; then `quantize(v)`. The same in its NCHW and NHWC kernels, but it takes an
    NHWC resize of the width alone for an NCHW one, and may then differ by a step in the last row (42 of 188,479
    elements). Arm's builds fuse and differ.
    """
    values = dequantize(byte_values(x.dtype), x_scale, x_zero_point)[np.ascontiguousarray(x).view(np.uint8)]
    top, bottom = values[:, rows.low], values[:, rows.high]
    weights = [
        (columns.low_weight[None, :] * rows.low_weight[:, None], top[:, :, columns.low]),
        (columns.high_weight[None, :] * rows.low_weight[:, None], top[:, :, columns.high]),
        (columns.low_weight[None, :] * rows.high_weight[:, None], bottom[:, :, columns.low]),
        (columns.high_weight[None, :] * rows.high_weight[:, None], bottom[:, :, columns.high]),
    ]
    products = [weight[:, :, None] * neighbour for weight, neighbour in weights]
    return quantize(products[0] + products[1] + products[2] + products[3], y_scale, y_zero_point, x.dtype)
