"""The element-wise kernels against the NumPy functions, bit for bit, at every kernel level."""

from __future__ import annotations

import numpy as np
import pytest

from npu_backend.graph import Tensor
from npu_backend.isa_functions import BinaryFunction, UnaryFunction
from npu_backend.ops import numerics_binary as binary
from npu_backend.ops import numerics_core as core
from npu_backend.ops import numerics_eltwise as eltwise
from npu_backend.ops import numerics_unary as unary
from npu_backend.ops.elementwise import element_fields
from tests.emulator.operands import (
    ALL_TYPES,
    LEVELS,
    TRIALS,
    TYPES,
    broadcast_strides,
    draw_codes,
    draw_dtype,
    draw_elements,
    draw_order,
    draw_scales,
    draw_shape,
    draw_tensor,
    draw_zero_point,
    one_input,
)
from tests.emulator.scratchpad import Placed, Scratchpad

pytestmark = pytest.mark.parametrize("level", LEVELS)


@pytest.mark.parametrize("trial", range(TRIALS))
def test_table(level: int, trial: int) -> None:
    rng = np.random.default_rng(trial)
    values = draw_codes(rng, draw_shape(rng, (3, 5, 6, 200)), np.dtype(np.uint8))
    table = draw_codes(rng, (256,), np.dtype(np.uint8))
    spm = Scratchpad(rng)
    output, source = spm.place(np.zeros_like(values), draw_order(rng, 4)), spm.place(values, draw_order(rng, 4))
    place = spm.place(table)
    spm.check(level, output, table[values], one_input("TABLE", source, output, table=place.address))


@pytest.mark.parametrize("trial", range(TRIALS))
def test_table_in_place(level: int, trial: int) -> None:
    rng = np.random.default_rng(trial)
    values, table = (
        draw_codes(rng, draw_shape(rng, (4, 9, 90)), np.dtype(np.uint8)),
        draw_codes(rng, (256,), np.dtype(np.uint8)),
    )
    spm = Scratchpad(rng)
    source, place = spm.place(values), spm.place(table)
    spm.check(level, source, table[values], one_input("TABLE", source, source, table=place.address))


@pytest.mark.parametrize("function", [BinaryFunction.ADD_CODES, BinaryFunction.MULTIPLY_CODES])
@pytest.mark.parametrize("trial", range(2 * TRIALS))
def test_binary_on_codes(level: int, trial: int, function: BinaryFunction) -> None:
    rng = np.random.default_rng(trial)
    shape, dtypes = draw_shape(rng, (3, 5, 6, 150)), (draw_dtype(rng), draw_dtype(rng), draw_dtype(rng))
    shapes = [shape if rng.integers(2) else tuple(n if rng.integers(2) else 1 for n in shape) for _ in range(2)]
    left, right = draw_codes(rng, shapes[0], dtypes[0]), draw_codes(rng, shapes[1], dtypes[1])
    scales, zeros = draw_scales(rng, trial, 3), [draw_zero_point(rng, dtype) for dtype in dtypes]
    apply = eltwise.add if function == BinaryFunction.ADD_CODES else eltwise.multiply
    a_full, b_full = np.broadcast_to(left, shape), np.broadcast_to(right, shape)
    expected = eltwise.in_uint8(
        apply, a_full, scales[0], zeros[0], b_full, scales[1], zeros[1], scales[2], zeros[2], dtypes[2]
    )
    spm = Scratchpad(rng)
    output = spm.place(np.zeros(shape, dtypes[2]), draw_order(rng, 4))
    a, b = spm.place(left, draw_order(rng, 4)), spm.place(right, draw_order(rng, 4))
    fields = {"name": "BINARY", "left": a.address, "right": b.address, "output": output.address, "function": function,
              "counts": shape, "left_strides": broadcast_strides(a, shape),
              "right_strides": broadcast_strides(b, shape), "output_strides": output.strides}  # fmt: skip
    for position, side in enumerate(("left", "right", "output")):
        fields |= {f"{side}_type": TYPES[dtypes[position]], f"{side}_zero_point": zeros[position],
                   f"{side}_scale": scales[position]}  # fmt: skip
    spm.check(level, output, expected, fields)


INTEGERS = ("int32", "int64", "bool")
ON_VALUES = [function for function in BinaryFunction if function > BinaryFunction.MULTIPLY_CODES]


def _side(name: str, place: Placed, tensor: Tensor, shape: tuple[int, ...]) -> dict[str, object]:
    return {name: place.address, f"{name}_strides": broadcast_strides(place, shape), **element_fields(name, tensor)}


