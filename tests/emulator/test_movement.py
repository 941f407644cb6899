"""COPY, FILL, GATHER and LOAD_ROWS against NumPy, at every kernel level and element size."""

from __future__ import annotations

import numpy as np
import pytest

from npu_backend.errors import EmulatorError
from npu_backend.isa import DATA_TYPES
from npu_backend.runtime import Emulator
from tests.emulator.assembler import LOAD, STORE, VECTOR, Assembly
from tests.emulator.scratchpad import Placed, Scratchpad

LEVELS = [pytest.param(1, id="portable"), pytest.param(2, id="avx2"), pytest.param(3, id="avx512")]
TRIALS = 12

Shape = tuple[int, ...]

every_level = pytest.mark.parametrize("level", LEVELS)
every_size = pytest.mark.parametrize("element_bytes", [1, 2, 4, 8])
every_trial = pytest.mark.parametrize("trial", range(TRIALS))


def draw(rng: np.random.Generator, shape: Shape, element_bytes: int) -> np.ndarray:
    return rng.integers(0, 1 << 8 * element_bytes, shape, np.dtype(f"u{element_bytes}"))


def draw_shape(rng: np.random.Generator, *limits: int) -> Shape:
    return tuple(int(rng.integers(1, limit + 1)) for limit in limits)


def order(rng: np.random.Generator, rank: int) -> Shape:
    return tuple(map(int, rng.permutation(rank))) if rng.integers(2) else tuple(range(rank))


def copy(source: Placed, output: Placed, strides: Shape, address: int) -> dict[str, object]:
    return {"name": "COPY", "counts": output.axes()[0], "input": address, "input_strides": strides,
            "output": output.address, "output_strides": output.axes()[1],
            "element_bytes": output.dtype.itemsize}  # fmt: skip


@every_level
@every_size
@every_trial
def test_copy(level: int, trial: int, element_bytes: int) -> None:
    """Axes in any order, walked forwards or backwards."""
    rng = np.random.default_rng(trial)
    values = draw(rng, draw_shape(rng, 3, 9, 20, 40), element_bytes)
    spm = Scratchpad(rng, 1 << 19)
    output, source = spm.place(np.zeros_like(values), order(rng, 4)), spm.place(values, order(rng, 4))
    signs = rng.choice([-1, 1], 4) if trial % 2 else np.ones(4, int)
    steps = [int(sign * stride) for sign, stride in zip(signs, source.strides, strict=True)]
    last = sum(-step * (count - 1) for step, count in zip(steps, source.shape, strict=True) if step < 0)
    expected = values[tuple(slice(None, None, sign) for sign in signs)]
    spm.check(level, output, expected, copy(source, output, tuple(steps), source.address + last))


@every_level
@every_size
@every_trial
def test_copy_broadcasts(level: int, trial: int, element_bytes: int) -> None:
    rng = np.random.default_rng(trial)
    shape = draw_shape(rng, 3, 5, 7, 40)
    kept = tuple(extent if rng.integers(2) else 1 for extent in shape)
    values = draw(rng, kept, element_bytes)
    spm = Scratchpad(rng, 1 << 17)
    output, source = spm.place(np.zeros(shape, values.dtype), order(rng, 4)), spm.place(values)
    strides = tuple(0 if extent == 1 else stride for stride, extent in zip(source.strides, kept, strict=True))
    spm.check(level, output, np.broadcast_to(values, shape), copy(source, output, strides, source.address))


@every_level
@every_size
@pytest.mark.parametrize("shape", [(64, 64), (65, 131), (8, 9), (7, 300), (300, 7), (1, 50)], ids=str)
def test_copy_transposes(level: int, shape: Shape, element_bytes: int) -> None:
    rng = np.random.default_rng(sum(shape))
    values = draw(rng, shape, element_bytes)
    spm = Scratchpad(rng, 1 << 18)
    output, source = spm.place(np.zeros(shape[::-1], values.dtype)), spm.place(values)
    fields = copy(source, output, (0, 0, *source.strides[::-1]), source.address)
    spm.check(level, output, values.T, fields)


