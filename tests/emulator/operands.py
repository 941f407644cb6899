"""Random operands and fields of the vector engine's instructions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npu_backend.graph import CODES, FLOATS, NUMBERS, Quantization, Tensor
from npu_backend.isa import DataType
from tests.emulator.scratchpad import Placed

LEVELS = [pytest.param(1, id="portable"), pytest.param(2, id="avx2"), pytest.param(3, id="avx512")]
TRIALS = 12
TYPES = {np.dtype(np.uint8): DataType.UINT8, np.dtype(np.int8): DataType.INT8, np.dtype(np.int16): DataType.INT16}
ALL_TYPES = (*CODES, *FLOATS, *NUMBERS)


def draw_codes(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    info: Any = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def draw_dtype(rng: np.random.Generator) -> np.dtype[np.integer]:
    return np.dtype([np.uint8, np.int8][int(rng.integers(2))])


def draw_zero_point(rng: np.random.Generator, dtype: Any) -> int:
    return int(draw_codes(rng, (), dtype))


def draw_scale(rng: np.random.Generator) -> np.float32:
    return np.float32(np.exp(rng.uniform(-7, 1)))


def draw_scales(rng: np.random.Generator, trial: int, count: int) -> list[np.float32]:
    """Random ones, and in every other trial ones whose ratios bring ties, where each rounding shows."""
    if trial % 2:
        return [draw_scale(rng) for _ in range(count)]
    return [np.float32(0.02), np.float32(0.05), np.float32(0.1)][:count]


def draw_shape(rng: np.random.Generator, limits: tuple[int, ...]) -> Any:
    return tuple(int(rng.integers(1, limit + 1)) for limit in limits)


def draw_order(rng: np.random.Generator, rank: int) -> tuple[int, ...]:
    return tuple(map(int, rng.permutation(rank))) if rng.integers(2) else tuple(range(rank))


def one_input(name: str, source: Placed, output: Placed, **more: object) -> dict[str, object]:
    counts, input_strides = source.axes()
    return {"name": name, "counts": counts, "input": source.address, "input_strides": input_strides,
            "output": output.address, "output_strides": output.axes()[1], **more}  # fmt: skip


def broadcast_strides(placed: Placed, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(
        0 if kept == 1 != extent else stride
        for stride, kept, extent in zip(placed.strides, placed.shape, shape, strict=True)
    )


def draw_tensor(rng: np.random.Generator, dtype: str) -> Tensor:
    """A tensor's description with a random quantisation where the type holds codes."""
    coded = np.dtype(dtype).itemsize <= 2 and np.dtype(dtype).kind in "iu"
    code = Quantization(float(draw_scale(rng)), draw_zero_point(rng, np.dtype(dtype))) if coded else None
    return Tensor("x", (), dtype, code)


def draw_elements(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    """Values of every size, ties of codes and of halves, and what no code or integer can hold."""
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype.startswith("float"):
        values = rng.normal(0, 1, shape) * 2.0 ** rng.integers(-30, 20, shape)
        values[rng.random(shape) < 0.2] = np.rint(rng.normal(0, 99, ())) + 0.5
        values[rng.random(shape) < 0.05] = rng.choice([np.inf, -np.inf, np.nan, 65519.99, 65520, -0.0, 2.0**-25])
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    if dtype in ("int32", "int64"):
        return rng.integers(-999, 999, shape, dtype)
    return draw_codes(rng, shape, np.dtype(dtype))