def _parts(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with some extents of 1."""
    return tuple(extent if rng.integers(3) else 1 for extent in shape)


def _binary(level: int, rng: np.random.Generator, function: BinaryFunction, dtypes: list[str]) -> None:
    shape, name = draw_shape(rng, (3, 5, 6, 150)), function.name.lower()
    left, right, output = (draw_tensor(rng, dtype) for dtype in dtypes)
    a, b = (draw_elements(rng, _parts(rng, shape), tensor.dtype) for tensor in (left, right))
    if all(dtype in INTEGERS for dtype in dtypes):
        result = binary.in_integers(name, a, b, output.dtype)
    else:
        result = core.encode(binary.in_float(name, core.decode(a, left.quantization),
                                             core.decode(b, right.quantization)), output)  # fmt: skip
    spm = Scratchpad(rng, 1 << 19)
    place = spm.place(np.zeros(shape, output.dtype), draw_order(rng, 4))
    fields = {"name": "BINARY", "function": function, "counts": shape, **_side("output", place, output, shape)}
    fields |= _side("left", spm.place(a, draw_order(rng, 4)), left, shape)
    fields |= _side("right", spm.place(b, draw_order(rng, 4)), right, shape)
    spm.check(level, place, np.broadcast_to(result, shape), fields)


@pytest.mark.parametrize("function", ON_VALUES, ids=lambda function: function.name)
def test_binary_of_any_types(level: int, function: BinaryFunction) -> None:
    rng = np.random.default_rng(function)
    _binary(level, rng, function, ["float16"] * 3)
    for _ in range(TRIALS):
        _binary(level, rng, function, list(rng.choice(ALL_TYPES, 3)))


@pytest.mark.parametrize("function", ON_VALUES, ids=lambda function: function.name)
def test_binary_of_integers(level: int, function: BinaryFunction) -> None:
    rng = np.random.default_rng(function)
    for _ in range(TRIALS):
        _binary(level, rng, function, list(rng.choice(INTEGERS, 3)))


def test_integers_beyond_float32(level: int) -> None:
    rng, names = np.random.default_rng(0), ("add", "subtract", "multiply", "divide", "modulo", "fmod", "power", "less")
    extremes = np.array([0, 1, -1, 2**24 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 7], np.int64)
    a, b, wide = np.repeat(extremes, 8), np.tile(extremes, 8), Tensor("x", (), "int64")
    for name in names:
        spm, function = Scratchpad(rng), BinaryFunction[name.upper()]
        output, left, right = (
            spm.place(np.zeros((1, 1, 1, 64), np.int64)),
            *(spm.place(v.reshape(1, 1, 1, 64)) for v in (a, b)),
        )
        fields = {"name": "BINARY", "function": function, "counts": output.shape}
        for side, place in (("output", output), ("left", left), ("right", right)):
            fields |= _side(side, place, wide, output.shape)
        spm.check(level, output, binary.in_integers(name, a, b, np.int64).reshape(output.shape), fields)


@pytest.mark.parametrize("trial", range(2 * TRIALS))
def test_select(level: int, trial: int) -> None:
    rng = np.random.default_rng(trial)
    shape = draw_shape(rng, (3, 5, 6, 150))
    left, right, output = (draw_tensor(rng, dtype) for dtype in rng.choice(ALL_TYPES, 3))
    if trial % 3:
        left = right = output
    condition = rng.random(_parts(rng, shape)) < 0.5
    a, b = (draw_elements(rng, _parts(rng, shape), tensor.dtype) for tensor in (left, right))
    if left is right:
        result = np.where(condition, a, b)
    else:
        values = (core.decode(value, tensor.quantization) for value, tensor in ((a, left), (b, right)))
        result = core.encode(np.where(condition, *values), output)
    spm = Scratchpad(rng, 1 << 19)
    place, mask = spm.place(np.zeros(shape, output.dtype), draw_order(rng, 4)), spm.place(condition, draw_order(rng, 4))
    fields = {"name": "SELECT", "counts": shape, "condition": mask.address,
              "condition_strides": broadcast_strides(mask, shape), **_side("output", place, output, shape)}  # fmt: skip
    fields |= _side("left", spm.place(a, draw_order(rng, 4)), left, shape)
    fields |= _side("right", spm.place(b, draw_order(rng, 4)), right, shape)
    spm.check(level, place, np.broadcast_to(result, shape), fields)


PARAMETERS = {"clip": (-0.4, 1.3), "power": (0.7,), "elu": (0.7,), "celu": (1.3,)}


def _unary(level: int, rng: np.random.Generator, name: str, x: Tensor, y: Tensor, values: np.ndarray) -> None:
    parameters = unary.parameters_of(name, PARAMETERS.get(name, ()))
    expected = core.encode(unary.evaluate(name, core.decode(values, x.quantization), parameters), y)
    alpha, beta = (*parameters, 0, 0)[:2]
    spm = Scratchpad(rng, 1 << 19)
    output, source = (
        spm.place(np.zeros(values.shape, y.dtype), draw_order(rng, 4)),
        spm.place(values, draw_order(rng, 4)),
    )
    fields = one_input("UNARY", source, output, **element_fields("input", x), **element_fields("output", y))
    fields |= {"function": UnaryFunction[name.upper()], "alpha": alpha, "beta": beta}
    spm.check(level, output, expected, fields)


@pytest.mark.parametrize("name", unary.FUNCTIONS)
def test_unary_of_any_types(level: int, name: str) -> None:
    rng = np.random.default_rng(UnaryFunction[name.upper()])
    for _ in range(TRIALS):
        x, y = (draw_tensor(rng, dtype) for dtype in rng.choice(ALL_TYPES, 2))
        _unary(level, rng, name, x, y, draw_elements(rng, draw_shape(rng, (2, 4, 5, 150)), x.dtype))


@pytest.mark.parametrize("name", unary.FUNCTIONS)
def test_unary_of_every_half(level: int, name: str) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, 1, 256, 256)
    _unary(level, np.random.default_rng(0), name, Tensor("x", (), "float16"), Tensor("y", (), "float32"), halves)


@pytest.mark.parametrize("exponent", [2.0, 3.0, -1.0, 0.0, 0.5])
def test_powers(level: int, exponent: float) -> None:
    rng, x = np.random.default_rng(0), Tensor("x", (), "float32")
    values = draw_elements(rng, (1, 3, 50, 70), "float32")
    spm = Scratchpad(rng, 1 << 18)
    output, source = spm.place(np.zeros_like(values)), spm.place(values)
    fields = one_input("UNARY", source, output, **element_fields("input", x), **element_fields("output", x))
    fields |= {"function": UnaryFunction.POWER, "alpha": exponent}
    spm.check(level, output, core.encode(unary.evaluate("power", values, (exponent,)), x), fields)


def draw_integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Of every size, most of them more than float32 can hold."""
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype) >> rng.integers(0, info.bits, shape, dtype)


