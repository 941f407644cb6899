"""Costs of single instructions: every expected figure is summed by hand beside it. One cycle is one nanosecond."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from npu_backend.cost import CostModel
from npu_backend.errors import NpuError
from npu_backend.isa import DataType, Instruction
from npu_backend.isa_functions import (
    BinaryFunction,
    PoolFunction,
    ReduceFunction,
    ResizeFunction,
    SoftmaxFunction,
    UnaryFunction,
)
from tests.emulator.replay import ARRAY, CORE, conv, depthwise, fill, instruction, load, machine


def pool(function: PoolFunction, data_type: DataType = DataType.INT8) -> Instruction:
    return instruction("POOL", output_height=4, output_width=4, output_channels=16, kernel_height=3, kernel_width=3,
                       function=function, input_type=data_type)  # fmt: skip


def binary(counts: tuple[int, ...], strides: tuple[int, ...]) -> Instruction:
    return instruction("BINARY", function=BinaryFunction.ADD_CODES, counts=counts, left_strides=strides,
                       right_strides=strides, output_strides=strides)  # fmt: skip


def in_float(left: DataType, right: DataType) -> Instruction:
    """256 elements."""
    byte, word = (0, 0, 0, 1), (0, 0, 0, 4)
    return instruction("BINARY", function=BinaryFunction.DIVIDE, counts=(1, 1, 1, 256), output_strides=byte,
                       left_strides=word if left == DataType.FLOAT32 else byte, left_type=left,
                       right_strides=word if right == DataType.FLOAT32 else byte, right_type=right)  # fmt: skip


def product(left: DataType, right: DataType) -> Instruction:
    """[9, 33] times [33, 20]."""
    return instruction("MATMUL", rows=9, inner=33, columns=20, left_type=left, right_type=right)


def of_halves(name: str, **values: Any) -> Instruction:
    """256 elements."""
    sides = ("input", "output") if name == "UNARY" else ("left", "right", "output")
    fields = {f"{side}_strides": (0, 0, 0, 2) for side in sides} | {f"{side}_type": DataType.FLOAT16 for side in sides}
    return instruction(name, counts=(1, 1, 1, 256), **{**fields, **values})


def elements(name: str, *, stride: int = 1, output_stride: int = 1, **values: Any) -> Instruction:
    """256 elements."""
    return instruction(name, counts=(1, 1, 4, 64), input_strides=(0, 0, 64 * stride, stride),
                       output_strides=(0, 0, 64 * output_stride, output_stride), **values)  # fmt: skip


def convert(source: DataType, output: DataType) -> Instruction:
    """256 elements."""
    return elements("CONVERT", input_type=source, output_type=output, stride=4 if source == DataType.FLOAT32 else 1,
                    output_stride=4 if output == DataType.FLOAT32 else 1)  # fmt: skip


def resize(function: ResizeFunction) -> Instruction:
    taps = {ResizeFunction.NEAREST: 1, ResizeFunction.BILINEAR: 2, ResizeFunction.SEPARABLE: 4}[function]
    return instruction("RESIZE", output_height=4, output_width=4, channels=16, function=function, row_taps=taps,
                       column_taps=taps)  # fmt: skip


def lines(name: str, data_type: DataType = DataType.INT8, **values: Any) -> Instruction:
    """Eight lines of 32 elements; a reduction's outputs lie close together."""
    size = 2 if data_type == DataType.FLOAT16 else 1
    output = (0, 0, size, 0) if name in ("REDUCE", "ARGREDUCE") else (0, 0, 32 * size, size)
    return instruction(name, counts=(1, 1, 8, 32), input_strides=(0, 0, 32 * size, size), output_strides=output,
                       line_axes=8, input_type=data_type, output_type=data_type, **values)  # fmt: skip


def replace_strides(step: Instruction) -> Instruction:
    """Every element a word of its own."""
    return replace(step, values={**step.values, "input_strides": (0, 0, 256, 8)})


