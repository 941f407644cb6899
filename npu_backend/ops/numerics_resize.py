"""Nearest, bilinear and cubic resize of height and width, as ONNX Runtime's kernels compute it. Layout [n,h,w,c]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from npu_backend.ops.numerics_core import FLOAT, FloatArray, IntegerArray, byte_values, dequantize, quantize

CoordinateMode = Literal[
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
]  # fmt: skip
NearestMode = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
IndexArray = npt.NDArray[np.int32]
CUBIC_COEFFICIENT = -0.75


class Taps(NamedTuple):
    """Source positions int32 and float32 weights of every output position of one axis, both [output, tap].

    Weights that are all 0 stand for a coordinate outside of the input, where a value of its own is put.
    """

    positions: IndexArray
    weights: FloatArray


class Axis(NamedTuple):
    """One axis of a resize: extents, scale as the coordinates have it (None: of the extents), region of interest."""

    in_length: int
    out_length: int
    mode: CoordinateMode
    scale: float | None = None
    roi: tuple[float, float] = (0.0, 1.0)

    @property
    def factor(self) -> np.float32:
        """The operator's scale input if it has one, else `float32(out_length) / float32(in_length)`."""
        return FLOAT(FLOAT(self.out_length) / FLOAT(self.in_length)) if self.scale is None else FLOAT(self.scale)


def resize_coordinates(axis: Axis) -> FloatArray:
    """Source coordinate of every output position, float32, each operation of ONNX's formulas rounded."""
    position = np.arange(axis.out_length, dtype=FLOAT)
    return position if axis.factor == 1 else _scaled_coordinates(axis, position)


def _scaled_coordinates(axis: Axis, position: FloatArray) -> FloatArray:
    half, factor, last = FLOAT(0.5), axis.factor, FLOAT(axis.in_length - 1)
    if axis.mode == "asymmetric":
        return position / factor
    if axis.mode == "align_corners":
        return np.zeros_like(position) if axis.out_length == 1 else position * last / FLOAT(axis.out_length - 1)
    if axis.mode == "pytorch_half_pixel" and axis.out_length == 1:
        return np.zeros_like(position)
    if axis.mode == "tf_half_pixel_for_nn":
        return (position + half) / factor
    if axis.mode == "tf_crop_and_resize":
        return _crop_coordinates(axis, position)
    if axis.mode == "half_pixel_symmetric":
        adjustment = FLOAT(axis.out_length) / (factor * FLOAT(axis.in_length))
        offset = FLOAT(axis.in_length) / FLOAT(2) * (FLOAT(1) - adjustment)
        # This one in double.
        return ((position.astype(np.float64) + 0.5) / factor.astype(np.float64) + offset - 0.5).astype(FLOAT)
    return (position + half) / factor - half


def _crop_coordinates(axis: Axis, position: FloatArray) -> FloatArray:
    """Positions between the first and the last of the region of interest."""
    (start, stop), last = map(FLOAT, axis.roi), FLOAT(axis.in_length - 1)
    if axis.out_length == 1:
        return np.full_like(position, FLOAT(0.5) * (start + stop) * last)
    return start * last + position * (stop - start) * last / FLOAT(axis.out_length - 1)


def identity_taps(length: int) -> Taps:
    """Every position itself."""
    return Taps(np.arange(length, dtype=np.int32)[:, None], np.ones((length, 1), FLOAT))


def _without_outside(axis: Axis, source: FloatArray, taps: Taps) -> Taps:
    """Weights 0 where a crop's coordinate lies outside of the input."""
    if axis.mode != "tf_crop_and_resize":
        return taps
    inside = (source >= 0) & (source <= FLOAT(axis.in_length - 1))
    return Taps(taps.positions, np.where(inside[:, None], taps.weights, FLOAT(0)))