@pytest.mark.parametrize("output_dtype", ALL_TYPES)
@pytest.mark.parametrize("input_dtype", ALL_TYPES)
def test_convert(level: int, input_dtype: str, output_dtype: str) -> None:
    rng = np.random.default_rng([ALL_TYPES.index(input_dtype), ALL_TYPES.index(output_dtype)])
    x, y, shape = draw_tensor(rng, input_dtype), draw_tensor(rng, output_dtype), draw_shape(rng, (2, 4, 5, 100))
    with np.errstate(over="ignore", invalid="ignore"):
        wide = input_dtype in ("int32", "int64")
        values = draw_integers(rng, shape, input_dtype) if wide else draw_elements(rng, shape, input_dtype)
        expected = core.convert(values, x, y)
    spm = Scratchpad(rng)
    output = spm.place(np.zeros(shape, output_dtype), draw_order(rng, 4))
    source = spm.place(values, draw_order(rng, 4))
    fields = one_input("CONVERT", source, output, **element_fields("input", x), **element_fields("output", y))
    spm.check(level, output, expected, fields)


def test_every_half_survives(level: int) -> None:
    rng = np.random.default_rng(0)
    for first in range(0, 1 << 16, 4096):
        halves = np.arange(first, first + 4096, dtype=np.uint16).view(np.float16).reshape(16, 256)
        for dtype in ("float32", "float16"):
            spm = Scratchpad(rng)
            output, source = spm.place(np.zeros(halves.shape, dtype)), spm.place(halves)
            expected = core.encode(core.decode(halves, None), Tensor("y", (), dtype))
            x, y = (element_fields(*side) for side in (("input", Tensor("x", (), "float16")),
                                                       ("output", Tensor("y", (), dtype))))  # fmt: skip
            spm.check(level, output, expected, one_input("CONVERT", source, output, **x, **y))
