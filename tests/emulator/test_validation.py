"""Validation of instructions: every field out of its bounds is refused with a message that names it."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npu_backend.errors import EmulatorError, ProgramError
from npu_backend.isa import FORMATS
from npu_backend.runtime import Emulator
from tests.emulator.assembler import DRAM_BYTES, VECTOR, Assembly
from tests.emulator.valid_instructions import KERNEL, VALID, everything

TWO_BLOCKS = {"output_channels": 17, "output_column_bytes": 17, "output_row_bytes": 136}
FUZZ = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def refused(assembly: Assembly, message: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(message)):
        Emulator(assembly.build())


def test_every_opcode_has_a_valid_form() -> None:
    assert set(VALID) == {entry.name for entry in FORMATS}
    with Emulator(everything().build()) as emulator:
        assert emulator.instruction_count == len(FORMATS)
        # Timed without its native function; run with one that does nothing.
        emulator.time()
        with pytest.raises(EmulatorError, match=f"native function {KERNEL} is not bound"):
            emulator.run({"x": np.zeros((8, 32), np.uint8)})
        function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(lambda _: 0)
        assert emulator._functions.npu_bind_kernel(emulator._handle, 0, ctypes.cast(function, ctypes.c_void_p)) == 0
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
        ("RESIZE", {"function": 2, "row_taps": 60000, "channels": 200}, "row_taps times the elements of a row"),
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
