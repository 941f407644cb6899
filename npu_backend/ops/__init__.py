"""The operators the NPU runs: importing this package registers every kind."""

from __future__ import annotations

from npu_backend.ops import (
    binary,
    blocks,
    conv,
    conv_transpose,
    conversion,
    dense,
    gather,
    kernel,
    matmul,
    normalize,
    pool,
    positions,
    reduce,
    reshape,
    resize,
    shape,
    softmax,
    unary,
)
from npu_backend.ops.base import append_op, registered_ops, spec_of

__all__ = [
    "append_op", "binary", "blocks", "conv", "conv_transpose", "conversion", "dense", "gather", "kernel", "matmul",
    "normalize", "pool", "positions", "reduce", "registered_ops", "reshape", "resize", "shape", "softmax", "spec_of",
    "unary",
]  # fmt: skip
