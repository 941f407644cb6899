"""Convolution, transposed convolution, fully connected: int32 sums and their requantisation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npu_backend.ops.numerics_core import FLOAT, DType, FloatArray, IntegerArray, quantize, round_saturate

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
Scales = npt.ArrayLike


def output_multipliers(x_scale: np.float32, weight_scale: Scales, y_scale: np.float32) -> FloatArray:
    """Requantisation factor per output channel (or one): `float32(float32(x_scale * weight_scale) / y_scale)`, two
    roundings, in this order.
    """
    return FLOAT(x_scale) * np.atleast_1d(np.asarray(weight_scale, FLOAT)) / FLOAT(y_scale)


def requantize_sums(
    sums: npt.NDArray[np.int32], multipliers: FloatArray, y_zero_point: int, dtype: DType
) -> IntegerArray:
    """int32 sums (bias included, channel last) to 8 bits: `saturate(rint(float32(sum) * multiplier) + zero_point)`.

    `float32(sum)` rounds sums beyond 2**24 to even; then one float32 product, a clamp to [min - zp, max - zp], rint,
    an integer add.
    Measured on an AVX-512 VNNI machine.
    """
    return round_saturate(sums.astype(FLOAT) * multipliers, y_zero_point, dtype)


def activation_bounds(low: float, high: float, y_scale: np.float32, y_zero_point: int, dtype: DType) -> tuple[int, int]:
    """Quantised bounds of a Clip (ReLU: 0, inf) before a QuantizeLinear: quantising is monotone, so `Q(clip(v)) ==
    clip(Q(v), Q(low), Q(high))`.
    """
    bounds = quantize(np.array([low, high], FLOAT), y_scale, y_zero_point, dtype)
    return int(bounds[0]), int(bounds[1])


def conv_sums(
    x: IntegerArray,
    x_zero_point: int,
    weight: IntegerArray,
    weight_zero_point: npt.ArrayLike = 0,
    bias: npt.NDArray[np.int32] | None = None,
    strides: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilations: Pair = (1, 1),
    groups: int = 1,
) -> npt.NDArray[np.int32]:
    """int32 sums of a convolution.

    x [n,h,w,c]; weight [o,kh,kw,c/groups]; bias [o]; pads (top, left, bottom, right), padded with the zero point.
    Returns [n,oh,ow,o].
    """
    top, left, bottom, right = pads
    centred = np.pad(x.astype(np.float64) - x_zero_point, ((0, 0), (top, bottom), (left, right), (0, 0)))
    out_channels, kernel_h, kernel_w, group_channels = weight.shape
    kernel = weight.astype(np.float64) - np.reshape(np.asarray(weight_zero_point, np.float64), (-1, 1, 1, 1))
    out_h = (centred.shape[1] - dilations[0] * (kernel_h - 1) - 1) // strides[0] + 1
    out_w = (centred.shape[2] - dilations[1] * (kernel_w - 1) - 1) // strides[1] + 1
    sums = np.zeros((x.shape[0], out_h, out_w, groups, out_channels // groups), np.float64)
    grouped_kernel = kernel.reshape(groups, out_channels // groups, kernel_h, kernel_w, group_channels)
    for row in range(kernel_h):
        for column in range(kernel_w):
            rows = slice(row * dilations[0], row * dilations[0] + (out_h - 1) * strides[0] + 1, strides[0])
            columns = slice(column * dilations[1], column * dilations[1] + (out_w - 1) * strides[1] + 1, strides[1])
            tap = centred[:, rows, columns, :].reshape(-1, groups, group_channels)
            product = np.matmul(tap.transpose(1, 0, 2), grouped_kernel[:, :, row, column, :].transpose(0, 2, 1))
            # float64 holds every int32 sum exactly, and reaches BLAS.
            sums += product.transpose(1, 0, 2).reshape(sums.shape)
    return _with_bias(sums.reshape(x.shape[0], out_h, out_w, out_channels), bias)


def conv(
    x: IntegerArray,
    x_scale: np.float32,
    x_zero_point: int,
    weight: IntegerArray,
    weight_scale: Scales,
    bias: npt.NDArray[np.int32] | None,
    y_scale: np.float32,
    y_zero_point: int,
    dtype: DType,
    weight_zero_point: npt.ArrayLike = 0,
    strides: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    dilations: Pair = (1, 1),
    groups: int = 1,
    bounds: tuple[int, int] | None = None,
) -> IntegerArray:
    """Quantised convolution, as QLinearConv: bit for bit, dense, grouped and depthwise. Shapes as `conv_sums`, result
    [n,oh,ow,o].

    bounds: quantised clip (`activation_bounds`). ONNX Runtime keeps the integer kernel only if the clip does nothing
    (ReLU with the zero point at the type's minimum, a clip at or beyond the quantised range); otherwise, and for an
    int8 graph input that no QuantizeLinear precedes, it convolves in float and this is within one step (1 of 84,470
    elements differed).
    """
    sums = conv_sums(x, x_zero_point, weight, weight_zero_point, bias, strides, pads, dilations, groups)
    y = requantize_sums(sums, output_multipliers(x_scale, weight_scale, y_scale), y_zero_point, dtype)
    return y if bounds is None else np.clip(y, bounds[0], bounds[1]).astype(dtype)


def conv_transpose(
    x: IntegerArray,
    x_scale: np.float32,
    x_zero_point: int,
    weight: IntegerArray,
    weight_scale: Scales,
    bias: npt.NDArray[np.int32] | None,
    y_scale: np.float32,
    y_zero_point: int,
    dtype: DType,
    strides: Pair = (1, 1),
    pads: Pads = (0, 0, 0, 0),
    output_padding: Pair = (0, 0),
    dilations: Pair = (1, 1),
    groups: int = 1,
) -> IntegerArray:
    """Transposed convolution by integer sums, requantised as `conv`; x [n,h,w,c], weight [o,kh,kw,c/groups], symmetric
    weights.

    ONNX Runtime has no integer kernel and computes in float between DequantizeLinear and QuantizeLinear: within one
    step of it (8 of 174,638 elements differed). A convolution of the zero-stuffed input with the kernel turned by 180
    degrees.
    """
    batch, height, width, channels = x.shape
    _, kernel_h, kernel_w, _ = weight.shape
    stuffed = np.full(
        (batch, (height - 1) * strides[0] + 1, (width - 1) * strides[1] + 1, channels), x_zero_point, np.int32
    )
    stuffed[:, :: strides[0], :: strides[1], :] = x
    reach_h, reach_w = dilations[0] * (kernel_h - 1), dilations[1] * (kernel_w - 1)
    full = np.pad(
        stuffed,
        ((0, 0), (reach_h, reach_h + output_padding[0]), (reach_w, reach_w + output_padding[1]), (0, 0)),
        constant_values=x_zero_point,
    )
    top, left, bottom, right = pads
    cropped = full[:, top : full.shape[1] - bottom, left : full.shape[2] - right, :]
    sums = conv_sums(cropped, x_zero_point, weight[:, ::-1, ::-1, :], 0, bias, (1, 1), (0, 0, 0, 0), dilations, groups)
    return requantize_sums(sums, output_multipliers(x_scale, weight_scale, y_scale), y_zero_point, dtype)


def matmul(
    x: IntegerArray,
    x_scale: np.float32,
    x_zero_point: int,
    weight: IntegerArray,
    weight_scale: Scales,
    bias: npt.NDArray[np.int32] | None,
    y_scale: np.float32,
    y_zero_point: int,
    dtype: DType,
    weight_zero_point: npt.ArrayLike = 0,
) -> IntegerArray:
    """Fully connected: x [...,k] times weight [k,o] plus bias [o]. QGemm (Gemm) and QLinearMatMul (MatMul) both
    requantise as `conv`.
    """
    return requantize_sums(
        matmul_sums(x, x_zero_point, weight, weight_zero_point, bias),
        output_multipliers(x_scale, weight_scale, y_scale),
        y_zero_point,
        dtype,
    )


def matmul_sums(
    x: IntegerArray,
    x_zero_point: int,
    weight: IntegerArray,
    weight_zero_point: npt.ArrayLike = 0,
    bias: npt.NDArray[np.int32] | None = None,
) -> npt.NDArray[np.int32]:
    """int32 sums of x [...,k] times weight [k,o] plus bias [o]; the weight's zero point is one or per column."""
    return _with_bias(
        (x.astype(np.float64) - x_zero_point) @ (weight.astype(np.float64) - np.asarray(weight_zero_point, np.float64)),
        bias,
    )


def dequantize_sums(sums: npt.NDArray[np.int32], x_scale: np.float32, weight_scale: Scales) -> FloatArray:
    """Float output of a Gemm or MatMul that no QuantizeLinear follows: `float32(sum) * float32(x_scale *
    weight_scale)`.
    """
    return sums.astype(FLOAT) * (FLOAT(x_scale) * np.atleast_1d(np.asarray(weight_scale, FLOAT)))


def _with_bias(sums: npt.NDArray[np.float64], bias: npt.NDArray[np.int32] | None) -> npt.NDArray[np.int32]:
    exact = sums if bias is None else sums + bias.astype(np.float64)
    return exact.astype(np.int64).astype(np.int32)