@every_level
@every_size
@every_trial
def test_fill(level: int, trial: int, element_bytes: int) -> None:
    rng = np.random.default_rng(trial)
    value = draw(rng, (), element_bytes)
    spm = Scratchpad(rng)
    output = spm.place(np.zeros(draw_shape(rng, 2, 5, 7, 50), value.dtype), order(rng, 4))
    counts, strides = output.axes()
    fields = {"name": "FILL", "output": output.address, "counts": counts, "output_strides": strides,
              "value": int(value), "element_bytes": element_bytes}  # fmt: skip
    spm.check(level, output, np.full(counts, value), fields)


@every_level
@every_size
@pytest.mark.parametrize("index_type", ["int32", "int64"])
@every_trial
def test_gather(level: int, trial: int, element_bytes: int, index_type: str) -> None:
    """Rows of two axes and a run; indices of both signs, apart in memory."""
    rng = np.random.default_rng(trial)
    extent, *row = draw_shape(rng, 9, 3, 4, 20)
    values = draw(rng, (extent, *row), element_bytes)
    chosen = rng.integers(-extent, extent, (draw_shape(rng, 30)[0], 1 + trial % 2)).astype(index_type)
    taken = values[chosen[:, 0]]
    spm = Scratchpad(rng, 1 << 18)
    output, source, indices = spm.place(np.zeros_like(taken)), spm.place(values), spm.place(chosen, gaps=False)
    fields = {"name": "GATHER", "input": source.address, **rows(output, indices), "extent": extent,
              "input_step_bytes": source.strides[0], "output_step_bytes": output.strides[0],
              "run_bytes": row[2] * element_bytes, "counts": (1, *row[:2]),
              "input_strides": (0, *source.strides[1:3]), "output_strides": (0, *output.strides[1:3])}  # fmt: skip
    spm.check(level, output, taken, fields)


def rows(output: Placed, indices: Placed) -> dict[str, object]:
    return {"output": output.address, "indices": indices.address, "index_type": DATA_TYPES[str(indices.dtype)],
            "index_count": indices.shape[0], "index_bytes": indices.strides[0]}  # fmt: skip


TABLE = {"output": 1024, "indices": 0, "index_type": DATA_TYPES["int64"], "index_count": 3, "index_bytes": 8,
         "extent": 10, "input_step_bytes": 16, "output_step_bytes": 16, "run_bytes": 16}  # fmt: skip


def by_index(name: str) -> bytes:
    """Three rows of a table of ten, which lies in the constants or is loaded first."""
    table = np.arange(160, dtype=np.uint8).tobytes()
    assembly = Assembly(constants=table).input("x", 256, (3,), "int64").output("y", 512, (3, 16))
    assembly.load(0, 256, 0, 24)
    if name == "GATHER":
        assembly.load(0, 0, 256, 160).sync(0, (0, LOAD), (0, VECTOR)).emit(0, VECTOR, "GATHER", input=256, **TABLE)
        assembly.sync(1, (0, VECTOR), (0, STORE))
    else:
        assembly.emit(0, LOAD, "LOAD_ROWS", dram=0, **TABLE).sync(1, (0, LOAD), (0, STORE))
    return assembly.store(0, 512, 1024, 48).build()


@pytest.mark.parametrize("name", ["GATHER", "LOAD_ROWS"])
def test_rows_are_fetched(name: str) -> None:
    with Emulator(by_index(name)) as emulator:
        taken = emulator.run({"x": np.array([7, -10, -1])}, check=True)["y"]
    np.testing.assert_array_equal(taken, np.arange(160, dtype=np.uint8).reshape(10, 16)[[7, 0, 9]])


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("index", [10, -11, 1 << 40, -(1 << 63)])
@pytest.mark.parametrize("name", ["GATHER", "LOAD_ROWS"])
def test_an_index_out_of_range_traps(name: str, index: int, check: bool) -> None:
    message = rf"{name} \(node start\): index {index} is out of range for an axis of 10 positions"
    with Emulator(by_index(name)) as emulator, pytest.raises(EmulatorError, match=message):
        emulator.run({"x": np.array([2, 3, index])}, check=check)
