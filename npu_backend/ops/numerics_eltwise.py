"""Sums and products of 8-bit codes, concatenation and padding with different scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from npu_backend.ops.numerics_core import (
    FLOAT,
    DType,
    FloatArray,
    IntegerArray,
    apply_table,
    fma,
    from_unsigned,
    integer_range,
    quantize,
    requantize_table,
    to_unsigned,
    unsigned_zero_point,
)


def add_constants(
    a_scale: np.float32,
    a_zero_point: int,
    b_scale: np.float32,
    b_zero_point: int,
    y_scale: np.float32,
    y_zero_point: int,
) -> tuple[np.float32, np.float32, np.float32]:
    """(a_ratio, b_ratio, offset): `a_scale / y_scale`, `b_scale / y_scale`, `y_zp - fma(a_ratio, a_zp, float32(b_ratio
    * b_zp))`.

    The one fma in the offset is the reference's compiler contracting its AVX2 build (checked: other contractions
    differ); its SSE2 and Arm builds round otherwise.
    """
    a_ratio, b_ratio = FLOAT(a_scale) / FLOAT(y_scale), FLOAT(b_scale) / FLOAT(y_scale)
    folded = fma(a_ratio, FLOAT(a_zero_point), b_ratio * FLOAT(b_zero_point))
    return a_ratio, b_ratio, FLOAT(FLOAT(y_zero_point) - folded)


def add(
    a: IntegerArray,
    a_scale: np.float32,
    a_zero_point: int,
    b: IntegerArray,
    b_scale: np.float32,
    b_zero_point: int,
    y_scale: np.float32,
    y_zero_point: int,
    dtype: DType,
) -> IntegerArray:
    """Quantised add of equal shapes (QLinearAdd): with `add_constants`, `saturate(rint(fma(a, a_ratio, fma(b, b_ratio,
    offset))))`.

    a and b are the raw values (zero points not subtracted) as float32; b's fma comes first. C must call `fmaf` twice:
    on x86 with AVX2 the vector body and the tail are the same instructions. x86 without AVX2 multiplies and adds
    separately (7 of 842,061 random elements differ), Arm uses fixed-point multipliers.
    """
    a_ratio, b_ratio, offset = add_constants(a_scale, a_zero_point, b_scale, b_zero_point, y_scale, y_zero_point)
    return saturate_rint(fma(a.astype(FLOAT), a_ratio, fma(b.astype(FLOAT), b_ratio, offset)), dtype)


def saturate_rint(value: FloatArray, dtype: DType) -> IntegerArray:
    """Round half to even, then saturate; the zero point is already in `value`."""
    low, high = integer_range(dtype)
    return np.clip(np.rint(value), low, high).astype(dtype)


def multiply_constant(a_scale: np.float32, b_scale: np.float32, y_scale: np.float32) -> np.float32:
    """`float32(float32(a_scale * b_scale) / y_scale)`."""
    return FLOAT(a_scale) * FLOAT(b_scale) / FLOAT(y_scale)


def multiply(
    a: IntegerArray,
    a_scale: np.float32,
    a_zero_point: int,
    b: IntegerArray,
    b_scale: np.float32,
    b_zero_point: int,
    y_scale: np.float32,
    y_zero_point: int,
    dtype: DType,
) -> IntegerArray:
    """Quantised multiply of equal shapes (QLinearMul): `saturate(rint(float32(float32(da * db) * ratio) + y_zp))`,
    separate roundings.

    da and db are the int32 differences from the zero points; ratio is `multiply_constant`. SSE2 code on every x86,
    body and tail alike.
    """
    product = (a.astype(np.int32) - a_zero_point) * (b.astype(np.int32) - b_zero_point)
    scaled = product.astype(FLOAT) * multiply_constant(a_scale, b_scale, y_scale)
    return saturate_rint(scaled + FLOAT(y_zero_point), dtype)


def in_uint8(
    function: Callable[..., IntegerArray],
    a: IntegerArray,
    a_scale: np.float32,
    a_zero_point: int,
    b: IntegerArray,
    b_scale: np.float32,
    b_zero_point: int,
    y_scale: np.float32,
    y_zero_point: int,
    dtype: DType,
) -> IntegerArray:
    """`add` or `multiply` between QuantizeLinear -> DequantizeLinear pairs: int8 codes rewritten as uint8 (see
    `unsigned_zero_point`), whose zero points round otherwise.
    """
    left = to_unsigned(a), a_scale, unsigned_zero_point(a_zero_point, a.dtype)
    right = to_unsigned(b), b_scale, unsigned_zero_point(b_zero_point, b.dtype)
    result = function(*left, *right, y_scale, unsigned_zero_point(y_zero_point, dtype), np.uint8)
    return from_unsigned(result.view(np.uint8), dtype)


def concat(
    parts: Sequence[IntegerArray],
    scales: Sequence[np.float32],
    zero_points: Sequence[int],
    y_scale: np.float32,
    y_zero_point: int,
    axis: int,
) -> IntegerArray:
    """QLinearConcat: every part through its `requantize_table`; a part with the output's scale and zero point is
    copied (the same values).
    """
    tables = [
        requantize_table(s, z, y_scale, y_zero_point, part.dtype)
        for part, s, z in zip(parts, scales, zero_points, strict=True)
    ]
    return np.concatenate([apply_table(part, table) for part, table in zip(parts, tables, strict=True)], axis=axis)


def pad(
    x: IntegerArray,
    widths: Sequence[tuple[int, int]],
    x_scale: np.float32,
    x_zero_point: int,
    y_scale: np.float32,
    y_zero_point: int,
    value: float = 0.0,
) -> IntegerArray:
    """Pad with the float constant `value` between DequantizeLinear and QuantizeLinear: requantised data around the
    quantised constant.

    A value of 0 is exactly y_zero_point. widths: (before, after) per axis. With equal scales the data is unchanged.
    """
    table = requantize_table(x_scale, x_zero_point, y_scale, y_zero_point, x.dtype)
    constant = quantize(np.array(value, FLOAT), y_scale, y_zero_point, x.dtype)
    return np.pad(apply_table(x, table), widths, constant_values=constant)
