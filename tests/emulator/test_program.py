"""Opening a program: every fault is named, and no byte string brings the emulator down."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npu_backend.errors import EmulatorError, ProgramError
from npu_backend.isa import FORMATS, Engine
from npu_backend.program import RECORD_STRUCTS, Program
from npu_backend.runtime import Emulator
from tests.emulator.assembler import DRAM_BYTES, LOAD, MATRIX, NETWORK, STORE, VECTOR, Assembly, with_checksum

WINDOW: dict[str, Any] = {
    "input": 0, "input_row_bytes": 32, "input_column_bytes": 4, "input_height": 8, "input_width": 8,
    "input_channels": 4,
    "output": 1024, "output_row_bytes": 32, "output_column_bytes": 4, "output_height": 8, "output_width": 8,
    "output_channels": 4, "kernel_height": 3, "kernel_width": 3, "stride_height": 1, "stride_width": 1,
    "dilation_height": 1, "dilation_width": 1, "pad_top": 1, "pad_left": 1, "input_type": 0, "output_type": 0,
}  # fmt: skip
MATRIX_FIELDS: dict[str, Any] = {
    **WINDOW, "clamp_low": 0, "clamp_high": 255, "weights": 2048, "parameters": 2048 + 9 * 64, "block_bytes": 1024,
}  # fmt: skip
ELEMENTS: dict[str, Any] = {
    "input": 0, "output": 1024, "counts": (1, 2, 3, 4), "input_strides": (0, 48, 16, 4),
    "output_strides": (0, 48, 16, 4),
}  # fmt: skip
ROWS: dict[str, Any] = {
    "output": 1024, "indices": 4096, "index_type": 7, "index_count": 5, "index_bytes": 8, "extent": 6,
    "input_step_bytes": 16, "output_step_bytes": 24, "run_bytes": 7, "counts": (1, 1, 2), "input_strides": (0, 0, 8),
    "output_strides": (0, 0, 8),
}  # fmt: skip
LINES: dict[str, Any] = {
    "input": 0, "output": 1024, "counts": (1, 2, 3, 5), "input_strides": (0, 15, 5, 1), "output_strides": (0, 15, 5, 1),
    "line_axes": 8,
}  # fmt: skip
TWO_BLOCKS = {"output_channels": 17, "output_column_bytes": 17, "output_row_bytes": 136}
SCALES = {"input_scale": 0.5, "output_scale": 0.25}
VALID: dict[str, tuple[Engine, dict[str, Any]]] = {
    "WAIT": (LOAD, {"semaphore": 0}),
    "SIGNAL": (LOAD, {"semaphore": 0}),
    "LOAD": (LOAD, {"dram": 256, "spm": 64, "run_bytes": 16, "counts": (1, 1, 2, 3), "dram_strides": (0, 0, 64, 16),
                    "spm_strides": (0, 0, 48, 16)}),
    "STORE": (STORE, {"dram": 4096, "spm": 64, "run_bytes": 16}),
    "SEND": (NETWORK, {"destination_core": 1, "spm": 0, "destination_spm": 128, "run_bytes": 64}),
    "CONV": (MATRIX, {**MATRIX_FIELDS, "accumulators": 4096}),
    "DEPTHWISE": (MATRIX, MATRIX_FIELDS),
    "MATMUL": (MATRIX, {"left": 0, "left_row_bytes": 8, "left_column_bytes": 1, "right": 512, "right_row_bytes": 16,
                        "right_column_bytes": 1, "output": 1024, "output_row_bytes": 16, "output_column_bytes": 1,
                        "rows": 3, "inner": 5, "columns": 4, "left_scale": 0.5, "right_scale": 0.25,
                        "output_scale": 0.5, "accumulators": 4096}),
    "POOL": (VECTOR, {**WINDOW, **SCALES, "function": 2, "counted_height": 9, "counted_width": 9}),
    "MEAN": (VECTOR, {"input": 0, "input_row_bytes": 32, "input_column_bytes": 4, "input_height": 8, "input_width": 8,
                      "channels": 4, "output": 1024, **SCALES}),
    "TABLE": (VECTOR, {**ELEMENTS, "table": 2048}),
    "COPY": (VECTOR, {**ELEMENTS, "element_bytes": 2}),
    "FILL": (VECTOR, {"output": 5, "element_bytes": 4, "counts": (1, 1, 2, 2), "output_strides": (0, 0, 100, 7)}),
    "BINARY": (VECTOR, {"left": 0, "right": 512, "output": 1024, "counts": (1, 1, 4, 4), "left_strides": (0, 0, 4, 1),
                        "right_strides": (0, 0, 0, 1), "output_strides": (0, 0, 4, 1), "left_scale": 0.5,
                        "right_scale": 0.5, "output_scale": 1.0}),
    "SELECT": (VECTOR, {"condition": 256, "left": 0, "right": 512, "output": 1024, "counts": (1, 1, 4, 4),
                        "condition_strides": (0, 0, 1, 0), "left_strides": (0, 0, 4, 1), "right_strides": (0, 0, 0, 1),
                        "output_strides": (0, 0, 8, 2), "output_type": 4, "left_scale": 0.5, "right_scale": 0.5,
                        "output_scale": 1.0}),
    "UNARY": (VECTOR, {**ELEMENTS, "input_type": 1, "output_type": 4, "function": 18, "input_scale": 0.5,
                       "output_scale": 1.0}),
    "CONVERT": (VECTOR, {**ELEMENTS, "input_type": 1, "output_type": 2, "input_scale": 0.5, "output_scale": 0.25}),
    "RESIZE": (VECTOR, {"input": 0, "input_row_bytes": 32, "input_column_bytes": 4, "output": 1024,
                        "output_row_bytes": 64, "output_column_bytes": 4, "input_height": 8, "input_width": 8,
                        "output_height": 16, "output_width": 16, "channels": 4, "row_table": 4096, "column_table": 8192,
                        "row_taps": 1, "column_taps": 1, **SCALES}),
    "SOFTMAX": (VECTOR, {**LINES, **SCALES, "table": 4096, "output_scale": 256.0}),
    "REDUCE": (VECTOR, {**LINES, **SCALES, "function": 9}),
    "NORMALIZE": (VECTOR, {**LINES, **SCALES, "epsilon": 1e-5, "subtract_mean": 1}),
    "ARGREDUCE": (VECTOR, {**LINES, "output_type": 7, "input_scale": 0.5, "output_scale": 1.0,
                           "output_strides": (0, 120, 40, 8)}),
    "LRN": (VECTOR, {**LINES, **SCALES, "size": 3, "alpha": 0.1, "beta": 0.75, "bias": 1.0}),
    "GATHER": (VECTOR, {"input": 0, **ROWS}),
    "LOAD_ROWS": (LOAD, {"dram": 256, **ROWS}),
}  # fmt: skip


def everything() -> Assembly:
    """One of each instruction and of each record."""
    assembly = Assembly(constants=bytes(200)).input("x", 256, (8, 32)).output("y", 4096, (16,)).node("node")
    assembly.signal(1, VECTOR, 0)
    for name, (engine, values) in VALID.items():
        if name != "SIGNAL":
            assembly.emit(0, engine, name, **values)
    return assembly


EVERYTHING = everything().build()
FUZZ = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def refused(assembly: Assembly, message: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(message)):
        Emulator(assembly.build())


def test_every_opcode_has_a_valid_form() -> None:
    assert set(VALID) == {entry.name for entry in FORMATS}
    with Emulator(EVERYTHING) as emulator:
        assert emulator.instruction_count == len(FORMATS)
        for kernels in ("portable", "avx2", "avx512"):
            emulator.run({"x": np.zeros((8, 32), np.uint8)}, kernels=kernels)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("WAIT", {"semaphore": 16}, "core 0 load 0x0 WAIT (node a): semaphore is 16, not in 0..15"),
        ("LOAD", {"spm": 1 << 15}, "core 0 load 0x0 LOAD (node a): spm 0x8000+96 > 32768"),
        ("LOAD", {"dram": DRAM_BYTES - 111}, "core 0 load 0x0 LOAD (node a): dram 0xff91+112 > 65536"),
        ("LOAD", {"dram": 190}, "reads across the end of the constants"),
        ("LOAD", {"dram": 2**64 - 8}, "dram 0xfffffffffffffff8+"),
        ("LOAD", {"counts": (1, 1, 0, 1)}, "a count is 0"),
        ("LOAD", {"run_bytes": 0}, "run_bytes is 0"),
        ("LOAD", {"spm_strides": (0, 0, 47, 16)}, "writes a byte twice: its output strides overlap"),
        ("LOAD", {"spm_strides": (0, 0, 16, 0)}, "writes a byte twice"),
        ("LOAD", {"counts": (2**32 - 1,) * 4, "spm_strides": (2**32 - 1,) * 4, "dram_strides": (0,) * 4}, "spm 0x40+"),
        ("STORE", {"dram": 184}, "writes into the constants"),
        ("SEND", {"destination_core": 0}, "sends to its own core"),
        ("SEND", {"destination_core": 2}, "destination_core is 2, not in 0..1"),
        ("SEND", {"destination_spm": 32767}, "spm 0x7fff+64 > 32768"),
        ("CONV", {"kernel_height": 0}, "a kernel extent is 0, not in 1..65535"),
        ("CONV", {"stride_width": 0}, "a stride is 0"),
        ("CONV", {"dilation_width": 0}, "a dilation is 0"),
        ("CONV", {"output_height": 1 << 24, "stride_height": 65535}, "the last tap's position is"),
        ("CONV", {"input_type": 5}, "input_type is data type 5, which this instruction does not take"),
        ("CONV", {"input_type": 77}, "input_type is data type 77"),
        ("CONV", {"input_type": 4, "output_type": 3, "clamp_high": 0}, "output_type is data type 3"),
        ("CONV", {"input_type": 4, "input_zero_point": 1}, "input_zero_point is 1, not in 0..0"),
        ("CONV", {"output_type": 4, "clamp_high": 1}, "clamp_high is 1, not in 0..0"),
        ("CONV", {"input_type": 4, "weights": 32768 - 9 * 4 * 32 + 2}, "spm 0x7b82+1152 > 32768"),
        ("CONV", {"input_type": 2, "parameters": 32768 - 188}, "spm 0x7f44+192 > 32768"),
        ("CONV", {"input_type": 2, "keep_accumulators": 1, "accumulators": 32768 - 8188}, "spm 0x6004+8192 > 32768"),
        ("DEPTHWISE", {"input_type": 4, "weights": 32768 - 9 * 32 + 2}, "spm 0x7ee2+288 > 32768"),
        ("CONV", {"output_zero_point": 256}, "output_zero_point is 256, not in 0..255"),
        ("CONV", {"clamp_low": 9, "clamp_high": 8}, "clamp_low is 9, not in 9..8"),
        ("CONV", {"parameters": 2049}, "parameters are not 4-byte aligned"),
        ("CONV", {"weights": 32768 - 9 * 64 + 1}, "spm 0x7dc1+576 > 32768"),
        ("CONV", {**TWO_BLOCKS, "block_bytes": 30720}, "spm 0x800+31296 > 32768"),
        ("CONV", {"keep_accumulators": 2}, "keep_accumulators is 2"),
        ("CONV", {"keep_accumulators": 1, "accumulators": 32768 - 4092}, "spm 0x7004+4096 > 32768"),
        ("CONV", {"output_column_bytes": 3}, "writes a byte twice"),
        ("DEPTHWISE", {"output_channels": 5}, "output_channels is 5, not in 4..4"),
        ("MATMUL", {"columns": 0}, "columns is 0, not in 1..16777216"),
        ("MATMUL", {"inner": 1 << 25}, "inner is 33554432"),
        ("MATMUL", {"left_type": 3}, "left_type is data type 3"),
        ("MATMUL", {"output_type": 8}, "output_type is data type 8"),
        ("MATMUL", {"right_zero_point": 256}, "zero_point is 256, not in 0..255"),
        ("MATMUL", {"left_type": 4}, "a scale other than 1 without codes"),
        ("MATMUL", {"left_column_bytes": 0}, "left_column_bytes is 0, not in 1.."),
        ("MATMUL", {"right_type": 2, "right_row_bytes": 1}, "right_row_bytes is 1, not in 2.."),
        ("MATMUL", {"right_row_bytes": 8192}, "spm 0x200+32772 > 32768"),
        ("MATMUL", {"output_row_bytes": 3}, "writes a byte twice"),
        ("MATMUL", {"output": 4}, "its output overlaps its input"),
        ("MATMUL", {"keep_accumulators": 1, "accumulators": 32764}, "spm 0x7ffc+48 > 32768"),
        (
            "MATMUL",
            {
                "left_type": 6,
                "left_column_bytes": 2,
                "left_row_bytes": 10,
                "keep_accumulators": 1,
                "accumulators": 32764,
            },
            "spm 0x7ffc+96 > 32768",
        ),
        ("POOL", {"function": 5}, "function is 5"),
        ("POOL", {"output_scale": 0.0}, "scale is 0, not finite and positive"),
        ("POOL", {"input_scale": float("nan")}, "scale is"),
        ("POOL", {"counted_width": 1 << 31}, "counted_width is"),
        ("MEAN", {"channels": 0}, "channels is 0"),
        ("MEAN", {"input_row_bytes": 2**32 - 1}, "spm 0x0+"),
        ("TABLE", {"table": 32768 - 255}, "spm 0x7f01+256 > 32768"),
        ("CONV", {"output": 252}, "core 0 matrix 0x0 CONV (node a): its output overlaps its input"),
        ("CONV", {"output": 0}, "its output overlaps its input"),
        ("CONV", {"accumulators": 0, "keep_accumulators": 1}, "its output overlaps its input"),
        ("COPY", {"output": 0}, "its output overlaps its input"),
        ("COPY", {"output": 1}, "its output overlaps its input"),
        ("COPY", {"element_bytes": 3}, "element_bytes is not 1, 2, 4 or 8"),
        ("COPY", {"counts": (1, 1, 1, 0)}, "a count is 0"),
        ("COPY", {"input_strides": (0, -48, 16, 4)}, "spm 0xffff"),
        ("COPY", {"input": 1600, "input_strides": (0, -480, 16, -8)}, "its output overlaps its input"),
        ("FILL", {"output_strides": (0, 0, 100, 3)}, "writes a byte twice"),
        ("GATHER", {"index_count": 0}, "index_count is 0"),
        ("GATHER", {"index_type": 4}, "index_type is data type 4"),
        ("GATHER", {"extent": 2049}, "spm 0x0+32783 > 32768"),
        ("GATHER", {"indices": 1028}, "its output overlaps its input"),
        ("GATHER", {"output_step_bytes": 12}, "writes a byte twice"),
        ("LOAD_ROWS", {"extent": 1 << 20}, "dram 0x100+"),
        ("LOAD_ROWS", {"counts": (0, 1, 1)}, "a count is 0"),
        ("LOAD_ROWS", {"indices": 32764}, "spm 0x7ffc+"),
        ("BINARY", {"function": 20}, "function is 20"),
        ("BINARY", {"left_type": 5}, "left_type is data type 5"),
        ("BINARY", {"function": 2, "left_type": 9}, "left_type is data type 9"),
        ("BINARY", {"output_scale": float("inf")}, "scale is inf, not finite and positive"),
        ("SELECT", {"right_zero_point": 256}, "zero_point is 256, not in 0..255"),
        ("SELECT", {"condition": 1024}, "its output overlaps its input"),
        ("UNARY", {"function": 44}, "function is 44, not in 0..43"),
        ("UNARY", {"input_type": 77}, "input_type is data type 77"),
        ("CONVERT", {"output_type": 9}, "output_type is data type 9"),
        ("CONVERT", {"input_zero_point": 128}, "zero_point is 128, not in -128..127"),
        ("CONVERT", {"output_type": 5}, "a scale other than 1 without codes"),
        ("RESIZE", {"row_table": 32768 - 112}, "spm 0x7f90+128 > 32768"),
        ("RESIZE", {"function": 1}, "row_taps is 1, not in 2..2"),
        ("RESIZE", {"function": 2, "column_taps": 0}, "column_taps is 0"),
        ("RESIZE", {"function": 2, "row_taps": 500}, "spm 0x1000+64000 > 32768"),
        ("RESIZE", {"output_type": 1}, "nearest takes one type to another"),
        ("RESIZE", {"input_type": 9}, "input_type is data type 9"),
        ("SOFTMAX", {"counts": (1, 2, 0, 5)}, "a count is 0"),
        ("SOFTMAX", {"table": 4097}, "table is not 4-byte aligned"),
        ("SOFTMAX", {"line_axes": 12}, "axes of a line is 2, not in 0..1"),
        ("SOFTMAX", {"function": 3}, "function is 3"),
        ("REDUCE", {"line_axes": 16}, "line_axes is 16, not in 0..15"),
        ("REDUCE", {"line_axes": 2, "output_strides": (0, 15, 5, 0)}, "writes a byte twice"),
        ("REDUCE", {"counts": (1 << 20, 1 << 20, 1, 1)}, "more elements than one instruction may have"),
        ("REDUCE", {"function": 10}, "function is 10"),
        ("NORMALIZE", {"epsilon": -1.0}, "epsilon is negative or not finite"),
        ("NORMALIZE", {"input_scale": float("nan")}, "scale is"),
        ("NORMALIZE", {"output": 3}, "its output overlaps its input"),
        ("ARGREDUCE", {"function": 2}, "function is 2, not in 0..1"),
        ("ARGREDUCE", {"output_type": 0}, "output_type is data type 0"),
        ("LRN", {"size": 0}, "size is 0"),
    ],
)
def test_fields_and_bounds(name: str, change: dict[str, Any], message: str) -> None:
    engine, values = VALID[name]
    refused(Assembly(constants=bytes(200)).node("a").emit(0, engine, name, **{**values, **change}), message)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("COPY", {"output": 2}),  # between the elements it reads
        ("COPY", {"input": 600, "input_strides": (0, -48, 16, -4)}),
        ("TABLE", {"output": 0}),
        ("BINARY", {"output": 0}),
        ("CONV", {"load_accumulators": 1, "keep_accumulators": 1}),
        ("MATMUL", {"load_accumulators": 1, "keep_accumulators": 1}),
    ],
)
def test_outputs_among_the_inputs(name: str, change: dict[str, Any]) -> None:
    engine, values = VALID[name]
    Emulator(Assembly(constants=bytes(200)).emit(0, engine, name, **{**values, **change}).build()).close()


def _bytes_of(base: int, run: int, counts: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    starts = [base + sum(i * s for i, s in zip(index, strides, strict=True)) for index in np.ndindex(*counts)]
    return [start + offset for start in starts for offset in range(run)]


AXES = st.tuples(*[st.integers(1, 4)] * 4)
STRIDES = st.tuples(*[st.integers(0, 40)] * 4)


@FUZZ
@given(AXES, STRIDES, STRIDES, st.sampled_from([1, 2, 4]), st.integers(0, 60))
def test_overlaps_are_found_exactly(
    counts: tuple[int, ...], input_strides: tuple[int, ...], output_strides: tuple[int, ...], size: int, output: int
) -> None:
    """A COPY is accepted only if no byte is written twice or both read and written; one refused breaks a rule."""
    reads = _bytes_of(30, size, counts, input_strides)
    writes = _bytes_of(output, size, counts, output_strides)
    copy = Assembly().emit(0, VECTOR, "COPY", input=30, output=output, element_bytes=size, counts=counts,
                           input_strides=input_strides, output_strides=output_strides)  # fmt: skip
    try:
        Emulator(copy.build()).close()
    except ProgramError as error:
        if "overlaps its input" in str(error):
            assert set(reads) & set(writes)
        else:
            covered = size
            for stride, count in sorted((s, c) for s, c in zip(output_strides, counts, strict=True) if c > 1):
                if stride < covered:
                    break
                covered += stride * (count - 1)
            else:
                pytest.fail(str(error))
    else:
        assert not set(reads) & set(writes)
        assert len(set(writes)) == len(writes)


def test_a_transfer_needs_a_path() -> None:
    whole = everything().program()
    alone = replace(whole, paths=tuple(path for path in whole.paths if path["source"] != 0 or path["destination"] != 1))
    with pytest.raises(ProgramError, match=r"SEND \(node node\): the machine has no path for this transfer"):
        Emulator(alone.to_bytes())


def test_an_instruction_belongs_to_its_engine() -> None:
    refused(Assembly().emit(1, VECTOR, "CONV", **VALID["CONV"][1]),
            "core 1 vector 0x0 CONV: belongs to the matrix engine")  # fmt: skip


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
        (lambda p: replace(p, resources=({"bytes_per_ns": float("inf"), "name": "dram"},)), "resource 0: inf bytes/ns"),
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
    rows = range(header, header + 12 * size, size)
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