COMPUTE: list[tuple[str, Instruction, float]] = [
    # Array 16 x 16 x 4, fill 7.
    ("1x1, full lanes", conv(4, 4, 16, 16), 1 * 1 * 4 + 7),  # 16 pixels in 4 steps
    ("1x1, all axes padded", conv(3, 3, 17, 33), 2 * 3 * 3 + 7),  # 2 input and 3 output blocks, ceil(9 / 4) pixels
    ("3x3", conv(8, 8, 32, 64, (3, 3)), 9 * 2 * 4 * 16 + 7),
    ("3 input channels pay for 16", conv(4, 4, 3, 16, (3, 3)), 9 * 1 * 1 * 4 + 7),
    ("int16 at a quarter", conv(4, 4, 16, 16, data_type=DataType.INT16), 4 / 0.25 + 7),
    ("depthwise 3x3", depthwise(4, 4, 24, (3, 3)), 2 * 4 * 9 + 7),  # 24 channels on 16 lanes, 16 pixels on 4
    ("product", product(DataType.INT8, DataType.UINT8), 3 * 2 * 3 + 7),  # inner, columns, rows on 16 x 16 x 4
    ("product of int16", product(DataType.INT8, DataType.INT16), 3 * 2 * 3 / 0.25 + 7),
    # 32 byte lanes, 8 banks of 4-byte words, fill 3; 256 elements unless said.
    ("max pool", pool(PoolFunction.MAXIMUM), 256 * 9 / 32 + 3),
    ("average pool", pool(PoolFunction.AVERAGE_VALID), 256 * (9 * 2 + 4) / 32 + 3),
    ("average pool of int16", pool(PoolFunction.AVERAGE_WINDOW, DataType.INT16), 256 * (9 * 4 + 4) / 32 + 3),
    ("mean", instruction("MEAN", input_height=4, input_width=4, channels=16), (16 * 16 * 2 + 16 * 4) / 32 + 3),
    ("table", elements("TABLE"), 256 / 32 + 3),
    ("copy of int32", elements("COPY", element_bytes=4, stride=4, output_stride=4), 256 * 4 / 32 + 3),
    ("gather", elements("COPY", element_bytes=1, stride=2), 256 / 8 + 3),  # a word an element, 8 a cycle
    ("copy backwards", elements("COPY", element_bytes=1, stride=-1), 256 / 32 + 3),  # the same words
    ("rows by index", instruction("GATHER", index_count=6, counts=(1, 1, 1), run_bytes=60), (6 * 60 + 6 * 4) / 32 + 3),
    ("single bytes by index",  # a word a byte
     instruction("GATHER", index_count=6, counts=(1, 4, 8), run_bytes=1, input_step_bytes=32, output_step_bytes=32,
                 input_strides=(0, 8, 1), output_strides=(0, 1, 4)), 6 * 32 / 8 + 3),
    ("fill", fill(100), 4 + 3),  # ceil(100 / 32)
    ("add", binary((1, 1, 1, 256), (0, 0, 0, 1)), 3 * 256 / 32 + 3),  # left, right, output
    ("add on 5 channels of 8", binary((1, 1, 64, 5), (0, 0, 8, 1)), 3 * 320 / 32 + 3),  # 64 runs of 2 words: 16 cycles
    ("add on single channels of 8", binary((1, 1, 64, 1), (0, 0, 8, 1)), 64 / 8 + 3),  # 64 words; 3 * 64 / 32 is less
    # Two dequantised, divided, quantised, each 4 bytes wide; a float operand needs no dequantising.
    ("divide", in_float(DataType.INT8, DataType.UINT8), 256 * 16 / 32 + 3),
    ("divide by floats", in_float(DataType.INT8, DataType.FLOAT32), 256 * 12 / 32 + 3),
    ("add of halves", of_halves("BINARY", function=BinaryFunction.ADD), 256 * 4 / 32 + 3),  # as they pass
    ("power of halves", of_halves("BINARY", function=BinaryFunction.POWER), 256 * 16 * 4 / 32 + 3),
    ("relu of halves", of_halves("UNARY", function=UnaryFunction.RELU), 256 * 4 / 32 + 3),
    ("relu of halves to codes",
     of_halves("UNARY", function=UnaryFunction.RELU, output_type=DataType.INT16), 256 * 8 / 32 + 3),
    ("exp of halves", of_halves("UNARY", function=UnaryFunction.EXP), 256 * 8 * 4 / 32 + 3),
    ("tanh of halves", of_halves("UNARY", function=UnaryFunction.TANH), 256 * 16 * 4 / 32 + 3),
    ("square of halves", of_halves("UNARY", function=UnaryFunction.POWER, alpha=2.0), 256 * 4 / 32 + 3),
    ("select of halves", of_halves("SELECT", condition_strides=(0, 0, 0, 1)), 256 * 4 / 32 + 3),
    ("quantize", convert(DataType.FLOAT32, DataType.INT8), 256 * 4 / 32 + 3),
    (
        "dequantize",
        convert(DataType.INT8, DataType.FLOAT32),
        256 * 4 / 32 + 3,
    ),
    ("nearest", resize(ResizeFunction.NEAREST), 256 / 32 + 3),
    ("bilinear", resize(ResizeFunction.BILINEAR), 256 * 8 / 32 + 3),  # four taps and the rounding in 4 bytes
    ("cubic", resize(ResizeFunction.SEPARABLE), 256 * 20 / 32 + 3),
    ("softmax", lines("SOFTMAX"), 256 * 9 / 32 + 3),  # the maximum, exponential and sum, scale
    ("softmax of float16", lines("SOFTMAX", DataType.FLOAT16, function=SoftmaxFunction.FLOAT), 256 * 10 / 32 + 3),
    ("maximum of lines", lines("REDUCE", function=ReduceFunction.MAXIMUM), (256 + 8 * 4) / 32 + 3),
    ("mean of lines", lines("REDUCE", function=ReduceFunction.MEAN), (256 * 2 + 8 * 4) / 32 + 3),
    ("sum of float16", lines("REDUCE", DataType.FLOAT16, function=ReduceFunction.SUM), (256 * 4 + 8 * 4) / 32 + 3),
    ("exponentials", lines("REDUCE", function=ReduceFunction.LOG_SUM_EXP), (256 * 5 + 8 * 4) / 32 + 3),
    ("mean of scattered elements", replace_strides(lines("REDUCE", function=ReduceFunction.MEAN)), 256 / 8 + 3),
    ("index", lines("ARGREDUCE"), 256 * 5 / 32 + 3),
    ("normalise", lines("NORMALIZE", subtract_mean=1), (256 * (2 + 8) + 8 * 4) / 32 + 3),
    ("normalise by squares", lines("NORMALIZE"), (256 * 8 + 8 * 4) / 32 + 3),
    ("local response", lines("LRN", size=5), 256 * 4 * (5 + 3) / 32 + 3),
    ("kernel", instruction("KERNEL", simple_bytes=96, special_bytes=64, access_bytes=99), (96 + 8 * 64) / 32 + 3),
    ("kernel that moves", instruction("KERNEL", simple_bytes=100, access_bytes=4097), 129 + 3),
]  # fmt: skip


