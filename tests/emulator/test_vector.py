"""The vector engine's kernels against the NumPy functions, bit for bit, at every kernel level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npu_backend.isa_functions import PoolFunction
from npu_backend.ops import numerics_core as core
from npu_backend.ops import numerics_pool as pool
from npu_backend.ops.elementwise import element_fields
from tests.emulator.operands import (
    ALL_TYPES,
    LEVELS,
    TRIALS,
    TYPES,
    draw_codes,
    draw_dtype,
    draw_elements,
    draw_scale,
    draw_scales,
    draw_shape,
    draw_tensor,
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
            "input_type": code, "output_type": code, "input_scale": 1.0, "output_scale": 1.0,
            "counted_height": 1 << 30, "counted_width": 1 << 30, **more}  # fmt: skip


def _tile(
    rng: np.random.Generator, length: int, outputs: int, kernel: int, stride: int, pad: int
) -> tuple[slice, slice, int]:
    """Some output positions of an axis, the input positions they need, and the padding before the first."""
    first, last = sorted(int(position) for position in rng.integers(0, outputs, 2))
    start = min(max(first * stride - pad, 0), length - 1)
    stop = max(min(last * stride - pad + kernel, length), start + 1)
    return slice(first, last + 1), slice(start, stop), start - (first * stride - pad)


@pytest.mark.parametrize("function", list(PoolFunction)[:3])
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
        scales, zeros = [scales[0], scales[0]], (zeros[0], zeros[0])
        real = values[None].astype(np.float32)
        whole = pool.pool_elements(real, "maximum", kernel, strides, pads, (1, 1), False)[0].astype(dtype)
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


@pytest.mark.parametrize("function", PoolFunction)
@pytest.mark.parametrize("trial", range(TRIALS))
def test_pool_of_elements(level: int, trial: int, function: PoolFunction) -> None:
    """Any types, dilations, and windows that hang over the padding."""
    rng = np.random.default_rng([trial, function])
    x, y = (draw_tensor(rng, ALL_TYPES[(trial * step + function) % len(ALL_TYPES)]) for step in (1, 4))
    kernel, strides, dilations = draw_shape(rng, (4, 4)), draw_shape(rng, (3, 3)), draw_shape(rng, (3, 3))
    if x.dtype == y.dtype and x.itemsize == 1:
        dilations = (2, 3)  # else ONNX Runtime's integer kernel
    pads: Any = tuple(int(rng.integers(0, kernel[axis % 2])) for axis in range(4))
    reach = [(kernel[axis] - 1) * dilations[axis] for axis in range(2)]
    shape = (int(rng.integers(1, 8)) + reach[0], int(rng.integers(1, 8)) + reach[1], int(rng.integers(1, 150)))
    values = np.asarray(draw_elements(rng, shape, x.dtype))
    if x.dtype.startswith("float"):
        values = rng.normal(0, 3, shape).astype(x.dtype)
    real = core.decode(values, x.quantization)[None]
    expected = core.encode(
        pool.pool_elements(real, function.name.lower(), kernel, strides, pads, dilations, ceil_mode=True)[0], y
    )
    spm = Scratchpad(rng, 1 << 18)
    output, source = spm.place(np.zeros(expected.shape, y.dtype)), spm.place(values)
    counted = {"counted_height": shape[0] + pads[2], "counted_width": shape[1] + pads[3]}
    spm.check(level, output, expected, {
        "name": "POOL", **_image("input", source), **_image("output", output), "input_channels": shape[2],
        "output_channels": shape[2], "kernel_height": kernel[0], "kernel_width": kernel[1],
        "stride_height": strides[0], "stride_width": strides[1], "dilation_height": dilations[0],
        "dilation_width": dilations[1], "pad_top": pads[0], "pad_left": pads[1], "function": function,
        **element_fields("input", x), **element_fields("output", y), **counted,
    })  # fmt: skip


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
