"""What is in a TIR expression: its loads, its variables, and what it costs to evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npu_backend.kernels import KernelOperations
from tvm_ext import tir_api as api


def loads_in(expression: Any) -> Iterator[Any]:
    """Every load, those in the indices of others too."""
    if api.kind_of(expression) == "BufferLoad":
        yield expression
    for part in api.children(expression):
        yield from loads_in(part)


def variables_in(expression: Any) -> Iterator[Any]:
    """Every place where a variable is read."""
    if api.kind_of(expression) == "Var":
        yield expression
    for part in api.children(expression):
        yield from variables_in(part)


def operations_of(expression: Any) -> KernelOperations:
    """Those of one evaluation; affine indices are the loops' own."""
    kind = api.kind_of(expression)
    if kind in ("Var", "IntImm", "FloatImm", "StringImm"):
        return KernelOperations(0, 0, 0)
    if kind == "BufferLoad":
        own = KernelOperations(0, 0, _item_bytes(api.element_type(api.buffer_of(expression))))
        return sum((operations_of(i) for i in expression.indices if any(True for _ in loads_in(i))), own)
    size = _item_bytes(api.dtype_of(expression))
    is_float = api.dtype_of(expression).startswith("float")
    special = (kind == "Call" and api.is_special(expression)) or (kind in ("Div", "Mod") and is_float)
    own = KernelOperations(0, size, 0) if special else KernelOperations(size, 0, 0)
    return sum((operations_of(part) for part in api.children(expression)), own)


def _item_bytes(dtype: str) -> int:
    try:
        return int(np.dtype(dtype).itemsize)
    except TypeError:
        # A text that names something, or a handle.
        return 0
