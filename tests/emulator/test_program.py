"""Opening a program: every fault is named, and no byte string brings the emulator down."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npu_backend.errors import EmulatorError, ProgramError
from npu_backend.isa import Engine
from npu_backend.program import RECORD_STRUCTS, Program, Section
from npu_backend.runtime import Emulator
from tests.emulator.assembler import with_checksum
from tests.emulator.valid_instructions import everything

EVERYTHING = everything().build()
FUZZ = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: replace(p, machine={**p.machine, "dram_bytes": 100}), "200 bytes of constants do not fit"),
        (lambda p: replace(p, machine={**p.machine, "core_count": 3}), "3 cores, section CORE holds 2"),
        (lambda p: replace(p, machine={**p.machine, "core_count": 0}, cores=()), "machine: 0 cores"),
        (lambda p: replace(p, machine={**p.machine, "burst_bytes": 0}), "bursts of 0 bytes"),
        (lambda p: replace(p, machine={**p.machine, "signal_ns": float("nan")}), "machine: a latency or energy"),
        (lambda p: replace(p, machine={**p.machine, "static_mw": -1.0}), "machine: a latency or energy"),
        (lambda p: replace(p, cores=({**p.cores[0], "clock_mhz": 0.0}, p.cores[1])), "core 0: clock 0 MHz"),
        (lambda p: replace(p, cores=(p.cores[0], {**p.cores[1], "vector_lanes": 0})), "core 1: 0 lanes"),
        (lambda p: replace(p, cores=(p.cores[0], {**p.cores[1], "spm_banks": 0})), "core 1: 0 lanes or banks"),
        (lambda p: replace(p, cores=({**p.cores[0], "folds_kernel_width": 2}, p.cores[1])), "folds_kernel_width is 2"),
        (lambda p: replace(p, resources=({**p.resources[0], "bytes_per_ns": float("inf")},)), "resource 0: inf bytes"),
        (lambda p: replace(p, resources=({**p.resources[0], "is_link": 2},)), "is_link 2 is invalid"),
        (lambda p: replace(p, machine={**p.machine, "multicast_group_count": 1 << 25}), "33554432 multicast groups"),
        (lambda p: replace(p, path_steps=(1,)), "path step 0: resource 1 of 1"),
        (lambda p: replace(p, paths=({**p.paths[0], "step_count": 2},)), "path 0: "),
        (lambda p: replace(p, paths=({**p.paths[0], "source": 9},)), "path 0: from 9"),
        (lambda p: replace(p, ports=(replace(p.ports[0], dram=100),)), "port x: dram 0x64 lies in the constants"),
        (lambda p: replace(p, ports=(replace(p.ports[0], dram=65500),)), "port x: dram 0xffdc+256 > 65536"),
        (lambda p: replace(p, ports=(replace(p.ports[0], storage_axes=(0, 0)),)), "port 0: "),
        (lambda p: replace(p, ports=(replace(p.ports[0], host_shape=(0, 8)),)), "port x: dram 0x100+0 > 65536"),
        (lambda p: replace(p, ports=(replace(p.ports[0], host_shape=(2**32 - 1,) * 4, storage_axes=(0, 1, 2, 3)),)),
         "port x: "),
        (lambda p: replace(p, origins=("a",)), "origin 1 of 1"),
        (lambda p: replace(p, kernels=()), "kernel is 0, not in 0..-1"),
        (lambda p: replace(p, streams={(5, Engine.LOAD): p.streams[0, Engine.LOAD]}), "stream 0: core 5"),
    ],
)  # fmt: skip
def test_records(change: Callable[[Program], Program], message: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(message)):
        Emulator(change(everything().program()).to_bytes())


def test_not_a_program() -> None:
    for data in (b"", b"NPUP", b"PNG" * 100, EVERYTHING[1:]):
        with pytest.raises(ProgramError, match="does not start with 'NPUP'"):
            Emulator(data)


def test_other_versions() -> None:
    for offset in (4, 8):
        data = EVERYTHING[:offset] + struct.pack("<I", 99) + EVERYTHING[offset + 4 :]
        with pytest.raises(ProgramError, match=r"99.*compile the model again"):
            Emulator(data)


def test_truncated_or_longer() -> None:
    for data in (EVERYTHING[:-1], EVERYTHING[:200], EVERYTHING + b"\0"):
        with pytest.raises(ProgramError, match=rf"{len(data)} of {len(EVERYTHING)} bytes"):
            Emulator(data)


@pytest.mark.parametrize("position", [20, 70, 500, len(EVERYTHING) // 2, len(EVERYTHING) - 1])
def test_a_flipped_bit(position: int) -> None:
    data = bytearray(EVERYTHING)
    data[position] ^= 4
    with pytest.raises(ProgramError, match=r"checksum does not match|bytes; compile it again"):
        Emulator(bytes(data))


def _section_row(kind: int) -> int:
    size = RECORD_STRUCTS["section"].size
    header = RECORD_STRUCTS["header"].size
    rows = range(header, header + len(Section) * size, size)
    return next(row for row in rows if struct.unpack_from("<I", EVERYTHING, row)[0] == kind)


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        (2, "kind", 77, "section of kind 77 is unknown"),
        (2, "kind", 1, "section of kind 1 is unknown or occurs twice"),
        (4, "kind", 12, "section of kind 12 is unknown or occurs twice"),
        (8, "offset", 1 << 40, "section CODE"),
        (8, "offset", 65, "section CODE"),
        (9, "bytes", 1 << 63, "section CONSTANTS"),
        (6, "count", 3, "section PORT: 3 records of"),
        (13, "bytes", 6, "section KERNEL"),
        (13, "offset", 1 << 50, "section KERNEL"),
    ],
)
def test_section_table(kind: int, field: str, value: int, message: str) -> None:
    row, layout = _section_row(kind), RECORD_STRUCTS["section"]
    values = list(layout.unpack_from(EVERYTHING, row))
    values[["kind", "count", "offset", "bytes"].index(field)] = value
    data = EVERYTHING[:row] + layout.pack(*values) + EVERYTHING[row + layout.size :]
    with pytest.raises(ProgramError, match=message):
        Emulator(with_checksum(data))


def survives(data: bytes) -> None:
    """Opening, running, checking and timing end in a result or an error of ours."""
    with suppress(ProgramError, EmulatorError), Emulator(data) as emulator:
        inputs = {port.name: np.zeros(port.shape, port.dtype) for port in emulator.inputs}
        for check in (False, True):
            with suppress(EmulatorError):
                emulator.run(inputs, check=check)
        emulator.time()


@FUZZ
@given(st.binary(max_size=400))
def test_random_bytes(tail: bytes) -> None:
    survives(tail)
    survives(EVERYTHING[:16] + tail)
    survives(with_checksum(EVERYTHING[:16] + struct.pack("<Q", 24 + len(tail)) + tail[:8].ljust(8, b"\0") + tail[8:]))


BYTES = st.tuples(st.integers(16, len(EVERYTHING) - 1), st.integers(0, 255))
WORDS = st.tuples(st.integers(4, len(EVERYTHING) // 4 - 1),
                  st.one_of(st.integers(0, 64), st.integers(2**31 - 2, 2**31 + 2), st.integers(2**32 - 64, 2**32 - 1),
                            st.integers(0, 2**32 - 1)))  # fmt: skip


@FUZZ
@given(st.lists(BYTES, max_size=3), st.lists(WORDS, max_size=3))
def test_mutations_with_a_right_checksum(bytes_changed: list[tuple[int, int]], words: list[tuple[int, int]]) -> None:
    data = bytearray(EVERYTHING)
    for position, value in bytes_changed:
        data[position] = value
    for position, value in words:
        struct.pack_into("<I", data, 4 * position, value)
    survives(with_checksum(bytes(data)))


CODE_START = struct.unpack_from("<Q", EVERYTHING, _section_row(8) + 8)[0]
CODE_END = CODE_START + struct.unpack_from("<Q", EVERYTHING, _section_row(8) + 16)[0]
CODE_WORDS = st.integers(CODE_START // 4, CODE_END // 4 - 1)
NOTABLE = [0, 1, 2, 3, 5, 17, 255, 4096, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1]


@FUZZ
@given(CODE_WORDS, st.integers(0, 40), CODE_WORDS, st.sampled_from(NOTABLE))
def test_mutations_of_instructions(first: int, small: int, second: int, any_size: int) -> None:
    data = bytearray(EVERYTHING)
    struct.pack_into("<I", data, 4 * first, small)
    struct.pack_into("<I", data, 4 * second, any_size)
    survives(with_checksum(bytes(data)))
