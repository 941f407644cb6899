"""Convolution, transposed convolution, fully connected: sums of codes or of float16, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.isa import WEIGHT_CHUNK
from npu_backend.ops.numerics_core import FLOAT, DType, FloatArray, IntegerArray, quantize, round_saturate

Array = npt.NDArray[Any]

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
Scales = npt.ArrayLike


def output_multipliers(x_scale: np.float32, weight_scale: Scales, y_scale: np.float32) -> FloatArray:
    """Requantisation factor per output channel (or one): `float32(float32(x_scale * weight_scale) / y_scale)`, two
    roundings, in this order.
    """
    return FLOAT(x_scale) * np.atleast_1d(np.asarray(weight_scale, FLOAT)) / FLOAT(y_scale)


def requantize_sums(sums: Array, multipliers: FloatArray, y_zero_point: int, dtype: DType) -> IntegerArray:
    """Sums (bias included, channel last) to codes: `saturate(rint(float32(sum) * multiplier) + zero_point)`.

    `float32(sum)` rounds sums beyond 2**24 to even; then one float32 product, a clamp to [min - zp, max - zp], rint,
    an integer add.
    Measured on an AVX-512 VNNI machine.
    """
    return round_saturate(sums.astype(FLOAT) * multipliers, y_zero_point, dtype)


def dequantize_sums(sums: Array, multipliers: FloatArray, dtype: DType = FLOAT) -> Array:
    """Sums to a float type: `float32(sum) * multiplier`, with `output_multipliers` of y_scale 1 as ONNX Runtime's Gemm
    and MatMul that no QuantizeLinear follows.
    """
    with np.errstate(over="ignore"):
        return (sums.astype(FLOAT) * multipliers).astype(dtype)


def activation_bounds(low: float, high: float, y_scale: np.float32, y_zero_point: int, dtype: DType) -> tuple[int, int]:
    """Quantised bounds of a Clip (ReLU: 0, inf) before a QuantizeLinear: quantising is monotone, so `Q(clip(v)) ==
    clip(Q(v), Q(low), Q(high))`.
    """
    bounds = quantize(np.array([low, high], FLOAT), y_scale, y_zero_point, dtype)
    return int(bounds[0]), int(bounds[1])


def conv_sums(
    x: Array,
    x_zero_point: int,
    weight: Array,
    weight_zero_point: npt.ArrayLike = 0,
    bias: Array | None = None,
    strides: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilations: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Sums of a convolution, bias included: int32 of 8-bit codes, int64 of 16-bit ones, float32 of float16.

    x [n,h,w,c]; weight [o,kh,kw,c/groups]; bias [o]; pads (top, left, bottom, right), padded with the zero point.
    Returns [n,oh,ow,o].
    """
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=x_zero_point)
    out_channels, kernel_h, kernel_w, group_channels = weight.shape
    out_h = (padded.shape[1] - dilations[0] * (kernel_h - 1) - 1) // strides[0] + 1
    out_w = (padded.shape[2] - dilations[1] * (kernel_w - 1) - 1) // strides[1] + 1
    taps = []
    for row, column in np.ndindex(kernel_h, kernel_w):
        rows = slice(row * dilations[0], row * dilations[0] + (out_h - 1) * strides[0] + 1, strides[0])
        columns = slice(column * dilations[1], column * dilations[1] + (out_w - 1) * strides[1] + 1, strides[1])
        taps.append(padded[:, rows, columns, :].reshape(-1, groups, group_channels))
    kernel = weight.reshape(groups, out_channels // groups, kernel_h * kernel_w, group_channels)
    if x.dtype == np.float16:
        sums = _float_sums(taps, kernel)
    else:
        zero_points = np.broadcast_to(np.reshape(weight_zero_point, (-1,)), (out_channels,))
        sums = _code_sums(taps, x_zero_point, kernel, zero_points.reshape(groups, -1, 1, 1))
    return _with_bias(sums.reshape(x.shape[0], out_h, out_w, out_channels), bias, x.dtype)


def _code_sums(taps: Sequence[Array], x_zero_point: int, kernel: Array, weight_zero_points: Array) -> Array:
    """float64 ``[pixels, groups, outputs]``, which holds every sum of codes exactly, and reaches BLAS."""
    centred = kernel.astype(np.float64) - weight_zero_points
    sums = np.zeros((kernel.shape[0], len(taps[0]), kernel.shape[1]), np.float64)
    for index, tap in enumerate(taps):
        values = (tap.astype(np.float64) - x_zero_point).transpose(1, 0, 2)
        sums += np.matmul(values, centred[:, :, index].swapaxes(1, 2))
    return sums.transpose(1, 0, 2)


def _float_sums(taps: Sequence[Array], kernel: Array) -> Array:
    """float32 ``[pixels, groups, outputs]``: products added one by one over [chunk of channels][tap][channel].

    The product of two float16 is exact in float32, so it does not matter whether the addition is fused with it.
    """
    groups, outputs, _, channels = kernel.shape
    weight = kernel.astype(FLOAT)
    sums = np.zeros((len(taps[0]), groups, outputs), FLOAT)
    with np.errstate(over="ignore", invalid="ignore"):
        for chunk in range(0, channels, WEIGHT_CHUNK):
            for index, tap in enumerate(taps):
                for channel in range(chunk, min(chunk + WEIGHT_CHUNK, channels)):
                    sums += tap[:, :, channel, None].astype(FLOAT) * weight[:, :, index, channel]
    return sums


def conv_transpose_sums(
    x: Array,
    x_zero_point: int,
    weight: Array,
    bias: Array | None = None,
    strides: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    output_padding: Pair = (0, 0),
    dilations: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Sums of a transposed convolution, types as `conv_sums`; x [n,h,w,c], weight [o,kh,kw,c/groups], symmetric.

    ONNX Runtime has no integer kernel and computes in float between DequantizeLinear and QuantizeLinear: requantised
    sums are within one step of it (8 of 174,638 elements differed). A convolution of the zero-stuffed input with the
    kernel turned by 180 degrees.
    """
    batch, height, width, channels = x.shape
    _, kernel_h, kernel_w, _ = weight.shape
    shape = (batch, (height - 1) * strides[0] + 1, (width - 1) * strides[1] + 1, channels)
    stuffed = np.full(shape, x_zero_point, x.dtype)
    stuffed[:, :: strides[0], :: strides[1], :] = x
    reach_h, reach_w = dilations[0] * (kernel_h - 1), dilations[1] * (kernel_w - 1)
    full = np.pad(
        stuffed,
        ((0, 0), (reach_h, reach_h + output_padding[0]), (reach_w, reach_w + output_padding[1]), (0, 0)),
        constant_values=x_zero_point,
    )
    top, left, bottom, right = pads
    cropped = full[:, top : full.shape[1] - bottom, left : full.shape[2] - right, :]
    return conv_sums(cropped, x_zero_point, weight[:, ::-1, ::-1, :], 0, bias, dilations=dilations, groups=groups)


def matmul_sums(
    x: Array, x_zero_point: int, weight: Array, weight_zero_point: npt.ArrayLike = 0, bias: Array | None = None
) -> Array:
    """Sums of x [...,k] times weight [k,o] plus bias [o], types as `conv_sums`; the weight's zero point is one or per
    column. QGemm (Gemm) and QLinearMatMul (MatMul) both requantise them as a convolution's.
    """
    pixels = x.reshape(1, 1, -1, x.shape[-1])
    sums = conv_sums(pixels, x_zero_point, np.ascontiguousarray(weight.T)[:, None, None, :], weight_zero_point, bias)
    return sums.reshape(*x.shape[:-1], weight.shape[1])


def _with_bias(sums: Array, bias: Array | None, x_dtype: np.dtype[np.generic]) -> Array:
    """float sums as float32, those of codes as the integers they are; int32 wraps around."""
    total = sums if bias is None else sums + bias.astype(sums.dtype)
    if x_dtype == np.float16:
        return total
    return total.astype(np.int64) if x_dtype.itemsize == 2 else total.astype(np.int64).astype(np.int32)
