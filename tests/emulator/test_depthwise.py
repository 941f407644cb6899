"""DEPTHWISE, at every kernel level, bit for bit against int64 NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npu_backend.isa import DataType
from tests.emulator.matrix_cases import (
    LEVELS,
    Operands,
    Scratchpad,
    Window,
    execute,
    expected_output,
    instruction_of,
    pack_blocks,
    random_operands,
    random_window,
    raw_sums,
    strided_image,
    with_types,
)
from tests.emulator.test_conv import MIXED


def check_levels(window: Window, operands: Operands, rng: np.random.Generator) -> None:
    blocks, parameters, block_bytes = pack_blocks(window, operands)
    codes = expected_output(window, operands)
    pieces = {
        "input": strided_image(operands.input, window.input_strides),
        "blocks": blocks,
        "output": strided_image(codes * np.uint8(0), window.output_strides),
    }
    spm, address = Scratchpad(rng, pieces).build(last=str(rng.choice(list(pieces))))
    address |= {"parameters": address["blocks"] + parameters}
    expected = spm.copy()
    output = expected[address["output"] :]
    np.lib.stride_tricks.as_strided(output, codes.shape, (*window.output_strides, 1))[...] = codes
    instruction = instruction_of(window, "DEPTHWISE", address, block_bytes)
    for name, level in LEVELS.items():
        np.testing.assert_array_equal(execute(instruction, spm, level), expected, err_msg=f"{name} {window}")


@pytest.mark.parametrize("seed", range(150))
def test_any_geometry(seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([1, 2, 15, 16, 17, 24, 32, 48, 63, 64, 65, 96, 144, 200]))
    window = random_window(rng, channels, channels)
    check_levels(window, random_operands(window, rng, depthwise=True), rng)


@pytest.mark.parametrize(("input_type", "output_type"), MIXED)
@pytest.mark.parametrize("seed", range(8))
def test_any_types(seed: int, input_type: DataType, output_type: DataType) -> None:
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([1, 2, 15, 16, 17, 33, 64, 100]))
    window = with_types(random_window(rng, channels, channels), rng, input_type, output_type)
    check_levels(window, random_operands(window, rng, depthwise=True), rng)


def test_sums_of_words_beyond_32_bits() -> None:
    rng = np.random.default_rng(7)
    window = Window(31, 30, 20, 2, 2, 20, kernel=(30, 29))
    window = with_types(window, rng, DataType.INT16, DataType.INT16)
    operands = random_operands(window, rng, depthwise=True)
    extreme = replace(
        operands,
        input=np.full_like(operands.input, -32768),
        weights=np.full_like(operands.weights, -128),
        multiplier=np.full(20, 1e-6, np.float32),
    )
    assert raw_sums(window, extreme).max() > 2**31
    check_levels(window, extreme, rng)


@pytest.mark.parametrize("channels", range(1, 131))
def test_every_channel_count(channels: int) -> None:
    rng = np.random.default_rng(channels)
    window = Window(4, 5, channels, 2, 3, channels, kernel=(3, 3), stride=(2, 2), pad_top=1, pad_left=1)
    window = replace(window, input_type=DataType(channels % 2), input_zero_point=5)
    check_levels(window, random_operands(window, rng, depthwise=True), rng)


@pytest.mark.parametrize("multiplier", [0.0, -0.25, 1e30, -1e30, np.inf, -np.inf])
def test_any_multiplier_saturates(multiplier: float) -> None:
    rng = np.random.default_rng(3)
    window = Window(6, 5, 40, 6, 5, 40, kernel=(3, 3), pad_top=1, pad_left=1, output_zero_point=17)
    operands = random_operands(window, rng, depthwise=True)
    check_levels(window, replace(operands, multiplier=np.full(40, multiplier, np.float32)), rng)


def test_large_windows_reach_across_strips() -> None:
    rng = np.random.default_rng(11)
    window = Window(40, 41, 20, 40, 41, 20, kernel=(9, 9), pad_top=4, pad_left=4, input_zero_point=200)
    check_levels(window, random_operands(window, rng, depthwise=True), rng)
