"""The vector engine's kernels against the NumPy functions, bit for bit, at every kernel level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npu_backend.isa import PoolFunction
from npu_backend.ops import numerics_pool as pool
from tests.emulator.operands import (
    LEVELS,
    TRIALS,
    TYPES,
    draw_codes,
    draw_dtype,
    draw_scale,
    draw_scales,
    draw_shape,
    draw_zero_point,
)
from tests.emulator.scratchpad import Placed, Scratchpad

Pair = tuple[int, int]

pytestmark = pytest.mark.parametrize("level", LEVELS)


def _image(prefix: str, placed: Placed) -> dict[str, object]:
    (height, width, _), (row_bytes, column_bytes, _) = placed.shape, placed.strides
    return {prefix: placed.address, f"{prefix}_row_bytes": row_bytes, f"{prefix}_column_bytes": column_bytes,
            f"{prefix}_height": height, f"{prefix}_width": width}  # fmt: skip


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
    dtype = draw_dtype(rng)
    kernel, strides = draw_shape(rng, (5, 5)), draw_shape(rng, (3, 3))
    pads: Any = tuple(int(rng.integers(0, kernel[axis % 2])) for axis in range(4))
    height, width, channels = draw_shape(rng, (8, 8, 150))
    values = draw_codes(rng, (height + kernel[0], width + kernel[1], channels), dtype)
    scales, zeros = draw_scales(rng, trial, 2), (draw_zero_point(rng, dtype), draw_zero_point(rng, dtype))
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
    kernel, dilation, pads = draw_shape(rng, (4, 4)), draw_shape(rng, (4, 4)), tuple(map(int, rng.integers(0, 9, 2)))
    values, outputs = draw_codes(rng, draw_shape(rng, (9, 9, 70)), np.dtype(np.uint8)), draw_shape(rng, (9, 9))
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


@pytest.mark.parametrize("trial", range(TRIALS))
def test_mean(level: int, trial: int) -> None:
    rng = np.random.default_rng(trial)
    dtype = draw_dtype(rng)
    values = draw_codes(rng, draw_shape(rng, (12, 12, 200)), dtype)
    scales, zeros = (draw_scale(rng), draw_scale(rng)), (draw_zero_point(rng, dtype), draw_zero_point(rng, dtype))
    expected = pool.global_average_pool(values[None], scales[0], zeros[0], scales[1], zeros[1])[0, 0, 0]
    spm = Scratchpad(rng)
    output, source = spm.place(np.zeros(expected.shape, dtype)), spm.place(values)
    fields = {"name": "MEAN", **_image("input", source), "channels": values.shape[2], "output": output.address,
              "input_type": TYPES[dtype], "output_type": TYPES[dtype], "input_zero_point": zeros[0],
              "output_zero_point": zeros[1], "input_scale": scales[0], "output_scale": scales[1]}  # fmt: skip
    spm.check(level, output, expected, fields)
