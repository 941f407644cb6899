"""Products of two computed matrices: exact sums of codes, float32 sums of everything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.graph import Tensor
from npu_backend.ops.numerics_conv import output_multipliers
from npu_backend.ops.numerics_core import FLOAT, Array, FloatArray, IntegerArray, decode, encode, fma, round_saturate


def matmul(left: npt.NDArray[Any], a: Tensor, right: npt.NDArray[Any], b: Tensor, output: Tensor) -> Array:
    """`left` [..., m, k] times `right` [..., k, n] as elements of `output`; `a` and `b` say what the operands hold.

    Codes: the integer sum as ONNX Runtime's QLinearMatMul requantises it, `float32(sum) * multiplier`, or as it is
    (MatMulInteger) where the output is plain int32. All else: `float_sums` of the decoded elements.
    """
    if a.quantization is None or b.quantization is None:
        exact = a.dtype == b.dtype == "float16"
        return encode(float_sums(decode(left, a.quantization), decode(right, b.quantization), exact=exact), output)
    sums = code_sums(left, a.quantization.zero_point, right, b.quantization.zero_point)
    if output.dtype == "int32":
        return sums.astype(np.int32)
    code = output.quantization
    multiplier = output_multipliers(FLOAT(a.quantization.scale), b.quantization.scale, FLOAT(code.scale if code else 1))
    real = sums.astype(FLOAT) * multiplier
    return encode(real, output) if code is None else round_saturate(real, code.zero_point, np.dtype(output.dtype))


def code_sums(
    left: IntegerArray, left_zero_point: int, right: IntegerArray, right_zero_point: int
) -> npt.NDArray[np.int32] | npt.NDArray[np.int64]:
    """Exact sums of codes less their zero points: int32, which wraps, of 8-bit codes; int64 where one has 16 bits."""
    # float64 holds every sum of up to 2**19 products exactly, and reaches BLAS.
    exact = (left.astype(np.float64) - left_zero_point) @ (right.astype(np.float64) - right_zero_point)
    sums = exact.astype(np.int64)
    return sums.astype(np.int32) if left.itemsize == right.itemsize == 1 else sums


def float_sums(left: FloatArray, right: FloatArray, *, exact: bool = False) -> FloatArray:
    """float32 sums: one accumulator an output element, from zero, one `fma` a product in order of the inner axis.

    `exact`: the products are exact in float32, as those of float16 values are, so that they need not be fused.
    """
    shape = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    sums = np.zeros((*shape, left.shape[-2], right.shape[-1]), FLOAT)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(left.shape[-1]):
            column, row = left[..., :, k, None], right[..., k, None, :]
            sums = sums + column * row if exact else fma(column, row, sums)
    return sums
