"""Reductions, normalisation and softmax along lines, in float32, in the emulator's order (``emulator/lines.h``).

A line is the elements along some axes, the first of them the slowest. Element i goes to partial result ``i % 16``,
each partial result takes its elements in turn, and then the upper half joins the lower until one is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from npu_backend.graph import Quantization
from npu_backend.ops import elementary
from npu_backend.ops.numerics_core import FLOAT, Array, FloatArray, decode
from npu_backend.ops.numerics_math import exp, log

PARTIALS = 16
# Functions of which a factor common to all elements is one of the result: it is applied once, to the result.
LINEAR = {"maximum", "minimum", "mean", "sum", "l1", "log_sum"}
REDUCTIONS = (*sorted(LINEAR), "product", "l2", "sum_square", "log_sum_exp")

Step = Callable[[FloatArray, FloatArray], FloatArray]


def maximum(a: FloatArray, b: FloatArray) -> FloatArray:
    """The larger; `b` where they do not compare."""
    return np.where(a > b, a, b)


def minimum(a: FloatArray, b: FloatArray) -> FloatArray:
    """The smaller; `b` where they do not compare."""
    return np.where(a < b, a, b)


def _add(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(a + b)


def _multiply(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(a * b)


_EXTREMES: dict[str, tuple[Step, float]] = {"maximum": (maximum, -np.inf), "minimum": (minimum, np.inf)}


def to_lines(x: FloatArray, axes: Sequence[int]) -> FloatArray:
    """``[..., elements of a line]``: `axes` moved to the end, in their order, and made one."""
    ends = range(-len(axes), 0)
    moved = np.moveaxis(x, axes, ends)
    kept = moved.shape[: moved.ndim - len(axes)]
    return moved.reshape(*kept, int(np.prod([x.shape[axis] for axis in axes])))


def from_lines(lines: FloatArray, shape: Sequence[int], axes: Sequence[int]) -> FloatArray:
    """The inverse of `to_lines`, for a tensor of `shape`."""
    kept = [extent for axis, extent in enumerate(shape) if axis not in axes]
    return np.moveaxis(lines.reshape(*kept, *(shape[axis] for axis in axes)), range(-len(axes), 0), axes)


def fold(lines: FloatArray, step: Step, first: float, join: Step | None = None) -> FloatArray:
    """One result for each line, ``[..., 1]``: `step` takes an element, `join` (else `step`) two partial results."""
    partials = np.full((*lines.shape[:-1], PARTIALS), first, FLOAT)
    for start in range(0, lines.shape[-1], PARTIALS):
        taken = lines[..., start : start + PARTIALS]
        count = taken.shape[-1]
        partials[..., :count] = step(partials[..., :count], taken)
    while partials.shape[-1] > 1:
        half = partials.shape[-1] // 2
        partials = (join or step)(partials[..., :half], partials[..., half:])
    return partials


def sums(lines: FloatArray) -> FloatArray:
    """The sum of every line, ``[..., 1]``."""
    return fold(lines, _add, 0)


def sums_of_squares(lines: FloatArray) -> FloatArray:
    """The sum of every line's squares, ``[..., 1]``."""
    return sums(lines * lines)


def reduce(x: Array, quantization: Quantization | None, function: str, axes: Sequence[int]) -> FloatArray:
    """A reduction of elements over `axes`, which keep extent 1, as float32; `function` is one of `REDUCTIONS`."""
    code, scale = quantization, FLOAT(1)
    if quantization is not None and function in LINEAR:
        code, scale = Quantization(1.0, quantization.zero_point), FLOAT(quantization.scale)
    lines = to_lines(decode(x, code), axes)
    with np.errstate(all="ignore"):
        result = _reduced(lines, function, scale)
    return result.reshape([1 if axis in axes else extent for axis, extent in enumerate(x.shape)])


def _reduced(lines: FloatArray, function: str, scale: np.float32) -> FloatArray:
    if function in _EXTREMES:
        return fold(lines, *_EXTREMES[function]) * scale
    if function == "product":
        return fold(lines, _multiply, 1)
    if function == "l1":
        return sums(np.abs(lines)) * scale
    if function in ("l2", "sum_square"):
        total = sums_of_squares(lines)
        return np.sqrt(total) if function == "l2" else total
    if function == "log_sum_exp":
        largest = fold(lines, *_EXTREMES["maximum"])
        return largest + log(sums(exp(lines - largest)))
    total = sums(lines) * scale
    return {"sum": total, "mean": total / FLOAT(lines.shape[-1]), "log_sum": log(total)}[function]


def arg_reduce(x: Array, quantization: Quantization | None, function: str, axis: int, select_last: bool) -> Array:
    """Index of the largest or smallest element along an axis, which keeps extent 1; 0 where none compares."""
    code = None if quantization is None else Quantization(1.0, quantization.zero_point)
    lines = to_lines(decode(x, code), (axis,))
    found = lines == fold(lines, *_EXTREMES[function])
    last = lines.shape[-1] - 1 - np.argmax(found[..., ::-1], axis=-1)
    index = np.where(found.any(axis=-1), last, 0) if select_last else np.argmax(found, axis=-1)
    return np.expand_dims(index, axis)


def normalize(x: FloatArray, axes: Sequence[int], epsilon: float, subtract_mean: bool) -> FloatArray:
    """``(x - mean) * (1 / sqrt(variance + epsilon))`` over `axes`; the variance is the mean square of what is left."""
    lines = to_lines(x, axes)
    length = FLOAT(lines.shape[-1])
    if subtract_mean:
        lines = lines - sums(lines) / length
    factor = FLOAT(1) / np.sqrt(sums_of_squares(lines) / length + FLOAT(epsilon))
    return from_lines(lines * factor, x.shape, axes)


def softmax(x: FloatArray, axis: int, logarithm: bool) -> FloatArray:
    """Softmax along an axis, or its logarithm."""
    lines = to_lines(x, (axis,))
    shifted = lines - fold(lines, *_EXTREMES["maximum"])
    exponentials = exp(shifted)
    total = sums(exponentials)
    return from_lines(shifted - log(total) if logarithm else exponentials * (FLOAT(1) / total), x.shape, (axis,))


def lrn(x: FloatArray, axis: int, size: int, alpha: float, beta: float, bias: float) -> FloatArray:
    """``x / (bias + alpha / size * s) ** beta``: s sums the squares of `size` elements around each, in turn."""
    lines = to_lines(x, (axis,))
    padding = [(0, 0)] * (lines.ndim - 1) + [((size - 1) // 2, size // 2)]
    squares = np.pad(lines * lines, padding)
    total = np.zeros_like(lines)
    for tap in range(size):
        total = total + squares[..., tap : tap + lines.shape[-1]]
    factor = FLOAT(alpha) / FLOAT(size)
    base = (FLOAT(bias) + factor * total).astype(np.float64)
    power = elementary.exp(-np.float64(FLOAT(beta)) * elementary.log(base))
    return from_lines(lines * power.astype(FLOAT), x.shape, (axis,))