def nearest_indices(axis: Axis, rounding: NearestMode) -> IndexArray:
    """Source index of every output position of one axis.

    The two rounding modes take a fraction within 1e-6 of one half for a tie (ONNX Runtime since mid 2026: float32
    coordinates of exact ties come out a step beside one half).
    """
    source = resize_coordinates(axis)
    floor, ceil = np.floor(source), np.ceil(source)
    if rounding == "floor":
        index = floor
    elif rounding == "ceil":
        index = ceil
    else:
        tie = np.abs(source - floor - FLOAT(0.5)) <= FLOAT(1e-6)
        index = np.where(tie, floor if rounding == "round_prefer_floor" else ceil, np.rint(source))
    return np.clip(index, 0, axis.in_length - 1).astype(np.int32)


def nearest_taps(axis: Axis, rounding: NearestMode) -> Taps:
    """The nearest position alone."""
    index = nearest_indices(axis, rounding)
    taps = Taps(index[:, None], np.ones((len(index), 1), FLOAT))
    return _without_outside(axis, resize_coordinates(axis), taps)


def linear_taps(axis: Axis) -> Taps:
    """Neighbours and weights of one axis: the coordinate clamped to [0, in_length - 1], weights 0.5 and 0.5 where both
    neighbours are one.
    """
    last = axis.in_length - 1
    source = np.clip(resize_coordinates(axis), FLOAT(0), FLOAT(last))
    low = np.minimum(source.astype(np.int32), last)
    high = np.minimum(low + 1, last)
    same = low == high
    high_weight = np.where(same, FLOAT(0.5), np.abs(source - low.astype(FLOAT)))
    low_weight = np.where(same, FLOAT(0.5), np.abs(source - high.astype(FLOAT)))
    taps = Taps(np.stack((low, high), 1).astype(np.int32), np.stack((low_weight, high_weight), 1))
    return _without_outside(axis, resize_coordinates(axis), taps)


def cubic_weights(fraction: FloatArray, coefficient: float) -> FloatArray:
    """Weights of the four neighbours, [..., 4], of a coordinate `fraction` behind the second."""
    a, s, one = FLOAT(coefficient), fraction, FLOAT(1)

    def far(x: FloatArray) -> FloatArray:
        return ((a * x - FLOAT(5) * a) * x + FLOAT(8) * a) * x - FLOAT(4) * a

    def near(x: FloatArray) -> FloatArray:
        return ((a + FLOAT(2)) * x - (a + FLOAT(3))) * x * x + one

    return np.stack((far(s + one), near(s), near(one - s), far(FLOAT(2) - s)), -1)


def cubic_taps(axis: Axis, a: float, exclude_outside: bool) -> Taps:
    """Four neighbours; those outside of the input are its first or last, or left out and the rest scaled up."""
    source = resize_coordinates(axis)
    floor = np.floor(source)
    weights = cubic_weights(source - floor, a)
    positions = floor.astype(np.int64)[:, None] + np.arange(-1, 3)
    clipped = np.clip(positions, 0, axis.in_length - 1)
    if exclude_outside:
        weights = np.where(positions == clipped, weights, FLOAT(0))
        weights = _normalized(weights)
    return _without_outside(axis, source, Taps(clipped.astype(np.int32), weights))


def antialias_taps(axis: Axis, function: str, a: float, exclude_outside: bool) -> Taps:
    """A filter as wide as one output position when the image shrinks: a triangle, or the cubic's.

    ONNX Runtime passes over an axis whose extent stays, whatever its scale.
    """
    source, shrink = resize_coordinates(axis), max(FLOAT(1), FLOAT(1) / axis.factor)
    if axis.in_length == axis.out_length:
        return _without_outside(axis, source, identity_taps(axis.in_length))
    support = FLOAT(1.0 if function == "bilinear" else 2.0) * shrink
    centre = source + FLOAT(0.5)
    first = np.floor(centre - support + FLOAT(0.5)).astype(np.int64)
    stop = np.floor(centre + support + FLOAT(0.5)).astype(np.int64)
    positions = first[:, None] + np.arange(max(int((stop - first).max()), 1))
    distance = (positions - centre[:, None] + FLOAT(0.5)).astype(FLOAT) / shrink
    weights = np.where(positions < stop[:, None], _filter(np.abs(distance), function, a), FLOAT(0)).astype(FLOAT)
    clipped = np.clip(np.minimum(positions, stop[:, None] - 1), 0, axis.in_length - 1)
    if exclude_outside:
        weights = np.where(positions == clipped, weights, FLOAT(0))
    return _without_outside(axis, source, Taps(clipped.astype(np.int32), _normalized(weights)))