@pytest.mark.parametrize(("step", "cycles"), [pytest.param(*row[1:], id=row[0]) for row in COMPUTE])
def test_cycles_of_one_instruction(step: Instruction, cycles: float) -> None:
    assert CostModel(machine()).instruction_ns(0, step) == pytest.approx(cycles)


@pytest.mark.parametrize(
    ("channels", "kernel", "steps"),
    [
        (3, (3, 3), 3),  # 5 taps fit in 16 lanes: a row of 3 at once
        (3, (7, 7), 7 * 2),  # 5 and 2 of a row
        (8, (3, 3), 3 * 2),  # 2 and 1
        (9, (3, 3), 9),  # one tap only
        (16, (3, 3), 9),
        (32, (3, 3), 18),
    ],
)
def test_a_folded_kernel_row_shares_the_lanes(channels: int, kernel: tuple[int, int], steps: int) -> None:
    folding = machine(core=replace(CORE, mac_array=replace(ARRAY, folds_kernel_width=True)))
    assert CostModel(folding).instruction_ns(0, conv(4, 4, channels, 16, kernel)) == pytest.approx(steps * 4 + 7)


@pytest.mark.parametrize(
    ("code", "blocks", "steps"),
    [(conv(3, 5, 32, 48, (3, 3)), 3 * 4, 2 * 9), (depthwise(3, 5, 40, (3, 3)), 3 * 4, 9)],
)
def test_every_block_of_sums_fills_and_drains_the_array(code: Instruction, blocks: int, steps: int) -> None:
    filling = machine(core=replace(CORE, mac_array=replace(ARRAY, fill_cycles=5)))
    assert CostModel(filling).instruction_ns(0, code) == pytest.approx(blocks * (steps + 5) + 7)


def test_clock_scales_cycles() -> None:
    fast = machine(core=replace(CORE, clock_mhz=2000))
    assert CostModel(fast).instruction_ns(0, conv(4, 4, 16, 16)) == pytest.approx((4 + 7) / 2)


def test_a_data_type_without_a_rate_is_refused() -> None:
    with pytest.raises(NpuError, match=r"CONV.*no rate"):
        CostModel(machine()).instruction_ns(0, conv(4, 4, 16, 16, data_type=DataType.FLOAT16))
    with pytest.raises(NpuError, match=r"MATMUL with inputs of type 4.*no rate"):
        CostModel(machine()).instruction_ns(0, product(DataType.UINT8, DataType.FLOAT32))


def test_only_compute_instructions_have_a_cost() -> None:
    with pytest.raises(NpuError, match="no instruction of the matrix or vector engine"):
        CostModel(machine()).instruction_ns(0, load(64))
