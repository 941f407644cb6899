"""Quantise, dequantise, requantise: the arithmetic all other quantised operators build on.

Every function works on integer arrays with explicit scales (`np.float32`) and zero points (int). All float arithmetic
is IEEE float32, one rounding per operation, ties to even, so C compiled with -ffp-contract=off repeats it bit for bit.
Where the reference fuses a multiply and an add, the docstring says `fma` and C has to call `fmaf`.

The reference is ONNX Runtime 1.32's default session (all optimisations) on x86 with AVX2 or later. What it runs for
DequantizeLinear -> operator -> QuantizeLinear, and how these modules hold to it on codes of 8 bits:

Bit for bit, its integer kernels: Conv, Gemm, MatMul, Add, Mul, Concat, AveragePool, GlobalAveragePool, Softmax,
Sigmoid, LeakyRelu; MaxPool, nearest Resize, Reshape, Transpose, Slice, Split, Squeeze where scale and zero point stay
the same. Bit for bit, its float kernels between DequantizeLinear and QuantizeLinear: the same movements, MaxPool and
nearest Resize with other scales (then `requantize`), Pad, bilinear Resize, Relu, Clip, Tanh, HardSigmoid, HardSwish,
Sub, Div, Max, Min, PRelu, and Add and Mul with a float constant.
Within one step: ConvTranspose, Conv or Gemm with an activation that clips inside the quantised range, and what sums in
an order of its own or calls functions of the C library: reductions, normalisations, LRN, the other functions of one
tensor; all float there.

Codes of 16 bits have no integer kernels there: within one step. Floats are float16 between operators, so within the
rounding of half precision. Movements, comparisons, logic, and arithmetic and casts between int32, int64 and bool are
exact; other functions take integers through float32, which holds them up to 2**24.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.graph import NUMBERS, Quantization, Tensor

Array = npt.NDArray[np.generic]
IntegerArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float32]
DType = npt.DTypeLike

FLOAT = np.float32


def integer_range(dtype: DType) -> tuple[int, int]:
    """Smallest and largest value of `dtype`."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def fma(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> FloatArray:
    """float32 `a * b + c` with a single rounding, as C's `fmaf`.

    The product of two float32 is exact in float64; the sum is rounded to odd there, which makes the final rounding to
    float32 correct (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    product = np.asarray(a, FLOAT).astype(np.float64) * np.asarray(b, FLOAT).astype(np.float64)
    addend = np.asarray(c, FLOAT).astype(np.float64)
    total = product + addend
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    even = (total.view(np.int64) & 1) == 0
    odd = np.where(even & (error != 0), np.nextafter(total, np.copysign(np.inf, error)), total)
    return np.asarray(odd.astype(FLOAT))


def saturate(value: Array, dtype: DType) -> IntegerArray:
    """Clip integers to the range of `dtype` and convert."""
    low, high = integer_range(dtype)
    return np.clip(value, low, high).astype(dtype)


def round_saturate(value: FloatArray, zero_point: int, dtype: DType) -> IntegerArray:
    """`saturate(rint(clamp(value)) + zero_point)`: clamp in float32 to [min - zp, max - zp], round half to even, add
    in integers. NaN becomes the lowest code.

    Clamping first keeps the conversion to int32 defined; it never changes the result.
    """
    low, high = integer_range(dtype)
    clamped = np.fmin(np.fmax(value, FLOAT(low - zero_point)), FLOAT(high - zero_point))
    return (np.rint(clamped).astype(np.int32) + np.int32(zero_point)).astype(dtype)


def quantize(x: FloatArray, scale: np.float32, zero_point: int, dtype: DType) -> IntegerArray:
    """QuantizeLinear: `round_saturate(x / scale)`. A true float32 division, not a product with the reciprocal."""
    with np.errstate(over="ignore"):
        return round_saturate(np.asarray(x, FLOAT) / FLOAT(scale), zero_point, dtype)


def dequantize(x: IntegerArray, scale: np.float32, zero_point: int) -> FloatArray:
    """DequantizeLinear: `float32(x - zero_point) * scale`; the difference is an exact int32."""
    return (x.astype(np.int32) - np.int32(zero_point)).astype(FLOAT) * FLOAT(scale)


def decode(values: npt.NDArray[Any], quantization: Quantization | None) -> FloatArray:
    """Elements of any data type as float32: codes dequantised, all others by their value (exact up to 2**24)."""
    if quantization is None:
        return values.astype(FLOAT)
    return dequantize(values, FLOAT(quantization.scale), quantization.zero_point)


def encode(values: npt.ArrayLike, tensor: Tensor) -> Array:
    """float32 values as the elements of `tensor`, rounded once.

    Codes as QuantizeLinear; float16 as `to_half`; plain integers towards zero and saturated, NaN as the lowest;
    booleans are true where the value is not 0. A float NaN becomes the positive quiet one.
    """
    real, dtype = np.asarray(values, FLOAT), np.dtype(tensor.dtype)
    with np.errstate(over="ignore"):
        if tensor.quantization is not None:
            return quantize(real, FLOAT(tensor.quantization.scale), tensor.quantization.zero_point, dtype)
        if dtype.kind in "iu":
            return _truncate(real, dtype)
        if dtype.kind == "b":
            return np.asarray(real != 0)
        return np.where(np.isnan(real), dtype.type(np.nan), to_half(real) if dtype == np.float16 else real)


def convert(values: npt.NDArray[Any], x: Tensor, y: Tensor) -> Array:
    """Elements of `x` as elements of `y`, through float32; plain integers to each other exactly, what does not fit
    wraps, as ONNX Runtime's Cast.
    """
    if x.dtype in NUMBERS and y.dtype in NUMBERS:
        return values.astype(y.dtype)
    return encode(decode(values, x.quantization), y)


def to_half(values: npt.ArrayLike) -> npt.NDArray[np.float16]:
    """float32 values as float16, to nearest even; finite ones beyond its range become the nearest end of it (65504).

    As NPUs convert: a float model may leave the range for an operator or two, or write "minus infinity" as the lowest
    float32 (attention masks do). True infinities would make NaN of the differences that a softmax takes.
    """
    given, largest = np.asarray(values, FLOAT), FLOAT(np.finfo(np.float16).max)
    return np.where(np.isfinite(given), np.clip(given, -largest, largest), given).astype(np.float16)


def _truncate(real: FloatArray, dtype: np.dtype[np.generic]) -> IntegerArray:
    low, high = integer_range(dtype)
    inside = (real >= FLOAT(low)) & (real < FLOAT(high + 1))
    return np.where(inside, np.where(inside, real, 0).astype(dtype), np.where(real > 0, high, low)).astype(dtype)


def byte_values(dtype: DType) -> IntegerArray:
    """The 256 values of an 8-bit `dtype` in the order of their raw bytes 0..255."""
    return np.arange(256, dtype=np.uint8).view(dtype)


def requantize_table(
    x_scale: np.float32, x_zero_point: int, y_scale: np.float32, y_zero_point: int, dtype: DType
) -> IntegerArray:
    """256 outputs of DequantizeLinear then QuantizeLinear, indexed by the raw input byte (`value & 0xff`).

    `rint(float32(x - x_zp) * x_scale / y_scale)`: multiply, round, divide, round. One multiplier `x_scale / y_scale`
    is NOT equal to it.
    """
    return quantize(dequantize(byte_values(dtype), x_scale, x_zero_point), y_scale, y_zero_point, dtype)


def apply_table(x: IntegerArray, table: IntegerArray) -> IntegerArray:
    """Replace every 8-bit element by `table[raw byte]`."""
    return np.asarray(table[np.ascontiguousarray(x).view(np.uint8).reshape(x.shape)])


def requantize(
    x: IntegerArray, x_scale: np.float32, x_zero_point: int, y_scale: np.float32, y_zero_point: int
) -> IntegerArray:
    """DequantizeLinear then QuantizeLinear of the same type; the reference runs just these two in float."""
    return apply_table(x, requantize_table(x_scale, x_zero_point, y_scale, y_zero_point, x.dtype))


def unsigned_zero_point(zero_point: int, dtype: DType) -> int:
    """Zero point after the int8 to uint8 rewrite (+128), unchanged for uint8.

    On x86 ONNX Runtime turns every int8 QuantizeLinear -> DequantizeLinear pair into uint8 with this zero point before
    it picks kernels. Add, multiply and average pool add the zero point in float32, so the rewrite can change their
    bits: a compiler must follow it. An int8 graph input that is dequantised without a QuantizeLinear before it is not
    rewritten.
    """
    return zero_point + 128 if np.dtype(dtype) == np.int8 else zero_point


def to_unsigned(x: IntegerArray) -> npt.NDArray[np.uint8]:
    """int8 as uint8 with 128 added (flips the top bit); uint8 unchanged."""
    if x.dtype == np.uint8:
        return x.view(np.uint8)
    return np.ascontiguousarray(x).view(np.uint8) ^ np.uint8(0x80)


def from_unsigned(x: npt.NDArray[np.uint8], dtype: DType) -> IntegerArray:
    """The inverse of `to_unsigned`: uint8 as codes of an 8-bit `dtype`."""
    return x if np.dtype(dtype) == np.uint8 else (np.ascontiguousarray(x) ^ np.uint8(0x80)).view(np.int8)
