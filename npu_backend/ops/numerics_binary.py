"""Functions of two tensors: of values in float32, and of plain integers and booleans, exact in int64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.ops import elementary
from npu_backend.ops.numerics_core import FLOAT, FloatArray

Integers = npt.NDArray[np.int64]
# Of floats to floats and of int64 to int64; comparisons and logic make booleans.
Function = Callable[[Any, Any], Any]


def power(a: FloatArray, b: FloatArray) -> FloatArray:
    """C's pow in float64, rounded to float32."""
    return elementary.power(a.astype(np.float64), b.astype(np.float64)).astype(FLOAT)


def modulo(a: Any, b: Any) -> Any:
    """The remainder with the divisor's sign; of an integer by zero: 0."""
    rest = np.fmod(a, b)
    return np.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


def divide_integers(a: Integers, b: Integers) -> Integers:
    """The quotient towards zero; by zero: 0."""
    return (a - np.fmod(a, b)) // b


def power_of_integers(a: Integers, b: Integers) -> Integers:
    """a ** b, wrapped; a negative exponent leaves a fraction, 0, of everything but 1 and -1."""
    inverse = np.where(a == 1, 1, np.where(a == -1, 1 - 2 * (b & 1), 0))
    return np.where(b < 0, inverse, np.power(a, np.maximum(b, 0)))


COMPARISONS: dict[str, Function] = {
    "equal": np.equal,
    "greater": np.greater,
    "greater_or_equal": np.greater_equal,
    "less": np.less,
    "less_or_equal": np.less_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}
_COMMON: dict[str, Function] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "maximum": lambda a, b: np.where(a > b, a, b),
    "minimum": lambda a, b: np.where(a < b, a, b),
    "prelu": lambda a, b: np.where(a > 0, a, a * b),
    "modulo": modulo,
    "fmod": np.fmod,
    **COMPARISONS,
}
FLOAT_FUNCTIONS: dict[str, Function] = {**_COMMON, "divide": lambda a, b: a / b, "power": power}
INTEGER_FUNCTIONS: dict[str, Function] = {**_COMMON, "divide": divide_integers, "power": power_of_integers}


def in_float(function: str, a: FloatArray, b: FloatArray) -> FloatArray:
    """A key of FLOAT_FUNCTIONS on values; infinities and NaN as they come."""
    with np.errstate(all="ignore"):
        return np.asarray(FLOAT_FUNCTIONS[function](a, b), FLOAT)


def in_integers(function: str, a: npt.NDArray[Any], b: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A key of INTEGER_FUNCTIONS on int32, int64 or bool; what does not fit in `dtype` wraps."""
    with np.errstate(all="ignore"):
        return np.asarray(INTEGER_FUNCTIONS[function](a.astype(np.int64), b.astype(np.int64))).astype(dtype)
