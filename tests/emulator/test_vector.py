"""The vector engine's kernels against the NumPy functions, bit for bit, at every kernel level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npu_backend.graph import Quantization, Tensor
from npu_backend.isa import BinaryFunction, DataType, PoolFunction, ResizeFunction
from npu_backend.ops import numerics_core as core
from npu_backend.ops import numerics_eltwise as eltwise
from npu_backend.ops import numerics_pool as pool
from npu_backend.ops import numerics_resize as resize
from npu_backend.ops import numerics_softmax as softmax
from npu_backend.ops.elementwise import element_fields
from tests.emulator.scratchpad import Placed, Scratchpad

LEVELS = [pytest.param(1, id="portable"), pytest.param(2, id="avx2"), pytest.param(3, id="avx512")]
TYPES = {np.dtype(np.uint8): DataType.UINT8, np.dtype(np.int8): DataType.INT8, np.dtype(np.int16): DataType.INT16}
TRIALS = 12

Pair = tuple[int, int]

pytestmark = pytest.mark.parametrize("level", LEVELS)


def _codes(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    info: Any = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def _dtype(rng: np.random.Generator) -> np.dtype[np.integer]:
    return np.dtype([np.uint8, np.int8][int(rng.integers(2))])


def _zero_point(rng: np.random.Generator, dtype: Any) -> int:
    return int(_codes(rng, (), dtype))


def _scale(rng: np.random.Generator) -> np.float32:
    return np.float32(np.exp(rng.uniform(-7, 1)))


def _scales(rng: np.random.Generator, trial: int, count: int) -> list[np.float32]:
    """Random ones, and in every other trial ones whose ratios bring ties, where each rounding shows."""
    if trial % 2:
        return [_scale(rng) for _ in range(count)]
    return [np.float32(0.02), np.float32(0.05), np.float32(0.1)][:count]


def _shape(rng: np.random.Generator, limits: tuple[int, ...]) -> Any:
    return tuple(int(rng.integers(1, limit + 1)) for limit in limits)


def _order(rng: np.random.Generator, rank: int) -> tuple[int, ...]:
    return tuple(map(int, rng.permutation(rank))) if rng.integers(2) else tuple(range(rank))


def _unary(name: str, source: Placed, output: Placed, **more: object) -> dict[str, object]:
    counts, input_strides = source.axes()
    return {"name": name, "counts": counts, "input": source.address, "input_strides": input_strides,
            "output": output.address, "output_strides": output.axes()[1], **more}  # fmt: skip


def _image(prefix: str, placed: Placed) -> dict[str, object]:
    (height, width, _), (row_bytes, column_bytes, _) = placed.shape, placed.strides
    return {prefix: placed.address, f"{prefix}_row_bytes": row_bytes, f"{prefix}_column_bytes": column_bytes,
            f"{prefix}_height": height, f"{prefix}_width": width}  # fmt: skip


@pytest.mark.parametrize("trial", range(TRIALS))
def test_table(level: int, trial: int) -> None:
    rng = np.random.default_rng(trial)
    values = _codes(rng, _shape(rng, (3, 5, 6, 200)), np.dtype(np.uint8))
    table = _codes(rng, (256,), np.dtype(np.uint8))
    spm = Scratchpad(rng)
    output, source = spm.place(np.zeros_like(values), _order(rng, 4)), spm.place(values, _order(rng, 4))
    place = spm.place(table)
    spm.check(level, output, table[values], _unary("TABLE", source, output, table=place.address))


@pytest.mark.parametrize("trial", range(TRIALS))
def test_table_in_place(level: int, trial: int) -> None:
    rng = np.random.default_rng(trial)
    values, table = _codes(rng, _shape(rng, (4, 9, 90)), np.dtype(np.uint8)), _codes(rng, (256,), np.dtype(np.uint8))
    spm = Scratchpad(rng)
    source, place = spm.place(values), spm.place(table)
    spm.check(level, source, table[values], _unary("TABLE", source, source, table=place.address))


def _broadcast(placed: Placed, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(
        0 if kept == 1 != extent else stride
        for stride, kept, extent in zip(placed.strides, placed.shape, shape, strict=True)
    )


@pytest.mark.parametrize("function", [f for f in BinaryFunction if f.name.startswith("FLOAT_")])
@pytest.mark.parametrize("trial", range(TRIALS))
def test_binary_in_float(level: int, trial: int, function: BinaryFunction) -> None:
    rng = np.random.default_rng(trial)
    shape, dtype = _shape(rng, (3, 5, 6, 150)), _dtype(rng)
    output_scale, output_zero = _scales(rng, trial, 1)[0], _zero_point(rng, dtype)
    spm = Scratchpad(rng, 1 << 17)
    output = spm.place(np.zeros(shape, dtype), _order(rng, 4))
    fields = {"name": "BINARY", "function": function, "counts": shape, "output": output.address,
              "output_strides": output.strides, "output_type": TYPES[dtype], "output_scale": output_scale,
              "output_zero_point": output_zero}  # fmt: skip
    reals = []
    for side in ("left", "right"):
        place, real, operand_fields = _operand(rng, spm, tuple(n if rng.integers(3) else 1 for n in shape), side)
        fields |= operand_fields | {f"{side}_strides": _broadcast(place, shape)}
        reals.append(np.broadcast_to(real, shape))
    name = function.name.removeprefix("FLOAT_").lower()
    spm.check(level, output, eltwise.in_float(name, *reals, output_scale, output_zero, dtype), fields)


def _operand(rng: np.random.Generator, spm: Scratchpad, shape: tuple[int, ...], side: str) -> Any:
    """An operand of codes, or of float32 with some infinities, zeros and NaN: its place, real values and fields."""
    if rng.integers(2):
        dtype, scale = _dtype(rng), _scale(rng)
        values, zero = _codes(rng, shape, dtype), _zero_point(rng, dtype)
        real, kind = core.dequantize(values, scale, zero), TYPES[dtype]
    else:
        values = rng.normal(0, 3, shape).astype(np.float32)
        values[rng.random(shape) < 0.1] = rng.choice(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-38], np.float32))
        real, kind, scale, zero = values, DataType.FLOAT32, np.float32(1), 0
    place = spm.place(values, _order(rng, 4))
    return place, real, {side: place.address, f"{side}_type": kind, f"{side}_zero_point": zero, f"{side}_scale": scale}


@pytest.mark.parametrize("function", [BinaryFunction.ADD, BinaryFunction.MULTIPLY])
@pytest.mark.parametrize("trial", range(2 * TRIALS))
def test_binary(level: int, trial: int, function: BinaryFunction) -> None:
    rng = np.random.default_rng(trial)
    shape, dtypes = _shape(rng, (3, 5, 6, 150)), (_dtype(rng), _dtype(rng), _dtype(rng))
    shapes = [shape if rng.integers(2) else tuple(n if rng.integers(2) else 1 for n in shape) for _ in range(2)]
    left, right = _codes(rng, shapes[0], dtypes[0]), _codes(rng, shapes[1], dtypes[1])
    scales, zeros = _scales(rng, trial, 3), [_zero_point(rng, dtype) for dtype in dtypes]
    apply = eltwise.add if function == BinaryFunction.ADD else eltwise.multiply
    a_full, b_full = np.broadcast_to(left, shape), np.broadcast_to(right, shape)
    expected = eltwise.in_uint8(
        apply, a_full, scales[0], zeros[0], b_full, scales[1], zeros[1], scales[2], zeros[2], dtypes[2]
    )
    spm = Scratchpad(rng)
    output = spm.place(np.zeros(shape, dtypes[2]), _order(rng, 4))
    a, b = spm.place(left, _order(rng, 4)), spm.place(right, _order(rng, 4))
    fields = {"name": "BINARY", "left": a.address, "right": b.address, "output": output.address, "function": function,
              "counts": shape, "left_strides": _broadcast(a, shape), "right_strides": _broadcast(b, shape),
              "output_strides": output.strides}  # fmt: skip
    for position, side in enumerate(("left", "right", "output")):
        fields |= {f"{side}_type": TYPES[dtypes[position]], f"{side}_zero_point": zeros[position],
                   f"{side}_scale": scales[position]}  # fmt: skip
    spm.check(level, output, expected, fields)


CONVERTED = ("uint8", "int8", "uint16", "int16", "float16", "float32", "int32", "int64", "bool")


def _tensor(rng: np.random.Generator, dtype: str) -> Tensor:
    """A tensor's description with a random quantisation where the type holds codes."""
    coded = np.dtype(dtype).itemsize <= 2 and np.dtype(dtype).kind in "iu"
    code = Quantization(float(_scale(rng)), _zero_point(rng, np.dtype(dtype))) if coded else None
    return Tensor("x", (), dtype, code)


