"""KERNEL: validation, hazards, time and binding; data types that engines only move."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npu_backend.errors import EmulatorError, ProgramError
from npu_backend.isa import COMPUTED_TYPES, DATA_TYPES
from npu_backend.runtime import Emulator
from tests.emulator.assembler import LOAD, SPM_BYTES, STORE, VECTOR, Assembly
from tests.emulator.valid_instructions import VALID

FUZZ = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
OPERANDS, AXES = 8, 4
Native = Callable[[Sequence[int]], int]


def fields(operands: Sequence[tuple[int, int, Sequence[int], Sequence[int]]], **more: Any) -> dict[str, Any]:
    """Of a call on operands of so much: address, run bytes, counts and strides of four axes; the output is the last."""
    unused = OPERANDS - len(operands)
    rows = [*operands, *[(0, 0, (1,) * AXES, (0,) * AXES)] * unused]
    return {
        "kernel": 0, "operand_count": len(operands),
        **{f"operand{number}": address for number, (address, _, _, _) in enumerate(rows)},
        "run_bytes": tuple(run for _, run, _, _ in rows),
        "counts": tuple(count for _, _, counts, _ in rows for count in counts),
        "strides": tuple(stride for _, _, _, strides in rows for stride in strides),
        "simple_bytes": 64, "special_bytes": 0, "access_bytes": 128, **more,
    }  # fmt: skip


def dense(address: int, size: int) -> tuple[int, int, Sequence[int], Sequence[int]]:
    return address, size, (1,) * AXES, (0,) * AXES


def calling(*symbols: str) -> Assembly:
    assembly = Assembly().input("x", 0, (64,)).output("y", 64, (64,)).node("a")
    assembly.kernels.extend(symbols or ("npu_kernel_a",))
    return assembly


def bind(emulator: Emulator, native: Native, kernel: int = 0) -> object:
    """A function of the operands' addresses as the native one; what is returned must outlive the runs."""
    made = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_uint64))(native)
    assert emulator._functions.npu_bind_kernel(emulator._handle, kernel, ctypes.cast(made, ctypes.c_void_p)) == 0
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": 1}, "core 0 vector 0x0 KERNEL (node a): kernel is 1, not in 0..0"),
        ({"operand_count": 0}, "operand_count is 0, not in 1..8"),
        ({"operand_count": 9}, "operand_count is 9, not in 1..8"),
        ({"operand_count": 3}, "run_bytes is 0, not in 1.."),
        ({"operand0": SPM_BYTES + 1}, "operand is 32769, not in 0..32768"),
        ({"operand0": SPM_BYTES - 63}, "spm 0x7fc1+64 > 32768"),
        ({"operand1": SPM_BYTES - 31}, "spm 0x7fe1+32 > 32768"),
        ({"operand1": 63}, "its output overlaps its input"),
        ({"operand1": 0}, "its output overlaps its input"),
        ({"run_bytes": (2**32 - 1, 32, 0, 0, 0, 0, 0, 0)}, "spm 0x0+4294967295 > 32768"),
        ({"counts": (1, 1, 0, *(1,) * 29)}, "a count is 0, not in 1.."),
        ({"counts": (*(1,) * 4, 1, 1, 2, 2, *(1,) * 24), "strides": (*(0,) * 4, 0, 0, 48, 16, *(0,) * 24)},
         "writes a byte twice: its output strides overlap"),
        ({"counts": (2**32 - 1,) * 32, "strides": (2**32 - 1,) * 32}, "spm 0x0+"),
    ],
)  # fmt: skip
def test_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(message)):
        Emulator(calling().emit(0, VECTOR, "KERNEL", **{**VALID["KERNEL"][1], **change}).build())


def test_without_a_table() -> None:
    with pytest.raises(ProgramError, match=re.escape("kernel is 0, not in 0..-1")):
        Emulator(replace(calling().emit(0, VECTOR, "KERNEL", **VALID["KERNEL"][1]).program(), kernels=()).to_bytes())


def test_binding() -> None:
    with Emulator(calling("npu_kernel_a", "npu_kernel_b").build()) as emulator:
        functions, handle = emulator._functions, emulator._handle
        assert functions.npu_kernel_count(handle) == 2
        assert [functions.npu_kernel_symbol(handle, i) for i in range(3)] == [b"npu_kernel_a", b"npu_kernel_b", None]
        assert functions.npu_bind_kernel(handle, 2, None) == 2


def doubling(*, waits: bool = True, size: int = 64) -> Assembly:
    """y is twice x, in a call that reads `size` bytes."""
    assembly = calling().load(0, 0, 0, 64)
    if waits:
        assembly.sync(0, (0, LOAD), (0, VECTOR))
    assembly.emit(0, VECTOR, "KERNEL", **fields([dense(0, size), dense(128, 64)]))
    return assembly.sync(1, (0, VECTOR), (0, STORE)).store(0, 64, 128, 64)


def double(operands: Sequence[int]) -> int:
    x, y = ((ctypes.c_uint8 * 64).from_address(operands[i]) for i in range(2))
    y[:] = [2 * value & 255 for value in x]
    return 0


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("check", [False, True])
def test_runs(threads: int, check: bool) -> None:
    x = np.arange(64, dtype=np.uint8) * 3
    with Emulator(doubling().build()) as emulator:
        keep = bind(emulator, double)
        for _ in range(2):
            np.testing.assert_array_equal(emulator.run([x], threads=threads, check=check)["y"], 2 * x)
        del keep


