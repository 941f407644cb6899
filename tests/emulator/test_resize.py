"""RESIZE against the NumPy functions, bit for bit, at every kernel level and in every data type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npu_backend.graph import CODES, FLOATS, NUMBERS, Quantization, Tensor
from npu_backend.isa_functions import ResizeFunction
from npu_backend.ops import numerics_core as core
from npu_backend.ops import numerics_resize as resize
from npu_backend.ops.elementwise import element_fields
from tests.emulator.scratchpad import Placed, Scratchpad
from tests.ops.case import draw

LEVELS = [pytest.param(1, id="portable"), pytest.param(2, id="avx2"), pytest.param(3, id="avx512")]
TYPES = (*CODES, *FLOATS, *NUMBERS)
FUNCTIONS = ("bilinear", "cubic", "antialias")
TRIALS = 6
OUTSIDE = 3.0

pytestmark = pytest.mark.parametrize("level", LEVELS)


def table(taps: resize.Taps) -> np.ndarray:
    return np.concatenate([taps.positions.astype(np.int32), taps.weights.view(np.int32)], 1).view(np.uint8)


def image(prefix: str, placed: Placed) -> dict[str, object]:
    (height, width, _), (row_bytes, column_bytes, _) = placed.shape, placed.strides
    return {prefix: placed.address, f"{prefix}_row_bytes": row_bytes, f"{prefix}_column_bytes": column_bytes,
            f"{prefix}_height": height, f"{prefix}_width": width}  # fmt: skip


def fields(source: Placed, output: Placed, tables: list[Placed], taps: tuple[resize.Taps, ...]) -> dict[str, object]:
    return {"name": "RESIZE", **image("input", source), **image("output", output), "channels": output.shape[2],
            "row_table": tables[0].address, "column_table": tables[1].address,
            "row_taps": taps[0].weights.shape[1], "column_taps": taps[1].weights.shape[1],
            "extrapolation": OUTSIDE}  # fmt: skip


def tensor(rng: np.random.Generator, dtype: str) -> Tensor:
    if dtype not in CODES:
        return Tensor("x", (), dtype)
    info = np.iinfo(dtype)
    scale = float(np.float32(np.exp(rng.uniform(-7, 1))))
    return Tensor("x", (), dtype, Quantization(scale, int(rng.integers(info.min, info.max + 1))))


def axis_taps(function: str, axis: resize.Axis) -> resize.Taps:
    if function == "bilinear":
        return resize.linear_taps(axis)
    if function == "cubic":
        return resize.cubic_taps(axis, -0.75, exclude_outside=axis.in_length % 2 == 0)
    return resize.antialias_taps(axis, "bilinear", -0.75, exclude_outside=False)


@pytest.mark.parametrize("output_dtype", TYPES)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("trial", range(TRIALS))
def test_interpolation_of_a_tile(level: int, trial: int, function: str, output_dtype: str) -> None:
    """Some of the rows, and of the input only what they need; a region of interest in part outside of the input."""
    rng = np.random.default_rng([trial, TYPES.index(output_dtype)])
    x, y = tensor(rng, TYPES[(trial + TYPES.index(output_dtype)) % len(TYPES)]), tensor(rng, output_dtype)
    height, width, channels, rows_out, columns_out = (int(rng.integers(1, n)) for n in (9, 9, 100, 20, 20))
    mode: Any = ("half_pixel", "align_corners", "tf_crop_and_resize")[trial % 3]
    values = draw(rng, (height, width, channels), x.dtype)
    taps = tuple(axis_taps(function, resize.Axis(before, after, mode, None, (-0.2, 0.9)))
                 for before, after in ((height, rows_out), (width, columns_out)))  # fmt: skip
    first, last = sorted(map(int, rng.integers(0, rows_out, 2)))
    part = resize.Taps(taps[0].positions[first : last + 1], taps[0].weights[first : last + 1])
    interpolate = resize.bilinear if function == "bilinear" and taps[0].weights.shape[1] == 2 else resize.separable
    with np.errstate(over="ignore"):
        real = interpolate(core.decode(values[None], x.quantization), part, taps[1])
        nowhere = resize.outside(part, taps[1])[:, :, None]
        expected = core.encode(np.where(nowhere, np.float32(OUTSIDE), real), y)[0]
    origin = int(part.positions.min())
    spm = Scratchpad(rng, 1 << 18)
    output = spm.place(np.zeros_like(expected))
    source = spm.place(values[origin : int(part.positions.max()) + 1])
    tables = [spm.place(table(part), gaps=False), spm.place(table(taps[1]), gaps=False)]
    code = ResizeFunction.BILINEAR if interpolate is resize.bilinear else ResizeFunction.SEPARABLE
    spm.check(level, output, expected, fields(source, output, tables, (part, taps[1])) | {
        "function": code, "input_row_origin": origin, **element_fields("input", x), **element_fields("output", y),
    })  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
def test_nearest(level: int, dtype: str) -> None:
    rng = np.random.default_rng(TYPES.index(dtype))
    x, (height, width) = tensor(rng, dtype), map(int, rng.integers(1, 20, 2))
    values = draw(rng, tuple(map(int, rng.integers(1, (9, 9, 100)))), dtype)
    taps = tuple(resize.nearest_taps(resize.Axis(length, size, "half_pixel"), "round_prefer_floor")
                 for length, size in zip(values.shape, (height, width), strict=False))  # fmt: skip
    expected: Any = resize.resize_nearest(values[None], taps[0].positions[:, 0], taps[1].positions[:, 0])[0]
    spm = Scratchpad(rng, 1 << 18)
    output, source = spm.place(np.zeros_like(expected)), spm.place(values)
    tables = [spm.place(table(each), gaps=False) for each in taps]
    spm.check(level, output, expected, fields(source, output, tables, taps) | {
        "function": ResizeFunction.NEAREST, **element_fields("input", x), **element_fields("output", x),
    })  # fmt: skip


def test_tables_are_clamped(level: int) -> None:
    rng = np.random.default_rng(0)
    values = draw(rng, (3, 4, 5), "uint8")
    wild = np.array([0, 2**32 - 1, 7, 5, 3, 2**31], np.uint32)
    taps = resize.Taps(wild.view(np.int32)[:, None], np.ones((len(wild), 1), np.float32))
    expected = values[np.clip(wild.astype(np.int64) - 4, 0, 2)][:, np.clip(wild, 0, 3)]
    spm = Scratchpad(rng)
    output, source = spm.place(np.zeros_like(expected)), spm.place(values)
    place = spm.place(table(taps), gaps=False)
    spm.check(level, output, expected, fields(source, output, [place, place], (taps, taps)) | {
        "function": ResizeFunction.NEAREST, "input_row_origin": 4, "input_scale": 1.0, "output_scale": 1.0,
    })  # fmt: skip
