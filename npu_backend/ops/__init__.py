"""The operators the NPU runs: importing this package registers every kind."""

from __future__ import annotations

from npu_backend.ops import conv, conv_transpose, dense, elementwise, pool, reduce, resize, shape, softmax
from npu_backend.ops.base import append_op, registered_ops, spec_of

__all__ = [
    "append_op", "conv", "conv_transpose", "dense", "elementwise", "pool", "reduce", "registered_ops", "resize",
    "shape", "softmax", "spec_of",
]  # fmt: skip