@pytest.mark.parametrize(
    ("assembly", "native", "message"),
    [
        (doubling(), lambda _: 3, "core 0 vector 0x10 KERNEL (node a): npu_kernel_a returns 3"),
        (doubling(size=65), double, "KERNEL (node a) reads spm 0x40 of core 0, which nothing has written"),
        (doubling(waits=False), double, "race on spm 0x0 of core 0"),
    ],
)  # fmt: skip
def test_hazards(assembly: Assembly, native: Native, message: str) -> None:
    with Emulator(assembly.build()) as emulator:
        keep = bind(emulator, native)
        with pytest.raises(EmulatorError, match=re.escape(message)):
            emulator.run([np.zeros(64, np.uint8)], check=True)
        del keep


OPERAND = st.tuples(st.one_of(st.integers(0, 600), st.integers(SPM_BYTES - 64, SPM_BYTES + 8)), st.integers(0, 40),
                    st.tuples(*[st.integers(1, 3)] * AXES), st.tuples(*[st.integers(0, 90)] * AXES))  # fmt: skip


def touched(operand: tuple[int, int, Sequence[int], Sequence[int]]) -> list[int]:
    address, run, counts, strides = operand
    starts = (address + sum(i * s for i, s in zip(index, strides)) for index in np.ndindex(*counts))
    return [start + offset for start in starts for offset in range(run)]


@FUZZ
@given(st.lists(OPERAND, min_size=1, max_size=OPERANDS))
def test_what_is_accepted_stays_in_the_scratchpad(operands: list[Any]) -> None:
    """And writes no byte twice nor one that it reads; the native function gets the addresses that were checked."""
    assembly = calling().emit(0, VECTOR, "KERNEL", **fields(operands))
    try:
        emulator = Emulator(assembly.build())
    except ProgramError:
        return
    *reads, writes = map(touched, operands)
    assert max(map(max, filter(None, (*reads, writes)))) < SPM_BYTES
    assert len(set(writes)) == len(writes)
    assert not set(writes) & {byte for each in reads for byte in each}
    seen: list[int] = []

    def native(addresses: Sequence[int]) -> int:
        seen.extend(addresses[i] for i in range(len(operands)))
        return 0

    with emulator:
        keep = bind(emulator, native)
        emulator.run([np.zeros(64, np.uint8)])
        del keep
    assert [each - seen[0] for each in seen] == [address - operands[0][0] for address, _, _, _ in operands]


@FUZZ
@given(st.dictionaries(st.sampled_from(sorted({*VALID["KERNEL"][1]} - {"counts", "strides", "run_bytes"})),
                       st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1), st.integers(2**31 - 2, 2**31 + 2))),
       st.lists(st.integers(0, 2**32 - 1), min_size=32, max_size=32), st.booleans())  # fmt: skip
def test_any_fields(values: dict[str, int], numbers: list[int], any_counts: bool) -> None:
    """Refused, or bounds everything: a run, its check and its time end."""
    array = {"counts" if any_counts else "strides": tuple(numbers)}
    try:
        emulator = Emulator(calling().emit(0, VECTOR, "KERNEL", **{**VALID["KERNEL"][1], **values, **array}).build())
    except ProgramError:
        return
    with emulator:
        keep = bind(emulator, lambda _: 0)
        emulator.run([np.zeros(64, np.uint8)])
        assert emulator.time().total_ns >= 0
        del keep


@pytest.mark.parametrize("dtype", sorted(DATA_TYPES))
def test_every_type_moves_through_ports(dtype: str) -> None:
    """Host order to storage order, through a scratchpad, and back."""
    x = np.arange(15).reshape(3, 5).astype(dtype)
    assembly = Assembly().input("x", 0, x.shape, dtype, (1, 0)).output("y", 256, x.shape, dtype, (1, 0))
    assembly.load(0, 0, 0, x.nbytes).sync(0, (0, LOAD), (0, STORE)).store(0, 256, 0, x.nbytes)
    with Emulator(assembly.build()) as emulator:
        (port,) = emulator.outputs
        assert (port.dtype, port.shape) == (x.dtype, x.shape)
        np.testing.assert_array_equal(emulator.run([x], check=True)["y"], x)


@pytest.mark.parametrize("dtype", sorted(set(DATA_TYPES) - set(COMPUTED_TYPES)))
@pytest.mark.parametrize(
    ("name", "field"),
    [("BINARY", "left_type"), ("SELECT", "output_type"), ("UNARY", "input_type"), ("CONVERT", "output_type"),
     ("RESIZE", "input_type"), ("POOL", "input_type"), ("REDUCE", "input_type"), ("SOFTMAX", "output_type"),
     ("MATMUL", "left_type"), ("CONV", "input_type"), ("ARGREDUCE", "input_type"), ("GATHER", "index_type")],
)  # fmt: skip
def test_engines_compute_with_no_wide_type(name: str, field: str, dtype: str) -> None:
    engine, values = VALID[name]
    values = {**values, field: DATA_TYPES[dtype]} | ({"function": 2} if name == "BINARY" else {})
    with pytest.raises(ProgramError, match=f"data type {DATA_TYPES[dtype].value}"):
        Emulator(Assembly(constants=bytes(200)).emit(0, engine, name, **values).build())
