"""The operators the NPU runs: importing this package registers every kind."""

from __future__ import annotations

from npu_backend.ops import (
    blocks,
    conv,
    conv_transpose,
    dense,
    elementwise,
    gather,
    matmul,
    pool,
    positions,
    reduce,
    resize,
    shape,
    softmax,
)
from npu_backend.ops.base import append_op, registered_ops, spec_of

__all__ = [
    "append_op", "blocks", "conv", "conv_transpose", "dense", "elementwise", "gather", "matmul", "pool", "positions",
    "reduce", "registered_ops", "resize", "shape", "softmax", "spec_of",
]  # fmt: skip