def _elements(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Values of every size, ties of codes and of halves, and what no code or integer can hold."""
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype.startswith("float"):
        values = rng.normal(0, 1, shape) * 2.0 ** rng.integers(-30, 20, shape)
        values[rng.random(shape) < 0.2] = np.rint(rng.normal(0, 99, ())) + 0.5
        values[rng.random(shape) < 0.05] = rng.choice([np.inf, -np.inf, np.nan, 65519.99, 65520, -0.0, 2.0**-25])
        return values.astype(dtype)
    return (
        _codes(rng, shape, np.dtype(dtype)) if "8" in dtype or "16" in dtype else rng.integers(-999, 999, shape, dtype)
    )


@pytest.mark.parametrize("output_dtype", CONVERTED)
@pytest.mark.parametrize("input_dtype", CONVERTED)
def test_convert(level: int, input_dtype: str, output_dtype: str) -> None:
    rng = np.random.default_rng([CONVERTED.index(input_dtype), CONVERTED.index(output_dtype)])
    x, y, shape = _tensor(rng, input_dtype), _tensor(rng, output_dtype), _shape(rng, (2, 4, 5, 100))
    with np.errstate(over="ignore", invalid="ignore"):
        values = _elements(rng, shape, input_dtype)
        expected = core.encode(core.decode(values, x.quantization), y)
    spm = Scratchpad(rng)
    output = spm.place(np.zeros(shape, output_dtype), _order(rng, 4))
    source = spm.place(values, _order(rng, 4))
    fields = _unary("CONVERT", source, output, **element_fields("input", x), **element_fields("output", y))
    spm.check(level, output, expected, fields)


def test_every_half_survives(level: int) -> None:
    rng = np.random.default_rng(0)
    for first in range(0, 1 << 16, 4096):
        halves = np.arange(first, first + 4096, dtype=np.uint16).view(np.float16).reshape(16, 256)
        halves[np.isnan(halves)] = np.nan  # every other NaN loses its payload
        for dtype in ("float32", "float16"):
            spm = Scratchpad(rng)
            output, source = spm.place(np.zeros(halves.shape, dtype)), spm.place(halves)
            expected = core.encode(core.decode(halves, None), Tensor("y", (), dtype))
            x, y = (element_fields(*side) for side in (("input", Tensor("x", (), "float16")),
                                                       ("output", Tensor("y", (), dtype))))  # fmt: skip
            spm.check(level, output, expected, _unary("CONVERT", source, output, **x, **y))


def _pool_fields(source: Placed, output: Placed, kernel: Pair, strides: Pair, **more: object) -> dict[str, object]:
    code = TYPES[output.dtype]
    return {"name": "POOL", **_image("input", source), **_image("output", output), "input_channels": source.shape[2],
            "output_channels": output.shape[2], "kernel_height": kernel[0], "kernel_width": kernel[1],
            "stride_height": strides[0], "stride_width": strides[1], "dilation_height": 1, "dilation_width": 1,
            "input_type": code, "output_type": code, **more}  # fmt: skip


def _tile(
    rng: np.random.Generator, length: int, outputs: int, kernel: int, stride: int, pad: int
) -> tuple[slice, slice, int]:
    """Some output positions of an axis, the input positions they need, and the padding before the first."""
    first, last = sorted(int(position) for position in rng.integers(0, outputs, 2))
    start = min(max(first * stride - pad, 0), length - 1)
    stop = max(min(last * stride - pad + kernel, length), start + 1)
    return slice(first, last + 1), slice(start, stop), start - (first * stride - pad)


@pytest.mark.parametrize("function", PoolFunction)
@pytest.mark.parametrize("trial", range(2 * TRIALS))
def test_pool_of_a_tile(level: int, trial: int, function: PoolFunction) -> None:
    rng = np.random.default_rng(trial)
    dtype = _dtype(rng)
    kernel, strides = _shape(rng, (5, 5)), _shape(rng, (3, 3))
    pads: Any = tuple(int(rng.integers(0, kernel[axis % 2])) for axis in range(4))
    height, width, channels = _shape(rng, (8, 8, 150))
    values = _codes(rng, (height + kernel[0], width + kernel[1], channels), dtype)
    scales, zeros = _scales(rng, trial, 2), (_zero_point(rng, dtype), _zero_point(rng, dtype))
    if function == PoolFunction.MAXIMUM:
        whole = pool.max_pool(values[None], kernel, strides, pads)[0]
    else:
        whole = pool.average_pool_in_uint8(
            values[None], scales[0], zeros[0], kernel, scales[1], zeros[1], strides, pads,
            function == PoolFunction.AVERAGE_WINDOW,
        )[0]  # fmt: skip
    rows, columns = (_tile(rng, values.shape[axis], whole.shape[axis], kernel[axis], strides[axis], pads[axis])
                     for axis in range(2))  # fmt: skip
    expected = whole[rows[0], columns[0]]
    spm = Scratchpad(rng)
    output, source = spm.place(np.zeros_like(expected)), spm.place(values[rows[1], columns[1]])
    spm.check(level, output, expected, _pool_fields(
        source, output, kernel, strides, pad_top=rows[2], pad_left=columns[2], input_zero_point=zeros[0],
        output_zero_point=zeros[1], input_scale=scales[0], output_scale=scales[1], function=function))  # fmt: skip


@pytest.mark.parametrize("trial", range(TRIALS))
def test_pool_with_dilation(level: int, trial: int) -> None:
    rng = np.random.default_rng(trial)
    kernel, dilation, pads = _shape(rng, (4, 4)), _shape(rng, (4, 4)), tuple(map(int, rng.integers(0, 9, 2)))
    values, outputs = _codes(rng, _shape(rng, (9, 9, 70)), np.dtype(np.uint8)), _shape(rng, (9, 9))
    expected = np.zeros((*outputs, values.shape[2]), np.uint8)
    for position in np.ndindex(*outputs, *kernel):
        row, column = (position[a] - pads[a] + position[2 + a] * dilation[a] for a in range(2))
        if 0 <= row < values.shape[0] and 0 <= column < values.shape[1]:
            expected[position[:2]] = np.maximum(expected[position[:2]], values[row, column])
    spm = Scratchpad(rng)
    output, source = spm.place(np.zeros_like(expected)), spm.place(values)
    spm.check(level, output, expected, _pool_fields(
        source, output, kernel, (1, 1), pad_top=pads[0], pad_left=pads[1], function=PoolFunction.MAXIMUM,
        dilation_height=dilation[0], dilation_width=dilation[1]))  # fmt: skip


@pytest.mark.parametrize("float_mean", [0, 1])
@pytest.mark.parametrize("trial", range(TRIALS))
def test_mean(level: int, trial: int, float_mean: int) -> None:
    rng = np.random.default_rng(trial)
    dtype = _dtype(rng)
    values = _codes(rng, _shape(rng, (12, 12, 200)), dtype)
    scales, zeros = (_scale(rng), _scale(rng)), (_zero_point(rng, dtype), _zero_point(rng, dtype))
    mean = pool.reduce_mean if float_mean else pool.global_average_pool
    expected = mean(values[None], scales[0], zeros[0], scales[1], zeros[1])[0, 0, 0]
    spm = Scratchpad(rng)
    output, source = spm.place(np.zeros(expected.shape, dtype)), spm.place(values)
    fields = {"name": "MEAN", **_image("input", source), "channels": values.shape[2], "output": output.address,
              "input_type": TYPES[dtype], "output_type": TYPES[dtype], "input_zero_point": zeros[0],
              "output_zero_point": zeros[1], "input_scale": scales[0], "output_scale": scales[1],
              "float_mean": float_mean}  # fmt: skip
    spm.check(level, output, expected, fields)


def _taps_table(taps: resize.LinearTaps) -> np.ndarray:
    columns = [taps.low, taps.high, taps.low_weight.view(np.int32), taps.high_weight.view(np.int32)]
    return np.stack(columns, axis=1).astype(np.int32).view(np.uint8)


def _resize_fields(source: Placed, output: Placed, tables: list[Placed], origin: tuple[int, int]) -> dict[str, object]:
    return {"name": "RESIZE", **_image("input", source), **_image("output", output), "channels": output.shape[2],
            "row_table": tables[0].address, "column_table": tables[1].address, "input_row_origin": origin[0],
            "input_column_origin": origin[1]}  # fmt: skip


@pytest.mark.parametrize("mode", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("trial", range(TRIALS))
def test_resize_bilinear(level: int, trial: int, mode: resize.CoordinateMode) -> None:
    rng = np.random.default_rng(trial)
    dtype = _dtype(rng)
    values, (height, width) = _codes(rng, _shape(rng, (9, 9, 100)), dtype), _shape(rng, (20, 20))
    scales, zeros = (_scale(rng), _scale(rng)), (_zero_point(rng, dtype), _zero_point(rng, dtype))
    taps = resize.linear_taps(values.shape[0], height, mode), resize.linear_taps(values.shape[1], width, mode)
    expected = resize.resize_linear(values[None], scales[0], zeros[0], scales[1], zeros[1], *taps)[0]
    spm = Scratchpad(rng, 1 << 18)
    first, last = int(rng.integers(height)), int(rng.integers(height))
    rows = slice(min(first, last), max(first, last) + 1)
    origin = int(taps[0].low[rows].min())
    tile = values[origin : int(taps[0].high[rows].max()) + 1]
    output, source = spm.place(np.zeros_like(expected[rows])), spm.place(tile)
    tables = [spm.place(_taps_table(taps[0])[rows], gaps=False), spm.place(_taps_table(taps[1]), gaps=False)]
    fields = _resize_fields(source, output, tables, (origin, 0)) | {
        "function": ResizeFunction.BILINEAR, "data_type": TYPES[dtype], "input_scale": scales[0],
        "output_scale": scales[1], "input_zero_point": zeros[0], "output_zero_point": zeros[1],
    }  # fmt: skip
    spm.check(level, output, expected[rows], fields)


@pytest.mark.parametrize("trial", range(TRIALS))
def test_resize_nearest(level: int, trial: int) -> None:
    rng = np.random.default_rng(trial)
    dtype: Any = np.dtype([np.uint8, np.int8, np.int16][trial % 3])
    values, (height, width) = _codes(rng, _shape(rng, (9, 9, 100)), dtype), _shape(rng, (20, 20))
    indices = [resize.nearest_indices(length, size, "half_pixel", "round_prefer_floor")
               for length, size in zip(values.shape[:2], (height, width), strict=True)]  # fmt: skip
    expected = resize.resize_nearest(values[None], indices[0], indices[1])[0]
    spm = Scratchpad(rng, 1 << 18)
    output, source = spm.place(np.zeros_like(expected)), spm.place(values)
    ones = [np.ones(len(index), np.float32) for index in indices]
    tables = [spm.place(_taps_table(resize.LinearTaps(index, index, one, one)), gaps=False)
              for index, one in zip(indices, ones, strict=True)]  # fmt: skip
    fields = _resize_fields(source, output, tables, (0, 0)) | {"function": ResizeFunction.NEAREST,
                                                              "data_type": TYPES[dtype]}  # fmt: skip
    spm.check(level, output, expected, fields)


def test_resize_clamps_what_its_tables_say(level: int) -> None:
    rng = np.random.default_rng(0)
    values = _codes(rng, (3, 4, 5), np.dtype(np.uint8))
    wild = np.array([0, 2**32 - 1, 7, 5, 3, 2**31], np.uint32).view(np.int32)
    one = np.ones(len(wild), np.float32)
    spm = Scratchpad(rng)
    expected = values[np.clip(wild.view(np.uint32).astype(np.int64) - 4, 0, 2)][:, np.clip(wild.view(np.uint32), 0, 3)]
    output, source = spm.place(np.zeros_like(expected)), spm.place(values)
    table = spm.place(_taps_table(resize.LinearTaps(wild, wild, one, one)), gaps=False)
    fields = _resize_fields(source, output, [table, table], (4, 0)) | {"function": ResizeFunction.NEAREST}
    spm.check(level, output, expected, fields)


@pytest.mark.parametrize("trial", range(2 * TRIALS))
def test_softmax(level: int, trial: int) -> None:
    rng = np.random.default_rng(trial)
    dtype = _dtype(rng)
    values = _codes(rng, _shape(rng, (2, 3, 3, 600)), dtype)
    x_scale, zero_point = _scale(rng), _zero_point(rng, dtype)
    y_scale = np.float32(1 / 256) if trial % 2 else np.float32(np.exp(rng.uniform(-7, 0)))
    expected = softmax.softmax(values, x_scale, y_scale, zero_point)
    spm = Scratchpad(rng)
    output, source = spm.place(np.zeros_like(expected)), spm.place(values)
    table = spm.place(softmax.softmax_table(x_scale, values.shape[-1]), gaps=False)
    fields = {"name": "SOFTMAX", "input": source.address, "output": output.address, "counts": values.shape[:3],
              "length": values.shape[3], "input_strides": source.strides[:3], "output_strides": output.strides[:3],
              "table": table.address, "input_type": TYPES[dtype], "output_type": TYPES[dtype],
              "output_zero_point": zero_point, "output_scale": softmax.softmax_output_scale(y_scale)}  # fmt: skip
    spm.check(level, output, expected, fields)
