"""CONV, at every kernel level, bit for bit against int64 NumPy."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from npu_backend.isa import CHANNEL_BLOCK, WEIGHT_CHUNK, DataType
from tests.emulator.matrix_cases import (
    CODES,
    LEVELS,
    Bytes,
    Integers,
    Operands,
    Scratchpad,
    Window,
    code_range,
    dtype_of,
    execute,
    expected_output,
    float_sums,
    instruction_of,
    pack_blocks,
    random_operands,
    random_window,
    raw_sums,
    read_image,
    strided_image,
    sum_type,
    with_types,
)

# Every type of input with every type of output, but pairs of 8-bit codes, which have tests of their own.
_OUTPUTS = (DataType.UINT8, DataType.INT16, DataType.UINT16, DataType.FLOAT16, DataType.FLOAT32, DataType.INT32)
MIXED = [
    (source, output) for source in (*CODES, DataType.FLOAT16) for output in _OUTPUTS
    if not (source in CODES[:2] and output in CODES[:2]) and (source, output) != (DataType.FLOAT16, DataType.INT32)
]  # fmt: skip
SMALL = Window(6, 5, 3, 6, 5, 20, kernel=(3, 3), pad_top=1, pad_left=1)


def layout(window: Window, operands: Operands, rng: np.random.Generator) -> tuple[Bytes, dict[str, int], int]:
    """A scratchpad image with any of its pieces last, the pieces' addresses and the bytes of a block."""
    blocks, parameters, block_bytes = pack_blocks(window, operands)
    shape = (window.output_height, window.output_width, window.output_channels)
    output = np.zeros(shape, dtype_of(window.output_type))
    accumulators = np.prod(shape[:2]) * window.blocks * CHANNEL_BLOCK * sum_type(window.input_type).itemsize
    pieces = {
        "input": strided_image(operands.input, window.input_strides),
        "blocks": blocks,
        "output": strided_image(output, window.output_strides),
        "accumulators": np.zeros(accumulators, np.uint8),
    }
    spm, address = Scratchpad(rng, pieces).build(last=str(rng.choice(list(pieces))))
    return spm, address | {"parameters": address["blocks"] + parameters}, block_bytes


def expected_spm(spm: Bytes, address: int, window: Window, codes: Bytes) -> Bytes:
    """The scratchpad with the output written and every other byte as it was."""
    after = spm.copy()
    np.lib.stride_tricks.as_strided(after[address:], codes.shape, (*window.output_strides, 1))[...] = codes
    return after


def check_levels(window: Window, operands: Operands, rng: np.random.Generator) -> None:
    spm, address, block_bytes = layout(window, operands, rng)
    codes = expected_output(window, operands)
    expected = expected_spm(spm, address["output"], window, codes)
    instruction = instruction_of(window, "CONV", address, block_bytes)
    for name, level in LEVELS.items():
        np.testing.assert_array_equal(execute(instruction, spm, level), expected, err_msg=f"{name} {window}")


