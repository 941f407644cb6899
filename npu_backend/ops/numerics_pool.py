"""Maximum, average, norm and global average pooling. Layout [n,h,w,c]; pads (top, left, bottom, right)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from npu_backend.ops.numerics_core import (
    FLOAT,
    Array,
    DType,
    FloatArray,
    IntegerArray,
    byte_values,
    dequantize,
    from_unsigned,
    integer_range,
    round_saturate,
    to_unsigned,
    unsigned_zero_point,
)
from npu_backend.ops.numerics_lines import maximum

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
Window = tuple[int, int, int, int]


def output_length(length: int, kernel: int, stride: int, before: int, after: int, ceil_mode: bool = False) -> int:
    """Windows along one axis; in ceil mode a last window that would start in the trailing padding is left out."""
    span = length + before + after - kernel
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= length + before else count


def average_pool_table(x_scale: np.float32, x_zero_point: int, dtype: DType) -> FloatArray:
    """256 dequantised float32 values, indexed by raw byte, that `average_pool` sums."""
    return dequantize(byte_values(dtype), x_scale, x_zero_point)


def average_pool(
    x: IntegerArray,
    x_scale: np.float32,
    x_zero_point: int,
    kernel: Pair,
    y_scale: np.float32,
    y_zero_point: int,
    strides: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    count_include_pad: bool = False,
    ceil_mode: bool = False,
) -> IntegerArray:
    """QLinearAveragePool, bit for bit: a float32 sum of dequantised values, so the order matters.

    Per output element: sum = 0; for each row, for each column of the window inside the image: sum += table[byte]
    (`average_pool_table`); mean = sum / float32(count); y = rint(float32(mean / y_scale) + y_zp) in float32, then
    saturate. count is kernel height x width with count_include_pad, else the pixels inside the image. Scalar C++ on
    every machine.
    """
    values = average_pool_table(x_scale, x_zero_point, x.dtype)[np.ascontiguousarray(x).view(np.uint8)]
    y = np.empty(_pooled_shape(x, kernel, strides, pads, ceil_mode), x.dtype)
    for row, column, (top, bottom, left, right) in _windows(x, kernel, strides, pads, y.shape):
        total = np.zeros((x.shape[0], x.shape[3]), FLOAT)
        for in_row in range(top, bottom):
            for in_column in range(left, right):
                total = total + values[:, in_row, in_column, :]
        count = kernel[0] * kernel[1] if count_include_pad else (bottom - top) * (right - left)
        y[:, row, column, :] = _quantize_with_float_zero_point(total / FLOAT(count), y_scale, y_zero_point, x.dtype)
    return y


def average_pool_in_uint8(
    x: IntegerArray,
    x_scale: np.float32,
    x_zero_point: int,
    kernel: Pair,
    y_scale: np.float32,
    y_zero_point: int,
    strides: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    count_include_pad: bool = False,
    ceil_mode: bool = False,
) -> IntegerArray:
    """`average_pool` between QuantizeLinear -> DequantizeLinear pairs: int8 codes rewritten as uint8 (see
    `unsigned_zero_point`), whose zero point rounds otherwise.
    """
    codes, (x_zero, y_zero) = (
        to_unsigned(x),
        (unsigned_zero_point(zero, x.dtype) for zero in (x_zero_point, y_zero_point)),
    )
    pooled = average_pool(codes, x_scale, x_zero, kernel, y_scale, y_zero, strides, pads, count_include_pad, ceil_mode)
    return from_unsigned(pooled.view(np.uint8), x.dtype)


def global_average_multiplier(x_scale: np.float32, y_scale: np.float32, pixels: int) -> np.float32:
    """`x_scale / float32(y_scale * float32(pixels))`."""
    return FLOAT(FLOAT(x_scale) / (FLOAT(y_scale) * FLOAT(pixels)))


def global_average_pool(
    x: IntegerArray, x_scale: np.float32, x_zero_point: int, y_scale: np.float32, y_zero_point: int
) -> IntegerArray:
    """QLinearGlobalAveragePool, [n,h,w,c] to [n,1,1,c]: integer sum of `x - x_zp`, then as a convolution's
    requantisation.

    `saturate(rint(float32(sum) * multiplier) + y_zp)` with `global_average_multiplier`. Bit for bit on x86 in either
    layout; Arm uses a fixed-point multiplier with another rounding.
    """
    pixels = x.shape[1] * x.shape[2]
    sums = x.astype(np.int32).sum(axis=(1, 2), keepdims=True) - np.int32(x_zero_point * pixels)
    scaled = sums.astype(np.int32).astype(FLOAT) * global_average_multiplier(x_scale, y_scale, pixels)
    return round_saturate(scaled, y_zero_point, x.dtype)


def pool_elements(
    x: FloatArray, function: str, kernel: Pair, strides: Pair, pads: Pads, dilations: Pair, ceil_mode: bool
) -> FloatArray:
    """Any window reduction in float32, each sum row by row, tap by tap; as ONNX Runtime's float operators.

    ``average_window`` divides by the taps before the end of the padding: what hangs over in ceil mode never counts.
    """
    reach = _reach(kernel[0], dilations[0]), _reach(kernel[1], dilations[1])
    shape = _pooled_shape(x, reach, strides, pads, ceil_mode)
    first, step = (-np.inf, maximum) if function == "maximum" else (0.0, _SUMS.get(function, np.add))
    ends = [(shape[1 + axis] - 1) * strides[axis] + reach[axis] - pads[axis] for axis in range(2)]
    padding = [(pads[axis], max(0, ends[axis] - x.shape[1 + axis])) for axis in range(2)]
    padded = np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=first)
    result = np.full(shape, first, FLOAT)
    for tap in np.ndindex(*kernel):
        rows, columns = (_every(tap[axis] * dilations[axis], shape[1 + axis], strides[axis]) for axis in range(2))
        result = step(result, padded[:, rows, columns, :])
    if function in ("average_valid", "average_window"):
        counts = _counts(x.shape, shape, kernel, strides, pads, dilations, function == "average_window")
        result = result / counts[None, :, :, None]
    return np.asarray(np.sqrt(result) if function == "l2" else result)


def _every(start: int, count: int, stride: int) -> slice:
    return slice(start, start + (count - 1) * stride + 1, stride)


def _counts(
    x_shape: tuple[int, ...], y_shape: tuple[int, ...], kernel: Pair, strides: Pair, pads: Pads, dilations: Pair,
    padding_counts: bool,
) -> FloatArray:  # fmt: skip
    """Divisors of an average ``[oh, ow]``: taps inside the image, or also those in the padding."""
    taps = []
    for axis in range(2):
        starts = np.arange(y_shape[1 + axis])[:, None] * strides[axis] - pads[axis]
        positions = starts + np.arange(kernel[axis]) * dilations[axis]
        end = x_shape[1 + axis] + (pads[2 + axis] if padding_counts else 0)
        taps.append(((positions < end) & ((positions >= 0) | padding_counts)).sum(axis=1))
    return np.asarray(np.maximum(np.outer(*taps), 1), FLOAT)


def _reach(kernel: int, dilation: int) -> int:
    return (kernel - 1) * dilation + 1


_SUMS = {"l1": lambda total, tap: total + np.abs(tap), "l2": lambda total, tap: total + tap * tap}


def _quantize_with_float_zero_point(
    value: FloatArray, scale: np.float32, zero_point: int, dtype: DType
) -> IntegerArray:
    low, high = integer_range(dtype)
    rounded = np.rint(value / FLOAT(scale) + FLOAT(zero_point))
    return np.asarray(np.clip(rounded, low, high).astype(dtype))


def _pooled_shape(x: Array, kernel: Pair, strides: Pair, pads: Pads, ceil_mode: bool) -> tuple[int, int, int, int]:
    rows = output_length(x.shape[1], kernel[0], strides[0], pads[0], pads[2], ceil_mode)
    columns = output_length(x.shape[2], kernel[1], strides[1], pads[1], pads[3], ceil_mode)
    return x.shape[0], rows, columns, x.shape[3]


def _windows(
    x: IntegerArray, kernel: Pair, strides: Pair, pads: Pads, y_shape: tuple[int, ...]
) -> Iterator[tuple[int, int, Window]]:
    for row in range(y_shape[1]):
        top = row * strides[0] - pads[0]
        for column in range(y_shape[2]):
            left = column * strides[1] - pads[1]
            yield (
                row,
                column,
                (max(top, 0), min(top + kernel[0], x.shape[1]), max(left, 0), min(left + kernel[1], x.shape[2])),
            )
