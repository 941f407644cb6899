"""One instruction on a scratchpad of the test's own, with every byte outside the result checked too."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.encoding import encode
from npu_backend.isa import FORMAT_BY_NAME, Instruction
from npu_backend.toolchain import emulator_library

Bytes = npt.NDArray[np.uint8]
Tensor = npt.NDArray[Any]
SPM_BYTES = 1 << 16


@dataclass(frozen=True)
class Placed:
    """A tensor in the scratchpad: byte address, shape, strides in bytes, element type."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def view(self, memory: Bytes) -> Bytes:
        """The tensor's bytes in ``memory``, shape ``[*shape, element bytes]``."""
        shape, strides = (*self.shape, self.dtype.itemsize), (*self.strides, 1)
        return np.lib.stride_tricks.as_strided(memory[self.address :], shape, strides)

    def axes(self, count: int = 4) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Counts and strides padded on the left to ``count`` axes."""
        missing = count - len(self.shape)
        return (1,) * missing + self.shape, (0,) * missing + self.strides


class Scratchpad:
    """Random bytes in which tensors are placed from the end downwards, so that the first ends with the scratchpad."""

    def __init__(self, rng: np.random.Generator, spm_bytes: int = SPM_BYTES) -> None:
        self._rng = rng
        self._top = spm_bytes
        self.memory = rng.integers(0, 256, spm_bytes, dtype=np.uint8)

    def place(self, values: Tensor, storage: tuple[int, ...] | None = None, gaps: bool = True) -> Placed:
        """Stores ``values`` with axes nested as ``storage`` says, outermost first, and random gaps between rows."""
        order = storage or tuple(range(values.ndim))
        inner, strides = values.dtype.itemsize, [0] * values.ndim
        for position in reversed(range(values.ndim)):
            axis = order[position]
            strides[axis] = inner
            spare = int(self._rng.integers(0, 3)) if gaps and position != values.ndim - 1 else 0
            inner = inner * values.shape[axis] + spare * values.dtype.itemsize
        steps = [(extent - 1) * stride for extent, stride in zip(values.shape, strides, strict=True)]
        used = sum(steps) + values.dtype.itemsize
        self._top -= used
        assert self._top >= 0, "the test's scratchpad is too small"
        placed = Placed(self._top, values.shape, tuple(strides), values.dtype)
        placed.view(self.memory)[...] = np.ascontiguousarray(values)[..., None].view(np.uint8)
        self._top -= int(self._rng.integers(0, 9)) if gaps else self._top % 64
        return placed

    def check(self, level: int, output: Placed, expected: Tensor, fields: Mapping[str, object]) -> None:
        """Runs the instruction and compares the whole scratchpad with ``expected`` in the place of ``output``."""
        wanted, actual = self.memory.copy(), self.memory.copy()
        output.view(wanted)[...] = np.ascontiguousarray(expected)[..., None].view(np.uint8)
        execute(level, actual, fields)
        np.testing.assert_array_equal(output.view(actual), output.view(wanted))
        np.testing.assert_array_equal(actual, wanted, err_msg="bytes outside the output")


def execute(level: int, memory: Bytes, fields: Mapping[str, object]) -> None:
    """Executes the instruction ``fields["name"]`` on ``memory`` in place; fields not given are zero."""
    name = str(fields["name"])
    zeros = {field.name: 0 if field.count == 1 else (0,) * field.count for field in FORMAT_BY_NAME[name].fields}
    assert fields.keys() - zeros.keys() == {"name"}
    code = encode(Instruction(name, zeros | dict(fields)))  # type: ignore[arg-type]
    status = _kernels()(code, len(code), memory.ctypes.data, memory.size, level)
    assert status == 0, f"{name}: status {status}"


@cache
def _kernels() -> Callable[..., int]:
    function = ctypes.CDLL(str(emulator_library())).npu_execute
    function.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32]
    function.restype = ctypes.c_int
    return function