@pytest.mark.parametrize("seed", range(150))
def test_any_geometry(seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels = int(rng.choice([1, 2, 3, 4, 5, 16, 31, 63, 64, 65, 127, 128, 130, 200]))
    window = random_window(rng, channels, int(rng.integers(1, 100)))
    check_levels(window, random_operands(window, rng), rng)


@pytest.mark.parametrize(("input_type", "output_type"), MIXED)
@pytest.mark.parametrize("seed", range(12))
def test_any_types(seed: int, input_type: DataType, output_type: DataType) -> None:
    rng = np.random.default_rng(seed)
    window = random_window(rng, int(rng.choice([1, 3, 5, 16, 63, 64, 65, 130])), int(rng.integers(1, 100)))
    window = with_types(window, rng, input_type, output_type)
    check_levels(window, random_operands(window, rng), rng)


@pytest.mark.parametrize("pixels", range(1, 45))
@pytest.mark.parametrize("input_type", [DataType.UINT8, DataType.INT8])
def test_every_tile_width(pixels: int, input_type: DataType) -> None:
    rng = np.random.default_rng(pixels)
    for output_channels in (16, 33, 64, 150):
        window = Window(1, pixels, 21, 1, pixels, output_channels, input_type=input_type, input_zero_point=7)
        check_levels(window, random_operands(window, rng), rng)


@pytest.mark.parametrize("pixels", [1, 2, 3, 5, 13, 14, 15, 29, 42, 43, 57])
@pytest.mark.parametrize("input_type", [DataType.INT16, DataType.FLOAT16])
def test_every_tile_width_of_two_bytes(pixels: int, input_type: DataType) -> None:
    rng = np.random.default_rng(pixels)
    for output_channels in (5, 16, 33, 64, 90):
        window = Window(1, pixels, 21, 1, pixels, output_channels)
        window = with_types(window, rng, input_type, DataType.FLOAT16)
        check_levels(window, random_operands(window, rng), rng)


@pytest.mark.parametrize("types", [None, *MIXED], ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_reduction_in_tiles_of_channels(seed: int, types: tuple[DataType, DataType] | None) -> None:
    rng = np.random.default_rng(seed)
    window = random_window(rng, int(rng.integers(65, 300)), int(rng.integers(1, 40)))
    if types is not None:
        window = with_types(window, rng, *types)
    operands = random_operands(window, rng)
    spm, address, block_bytes = layout(window, operands, rng)
    cuts = [0, WEIGHT_CHUNK * int(rng.integers(1, -(-window.channels // WEIGHT_CHUNK))), window.channels]
    expected = expected_output(window, operands)
    for level in LEVELS.values():
        after = spm
        for low, high in pairwise(cuts):
            tile = instruction_of(
                window,
                "CONV",
                address,
                block_bytes,
                input=address["input"] + low * operands.input.itemsize,
                input_channels=high - low,
                weights=address["blocks"] + low * np.prod(window.kernel) * CHANNEL_BLOCK * operands.weights.itemsize,
                accumulators=address["accumulators"],
                load_accumulators=int(low > 0),
                keep_accumulators=int(high < window.channels),
            )
            after = execute(tile, after, level)
        np.testing.assert_array_equal(read_image(after, address["output"], window), expected)


def kept(window: Window, operands: Operands, level: int, before: Integers | None) -> Integers:
    """The accumulators [oh, ow, blocks * 16] that an instruction keeps, on top of those in `before`."""
    spm, address, block_bytes = layout(window, operands, np.random.default_rng(1))
    shape = (window.output_height, window.output_width, window.blocks * CHANNEL_BLOCK)
    part = slice(address["accumulators"], address["accumulators"] + 4 * int(np.prod(shape)))
    if before is not None:
        spm[part] = before.astype(np.int32).reshape(-1).view(np.uint8)
    changes = {
        "accumulators": address["accumulators"],
        "load_accumulators": int(before is not None),
        "keep_accumulators": 1,
    }
    after = execute(instruction_of(window, "CONV", address, block_bytes, **changes), spm, level)
    return after[part].copy().view(np.int32).reshape(shape).astype(np.int64)


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_accumulators_are_plain_sums_that_wrap(level: int) -> None:
    rng = np.random.default_rng(5)
    window = replace(SMALL, input_type=DataType.INT8, input_zero_point=-9)
    operands = random_operands(window, rng)
    sums = np.pad(raw_sums(window, operands), ((0, 0), (0, 0), (0, 12)))
    np.testing.assert_array_equal(kept(window, operands, level, None), sums)
    before = rng.integers(-(2**31), 2**31, sums.shape)
    np.testing.assert_array_equal(kept(window, operands, level, before), (sums + before).astype(np.int32))


@pytest.mark.parametrize(
    "multiplier",
    [0.0, 0.5, -0.25, 1e30, -1e30, np.inf, -np.inf, np.finfo(np.float32).tiny],
)
def test_any_multiplier_saturates(multiplier: float) -> None:
    rng = np.random.default_rng(3)
    operands = random_operands(SMALL, rng)
    operands = replace(operands, multiplier=np.full(SMALL.output_channels, multiplier, np.float32))
    check_levels(SMALL, operands, rng)


@pytest.mark.parametrize("input_type", [DataType.INT16, DataType.UINT16])
def test_sums_of_words_beyond_32_bits(input_type: DataType) -> None:
    rng = np.random.default_rng(7)
    window = Window(5, 4, 300, 5, 4, 20, kernel=(3, 3), pad_top=1, pad_left=1)
    window = with_types(window, rng, input_type, DataType.INT16)
    operands = random_operands(window, rng)
    extreme = replace(
        operands,
        input=np.full_like(operands.input, code_range(input_type)[0]),
        weights=np.full_like(operands.weights, -128),
        multiplier=np.full(20, 1e-6, np.float32),
    )
    assert raw_sums(window, extreme).max() > 2**32
    check_levels(window, extreme, rng)


def test_sums_of_halves_are_rounded_product_by_product() -> None:
    """Large products that cancel swallow small ones, and which depends on the order."""
    rng = np.random.default_rng(8)
    window = with_types(replace(SMALL, channels=70), rng, DataType.FLOAT16, DataType.FLOAT32)
    operands = random_operands(window, rng)
    scattered = operands.input * np.exp2(rng.integers(-8, 9, operands.input.shape)).astype(np.float16)
    operands = replace(operands, input=scattered)
    sums = float_sums(window, operands)
    backwards = replace(operands, input=scattered[..., ::-1], weights=operands.weights[..., ::-1])
    assert np.any(sums != float_sums(window, backwards))
    check_levels(window, operands, rng)


def test_halves_beyond_their_range() -> None:
    """Finite sums stay finite, infinite ones infinite, and what is no number none, at every level."""
    rng = np.random.default_rng(9)
    window = with_types(SMALL, rng, DataType.FLOAT16, DataType.FLOAT16)
    operands = random_operands(window, rng)
    large = operands.input * np.exp2(rng.integers(0, 13, operands.input.shape)).astype(np.float16)
    large.reshape(-1)[::37] = np.inf
    operands = replace(operands, input=large.astype(np.float16), multiplier=operands.multiplier * 256)
    with np.errstate(invalid="ignore"):
        outputs = expected_output(window, operands).view(np.float16)
        check_levels(window, operands, rng)
    assert {65504.0, -65504.0, np.inf, -np.inf} <= set(outputs.reshape(-1).tolist())


def test_ties_round_to_even() -> None:
    rng = np.random.default_rng(4)
    window = Window(1, 200, 1, 1, 200, 16, output_zero_point=3)
    operands = random_operands(window, rng)
    operands = replace(
        operands,
        input=np.arange(200, dtype=np.uint8).reshape(1, 200, 1),
        weights=np.ones((16, 1, 1, 1), np.int8),
        bias=np.zeros(16, np.int32),
        multiplier=np.full(16, 0.5, np.float32),
    )
    check_levels(window, operands, rng)


def test_extreme_codes_do_not_saturate_inside() -> None:
    rng = np.random.default_rng(6)
    window = Window(4, 4, 200, 4, 4, 16, kernel=(3, 3), pad_top=1, pad_left=1, input_zero_point=255)
    operands = random_operands(window, rng)
    for weight in (-128, 127):
        extreme = replace(
            operands,
            input=np.full_like(operands.input, 255),
            weights=np.full_like(operands.weights, weight),
            multiplier=np.full(16, 1e-6, np.float32),
        )
        check_levels(replace(window, output_zero_point=100), extreme, rng)


def test_bytes_behind_the_channels_do_not_count() -> None:
    """Weights of missing channels are ignored even where a program leaves them non-zero."""
    rng = np.random.default_rng(8)
    window = replace(SMALL, channels=5, input_gap=3, input_zero_point=77)
    operands = random_operands(window, rng)
    spm, address, block_bytes = layout(window, operands, rng)
    instruction = instruction_of(window, "CONV", address, block_bytes)
    expected = execute(instruction, spm, 1)
    groups = spm[address["blocks"] : address["blocks"] + 9 * 2 * 64].reshape(9, 2, 16, 4)
    groups[:, 1, :, 1:] = rng.integers(1, 256, (9, 16, 3))
    codes = read_image(expected, address["output"], window)
    for level in LEVELS.values():
        after = execute(instruction, spm, level)
        np.testing.assert_array_equal(read_image(after, address["output"], window), codes)


def test_interleaved_output_keeps_its_neighbours() -> None:
    """As for a transposed convolution: one phase writes every second pixel of every second row."""
    rng = np.random.default_rng(9)
    window = replace(SMALL, output_gap=20, output_row_gap=200)
    check_levels(window, random_operands(window, rng), rng)