def _normalized(weights: FloatArray) -> FloatArray:
    total = weights.sum(-1, dtype=FLOAT, keepdims=True)
    return np.asarray(weights / np.where(total == 0, FLOAT(1), total), FLOAT)


def _filter(distance: FloatArray, function: str, coefficient: float) -> FloatArray:
    a, x, one = FLOAT(coefficient), distance, FLOAT(1)
    if function == "bilinear":
        return np.asarray(np.maximum(FLOAT(0), one - x), FLOAT)
    near = ((a + FLOAT(2)) * x - (a + FLOAT(3))) * x * x + one
    far = (((x - FLOAT(5)) * x + FLOAT(8)) * x - FLOAT(4)) * a
    return np.where(x < 1, near, np.where(x < 2, far, FLOAT(0)))


def resize_nearest(x: npt.NDArray[np.generic], rows: IndexArray, columns: IndexArray) -> npt.NDArray[np.generic]:
    """Gather by `nearest_indices` of both axes; exact. With different scales `requantize` the result (or the input:
    the same).
    """
    return x[:, rows][:, :, columns]


def bilinear(values: FloatArray, rows: Taps, columns: Taps) -> FloatArray:
    """Four neighbours d, weights' products rounded first; per element, left to right, no fma:

    (low_x * low_y) * d[low_y, low_x] + (high_x * low_y) * d[low_y, high_x] + (low_x * high_y) * d[high_y, low_x] +
    (high_x * high_y) * d[high_y, high_x].
    """
    total: FloatArray | None = None
    for row in (0, 1):
        for column in (0, 1):
            weight = columns.weights[None, :, column] * rows.weights[:, None, row]
            neighbour = values[:, rows.positions[:, row]][:, :, columns.positions[:, column]]
            product = weight[:, :, None] * neighbour
            total = product if total is None else total + product
    assert total is not None
    return total


def separable(values: FloatArray, rows: Taps, columns: Taps) -> FloatArray:
    """The weighted sum of the sums along each row of taps, in order, from 0, no fma; taps of weight 0 are left out."""
    shape = (len(values), len(rows.weights), len(columns.weights), values.shape[3])
    total = np.zeros(shape, FLOAT)
    for row, row_weight in _columns(rows):
        line = np.zeros(shape, FLOAT)
        for column, weight in _columns(columns):
            term = values[:, row][:, :, column] * weight[:, None]
            line = np.where(weight[:, None] != 0, line + term, line)
        spread = row_weight[:, None, None]
        total = np.where(spread != 0, total + line * spread, total)
    return total


def _columns(taps: Taps) -> Sequence[tuple[IndexArray, FloatArray]]:
    return list(zip(taps.positions.T, taps.weights.T, strict=True))


def outside(rows: Taps, columns: Taps) -> npt.NDArray[np.bool_]:
    """Where a row or a column lies outside of the input, [height, width]."""
    nowhere = [~(taps.weights != 0).any(-1) for taps in (rows, columns)]
    return np.asarray(np.logical_or.outer(*nowhere))


def resize_linear(
    x: IntegerArray,
    x_scale: np.float32,
    x_zero_point: int,
    y_scale: np.float32,
    y_zero_point: int,
    rows: Taps,
    columns: Taps,
) -> IntegerArray:
    """`bilinear` between DequantizeLinear and QuantizeLinear (ONNX Runtime runs it in float, equal scales or not): bit
    for bit.

    The same in its NCHW and NHWC kernels, but it takes an NHWC resize of the width alone for an NCHW one, and may then
    differ by a step in the last row (42 of 188,479 elements). Arm's builds fuse and differ.
    """
    values = dequantize(byte_values(x.dtype), x_scale, x_zero_point)[np.ascontiguousarray(x).view(np.uint8)]
    return quantize(bilinear(values, rows, columns), y_scale, y_zero_point, x.dtype)
