"""Instructions on lines against the NumPy functions, bit for bit, at every level: any axes, strides and types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from npu_backend.graph import CODES, FLOATS, NUMBERS, Quantization, Tensor
from npu_backend.isa_functions import ReduceFunction, SoftmaxFunction
from npu_backend.ops import numerics_core as core
from npu_backend.ops import numerics_lines as lines
from npu_backend.ops import numerics_softmax
from npu_backend.ops.elementwise import element_fields
from tests.emulator.operands import LEVELS, draw_codes, draw_dtype, draw_order, draw_scale, draw_shape, draw_tensor
from tests.emulator.scratchpad import Placed, Scratchpad

TRIALS = 10
INPUTS = (*CODES, *FLOATS, *NUMBERS)
OUTPUTS = ("float32", "float16", "int8", "uint16", "int32")

pytestmark = pytest.mark.parametrize("level", LEVELS)


@dataclass(frozen=True)
class Operand:
    """Elements of rank 4, what they mean, and the axes of a line, the first the slowest."""

    values: np.ndarray
    tensor: Tensor
    axes: tuple[int, ...]

    @property
    def real(self) -> np.ndarray:
        """The elements as float32."""
        return core.decode(self.values, self.tensor.quantization)

    def fields(self, source: Placed, output: Placed, y: Tensor) -> dict[str, object]:
        """The fields that all instructions on lines have: axes in random places, those of a line in order."""
        rng = np.random.default_rng(self.values.size)
        kept = [axis for axis in range(4) if axis not in self.axes]
        places = sorted(rng.permutation(4)[: len(self.axes)])
        along, across = iter(self.axes), iter(kept)
        order = [next(along) if place in places else next(across) for place in range(4)]
        return {
            "input": source.address, "output": output.address,
            "counts": tuple(source.shape[axis] for axis in order),
            "input_strides": tuple(source.strides[axis] for axis in order),
            "output_strides": tuple(output.strides[axis] for axis in order),
            "line_axes": sum(1 << int(place) for place in places),
            **element_fields("input", self.tensor), **element_fields("output", y),
        }  # fmt: skip


def draw_operand(rng: np.random.Generator, dtype: str, limits: tuple[int, ...], axes: int | None = None) -> Operand:
    shape = draw_shape(rng, limits)
    count = int(rng.integers(0, 5)) if axes is None else axes
    chosen = tuple(map(int, rng.permutation(4)[:count]))
    if dtype.startswith("float"):
        values: Any = rng.normal(0, 3, shape).astype(dtype)
    elif dtype == "bool":
        values = rng.random(shape) < 0.5
    else:
        wide = dtype in ("int32", "int64")
        values = rng.integers(-99, 99, shape, dtype) if wide else draw_codes(rng, shape, np.dtype(dtype))
    return Operand(values, draw_tensor(rng, dtype), chosen)


def check(rng: np.random.Generator, level: int, x: Operand, expected: np.ndarray, y: Tensor, **more: object) -> None:
    """The instruction on the operand, both places in random storage orders."""
    spm = Scratchpad(rng, 1 << 18)
    output = spm.place(np.zeros(expected.shape, y.dtype), draw_order(rng, 4))
    source = spm.place(x.values, draw_order(rng, 4))
    spm.check(level, output, expected, x.fields(source, output, y) | more)


@pytest.mark.parametrize("function", ReduceFunction)
@pytest.mark.parametrize("trial", range(TRIALS))
def test_reduce(level: int, trial: int, function: ReduceFunction) -> None:
    rng = np.random.default_rng([trial, function])
    x = draw_operand(rng, INPUTS[(trial + function) % len(INPUTS)], (4, 5, 9, 60))
    y = draw_tensor(rng, OUTPUTS[trial % len(OUTPUTS)])
    real = lines.reduce(x.values, x.tensor.quantization, function.name.lower(), x.axes)
    with np.errstate(invalid="ignore"):
        check(rng, level, x, core.encode(real, y), y, name="REDUCE", function=function)


@pytest.mark.parametrize("function", [ReduceFunction.MEAN, ReduceFunction.LOG_SUM_EXP])
@pytest.mark.parametrize("axes", [(0,), (3,), (1, 3), (3, 0)])
def test_reduce_of_long_lines(level: int, function: ReduceFunction, axes: tuple[int, ...]) -> None:
    """Lines of several chunks, and many side by side."""
    rng = np.random.default_rng(function)
    for shape in ((1100, 1, 2, 21), (2, 1, 3, 9001)):
        values = rng.normal(0, 1, shape).astype(np.float16)
        x, y = Operand(values, Tensor("x", (), "float16"), axes), Tensor("y", (), "float32")
        expected = lines.reduce(values, None, function.name.lower(), axes)
        check(rng, level, x, expected, y, name="REDUCE", function=function)


def test_mean_of_codes_is_exact(level: int) -> None:
    """The integer sum, then one multiplication and one division."""
    rng = np.random.default_rng(0)
    x = draw_operand(rng, "uint8", (1, 40, 1, 1600), 2)
    code = x.tensor.quantization
    assert code is not None
    sums = x.values.astype(np.int64).sum(axis=x.axes, keepdims=True)
    count = x.values.size // sums.size
    expected = (sums - code.zero_point * count).astype(np.float32) * np.float32(code.scale) / np.float32(count)
    check(rng, level, x, expected, Tensor("y", (), "float32"), name="REDUCE", function=ReduceFunction.MEAN)


@pytest.mark.parametrize("function", [ReduceFunction.MAXIMUM, ReduceFunction.MINIMUM])
@pytest.mark.parametrize("dtype", INPUTS)
@pytest.mark.parametrize("select_last", [False, True])
def test_arg_reduce(level: int, dtype: str, function: ReduceFunction, select_last: bool) -> None:
    rng = np.random.default_rng([INPUTS.index(dtype), function, select_last])
    for output in ("int32", "int64"):
        x, y = draw_operand(rng, dtype, (4, 5, 9, 60), 1), Tensor("y", (), output)
        coarse = Operand(np.asarray(x.values // 9 if dtype != "bool" else x.values, dtype), x.tensor, x.axes)
        expected = lines.arg_reduce(coarse.values, x.tensor.quantization, function.name.lower(), x.axes[0], select_last)
        check(rng, level, coarse, expected.astype(output), y, name="ARGREDUCE", function=function,
              select_last=int(select_last))  # fmt: skip


@pytest.mark.parametrize("subtract_mean", [False, True])
@pytest.mark.parametrize("trial", range(2 * TRIALS))
def test_normalize(level: int, trial: int, subtract_mean: bool) -> None:
    rng = np.random.default_rng(trial)
    x, y = draw_operand(rng, INPUTS[trial % 6], (4, 5, 9, 60)), draw_tensor(rng, OUTPUTS[trial % len(OUTPUTS)])
    expected = core.encode(lines.normalize(x.real, x.axes, 1e-5, subtract_mean), y)
    check(rng, level, x, expected, y, name="NORMALIZE", epsilon=1e-5, subtract_mean=int(subtract_mean))


@pytest.mark.parametrize("size", [1, 2, 5, 8, 31])
@pytest.mark.parametrize("trial", range(TRIALS))
def test_lrn(level: int, trial: int, size: int) -> None:
    rng = np.random.default_rng(trial)
    x, y = draw_operand(rng, INPUTS[trial % 6], (4, 5, 9, 60), 1), draw_tensor(rng, OUTPUTS[trial % len(OUTPUTS)])
    expected = core.encode(lines.lrn(x.real, x.axes[0], size, 0.1, 0.75, 1.5), y)
    check(rng, level, x, expected, y, name="LRN", size=size, alpha=0.1, beta=0.75, bias=1.5)


@pytest.mark.parametrize("logarithm", [False, True])
@pytest.mark.parametrize("trial", range(2 * TRIALS))
def test_softmax(level: int, trial: int, logarithm: bool) -> None:
    rng = np.random.default_rng(trial)
    x, y = draw_operand(rng, INPUTS[trial % 6], (4, 5, 9, 60), 1), draw_tensor(rng, OUTPUTS[trial % len(OUTPUTS)])
    expected = core.encode(lines.softmax(x.real, x.axes[0], logarithm), y)
    function = SoftmaxFunction.LOGARITHM if logarithm else SoftmaxFunction.FLOAT
    check(rng, level, x, expected, y, name="SOFTMAX", function=function)


@pytest.mark.parametrize("trial", range(2 * TRIALS))
def test_softmax_by_table(level: int, trial: int) -> None:
    rng = np.random.default_rng(trial)
    dtype, shape, axis = draw_dtype(rng), draw_shape(rng, (2, 3, 9, 600)), int(rng.integers(4))
    values, x_scale = draw_codes(rng, shape, dtype), draw_scale(rng)
    y_scale = np.float32(1 / 256) if trial % 2 else np.float32(np.exp(rng.uniform(-7, 0)))
    y = Tensor("y", (), dtype.name, Quantization(float(y_scale), int(draw_codes(rng, (), dtype))))
    x = Operand(values, Tensor("x", (), dtype.name, Quantization(float(x_scale), 0)), (axis,))
    rows = np.moveaxis(values, axis, -1)
    assert y.quantization is not None
    expected = np.moveaxis(numerics_softmax.softmax(rows, x_scale, y_scale, y.quantization.zero_point), -1, axis)
    spm = Scratchpad(rng, 1 << 18)
    output, source = spm.place(np.zeros_like(values), draw_order(rng, 4)), spm.place(values, draw_order(rng, 4))
    table = spm.place(numerics_softmax.softmax_table(x_scale, shape[axis]), gaps=False)
    fields = x.fields(source, output, y) | {
        "name": "SOFTMAX", "function": SoftmaxFunction.TABLE, "table": table.address,
        "output_scale": numerics_softmax.softmax_output_scale(y_scale),
    }  # fmt: skip
    spm.check(level, output, expected, fields)
