"""Random CONV and DEPTHWISE cases, their scratchpad images, and the plainest NumPy statement of what they compute."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npu_backend.graph import Tensor
from npu_backend.isa import CHANNEL_BLOCK, WEIGHT_CHUNK, WEIGHT_GROUP, DataType, Instruction
from npu_backend.ops.numerics_core import encode
from tests.emulator import scratchpad

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]
Codes = NDArray[np.integer[Any]]

GAP_BYTE = 0xA5
LEVELS = {"portable": 1, "avx2": 2, "avx512": 3}
CODES = (DataType.UINT8, DataType.INT8, DataType.UINT16, DataType.INT16)


def dtype_of(data_type: DataType) -> np.dtype[Any]:
    """NumPy's type."""
    return np.dtype(data_type.name.lower())


def sum_type(data_type: DataType) -> np.dtype[Any]:
    """What products with inputs of a type are summed in."""
    if data_type == DataType.FLOAT16:
        return np.dtype(np.float32)
    return np.dtype(np.int64 if dtype_of(data_type).itemsize == 2 else np.int32)


@dataclass(frozen=True)
class Window:
    """Geometry and quantisation of one case; lengths in pixels, channels or bytes as the instruction has them."""

    height: int
    width: int
    channels: int
    output_height: int
    output_width: int
    output_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad_top: int = 0
    pad_left: int = 0
    input_type: DataType = DataType.UINT8
    output_type: DataType = DataType.UINT8
    input_zero_point: int = 0
    output_zero_point: int = 0
    clamp_low: int = 0
    clamp_high: int = 255
    input_gap: int = 0
    input_row_gap: int = 0
    output_gap: int = 0
    output_row_gap: int = 0

    @property
    def blocks(self) -> int:
        """Blocks of output channels."""
        return -(-self.output_channels // CHANNEL_BLOCK)

    @property
    def input_strides(self) -> tuple[int, int]:
        """Bytes from row to row and from pixel to pixel."""
        column = self.channels * dtype_of(self.input_type).itemsize + self.input_gap
        return self.width * column + self.input_row_gap, column

    @property
    def output_strides(self) -> tuple[int, int]:
        """The same for the output."""
        column = self.output_channels * dtype_of(self.output_type).itemsize + self.output_gap
        return self.output_width * column + self.output_row_gap, column


@dataclass(frozen=True)
class Operands:
    """Input [h, w, c], weights [oc, kh, kw, c] (depthwise: [c, kh, kw, 1]), bias and multiplier [oc].

    Weights are int8, of float16 inputs float16; the bias has the type of the sums.
    """

    input: NDArray[Any]
    weights: NDArray[Any]
    bias: NDArray[Any]
    multiplier: NDArray[np.float32]
    depthwise: bool = False


@dataclass
class Scratchpad:
    """Pieces put one after another; addresses are kept by name."""

    rng: np.random.Generator
    pieces: dict[str, Bytes]
    alignment: int = 1

    def build(self, last: str | None = None) -> tuple[Bytes, dict[str, int]]:
        """The image, garbage in its gaps, with piece `last` ending at its last byte; the pieces' addresses."""
        names = [name for name in self.pieces if name != last] + ([last] if last else [])
        address, size = {}, 0
        for name in names:
            size += int(self.rng.integers(0, 40))
            size += -size % self.alignment
            address[name] = size
            size += self.pieces[name].size
        image = self.rng.integers(0, 256, size, dtype=np.uint8)
        for name in names:
            image[address[name] : address[name] + self.pieces[name].size] = self.pieces[name]
        return image, address


def execute(instruction: Instruction, spm: Bytes, level: int) -> Bytes:
    """The scratchpad after one instruction."""
    after = spm.copy()
    scratchpad.execute(level, after, {"name": instruction.name, **instruction.values})
    return after


def random_operands(window: Window, rng: np.random.Generator, depthwise: bool = False) -> Operands:
    """Full-range codes and weights; multipliers that spread the results over the output's codes and beyond."""
    shape = (window.height, window.width, window.channels)
    taps = (window.output_channels, *window.kernel, 1 if depthwise else window.channels)
    spread = rng.uniform(0.1, 2, window.output_channels) / np.sqrt(np.prod(taps[1:]))
    if window.input_type == DataType.FLOAT16:
        values, weights = rng.normal(0, 3, shape).astype(np.float16), rng.normal(0, 1, taps).astype(np.float16)
        bias, wanted = rng.normal(0, 5, window.output_channels), 30 if window.output_type in CODES else 1
        return Operands(values, weights, bias.astype(np.float32), (wanted * spread).astype(np.float32), depthwise)
    info = np.iinfo(dtype_of(window.input_type))
    codes: Codes = rng.integers(info.min, info.max, shape, endpoint=True).astype(info.dtype)
    weights = rng.integers(-128, 128, taps, dtype=np.int8)
    bias = rng.integers(-20000, 20000, window.output_channels).astype(sum_type(window.input_type))
    steps = 256.0 ** (dtype_of(window.output_type).itemsize - dtype_of(window.input_type).itemsize)
    multiplier = (100 / 7500 * (steps if window.output_type in CODES else 0.001) * spread).astype(np.float32)
    return Operands(codes, weights, bias, multiplier, depthwise)


def expected_output(window: Window, operands: Operands) -> Bytes:
    """The output's raw bytes [oh, ow, oc * element bytes]."""
    sums = float_sums(window, operands) if window.input_type == DataType.FLOAT16 else raw_sums(window, operands)
    return finish(window, operands, sums)


def float_sums(window: Window, operands: Operands) -> NDArray[np.float32]:
    """float32 [oh, ow, oc], one product after another over [chunk of channels][ky][kx][channel]."""
    rows, columns = _positions(window)
    sums = np.zeros((window.output_height, window.output_width, window.output_channels), np.float32)
    weights = operands.weights.astype(np.float32)
    for chunk in range(0, weights.shape[3], WEIGHT_CHUNK):
        for (ky, y), (kx, x) in product(enumerate(rows), enumerate(columns)):
            taken = _pixels_at(operands.input, y, x, 0).astype(np.float32)
            if operands.depthwise:
                sums += taken * weights[:, ky, kx, 0]
                continue
            for channel in range(chunk, min(chunk + WEIGHT_CHUNK, window.channels)):
                sums += taken[..., channel, None] * weights[:, ky, kx, channel]
    return sums


def raw_sums(window: Window, operands: Operands) -> Integers:
    """Sums of raw code times weight, int64 [oh, ow, oc]; a uint16 counts as 32768 less."""
    rows, columns = _positions(window)
    offset = 32768 if window.input_type == DataType.UINT16 else 0
    sums = np.zeros((window.output_height, window.output_width, window.output_channels), np.int64)
    for ky, y in enumerate(rows):
        for kx, x in enumerate(columns):
            taken = _pixels_at(operands.input.astype(np.int64), y, x, window.input_zero_point) - offset
            weights = operands.weights[:, ky, kx].astype(np.int64)
            sums += taken * weights[:, 0] if operands.depthwise else taken @ weights.T
    return sums


def _positions(window: Window) -> tuple[list[Integers], list[Integers]]:
    """Input rows and columns of every tap, for every output row and column."""
    rows = _tap_positions(window.output_height, window.stride[0], window.pad_top, window.kernel[0], window.dilation[0])
    columns = _tap_positions(
        window.output_width, window.stride[1], window.pad_left, window.kernel[1], window.dilation[1]
    )
    return rows, columns


def _tap_positions(outputs: int, stride: int, pad: int, kernel: int, dilation: int) -> list[Integers]:
    return [np.arange(outputs) * stride - pad + tap * dilation for tap in range(kernel)]


def _pixels_at(codes: NDArray[Any], y: Integers, x: Integers, padding: int) -> NDArray[Any]:
    height, width, channels = codes.shape
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
    taken = codes[np.clip(y, 0, height - 1)][:, np.clip(x, 0, width - 1)]
    return np.where(inside[:, :, None], taken, np.full(channels, padding, codes.dtype))


def finish(window: Window, operands: Operands, sums: NDArray[Any]) -> Bytes:
    """The output's raw bytes [oh, ow, oc * element bytes]."""
    total = (sums + operands.bias).astype(sum_type(window.input_type))
    dtype = dtype_of(window.output_type)
    if window.output_type == DataType.INT32:
        return total.astype(dtype).view(np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        real = total.astype(np.float32) * operands.multiplier
        if window.output_type not in CODES:
            return encode(real, Tensor("y", (), dtype.name)).view(np.uint8)
        codes = np.rint(real).astype(np.float64) + window.output_zero_point
    return np.clip(codes, window.clamp_low, window.clamp_high).astype(dtype).view(np.uint8)


def pack_conv_weights(weights: NDArray[Any], block: int) -> Bytes:
    """One block's weights as isa.py lays them out for CONV."""
    taken = weights[block * CHANNEL_BLOCK : (block + 1) * CHANNEL_BLOCK]
    missing = -weights.shape[3] % _group(weights)
    padded = np.pad(taken, ((0, CHANNEL_BLOCK - len(taken)), (0, 0), (0, 0), (0, missing)))
    chunks = [padded[..., at : at + WEIGHT_CHUNK] for at in range(0, padded.shape[3], WEIGHT_CHUNK)]
    return np.concatenate([_pack_chunk(chunk) for chunk in chunks]).view(np.uint8)


def _group(weights: NDArray[Any]) -> int:
    return WEIGHT_GROUP if weights.dtype == np.int8 else 1


def _pack_chunk(chunk: NDArray[Any]) -> NDArray[Any]:
    outputs, height, width, channels = chunk.shape
    grouped = chunk.reshape(outputs, height, width, channels // _group(chunk), _group(chunk))
    return np.ascontiguousarray(grouped.transpose(1, 2, 3, 0, 4)).reshape(-1)


def pack_depthwise_weights(weights: NDArray[Any], block: int) -> Bytes:
    """One block's weights as isa.py lays them out for DEPTHWISE."""
    taken = weights[block * CHANNEL_BLOCK : (block + 1) * CHANNEL_BLOCK, :, :, 0]
    padded = np.pad(taken, ((0, CHANNEL_BLOCK - len(taken)), (0, 0), (0, 0)))
    return np.ascontiguousarray(padded.transpose(1, 2, 0)).reshape(-1).view(np.uint8)


def _pack_parameters(operands: Operands, block: int) -> Bytes:
    part = slice(block * CHANNEL_BLOCK, (block + 1) * CHANNEL_BLOCK)
    missing = (0, CHANNEL_BLOCK - operands.bias[part].size)
    bias, multiplier = np.pad(operands.bias[part], missing), np.pad(operands.multiplier[part], missing)
    return np.concatenate([bias.view(np.uint8), multiplier.view(np.uint8)])


def pack_blocks(window: Window, operands: Operands) -> tuple[Bytes, int, int]:
    """All blocks, each weights then parameters; the parameters' offset in a block and the bytes of a block."""
    pack = pack_depthwise_weights if operands.depthwise else pack_conv_weights
    blocks = [
        np.concatenate([pack(operands.weights, block), _pack_parameters(operands, block)])
        for block in range(window.blocks)
    ]
    return np.concatenate(blocks), blocks[0].size - _pack_parameters(operands, 0).size, blocks[0].size


def strided_image(codes: NDArray[Any], strides: tuple[int, int]) -> Bytes:
    """Raw bytes of [h, w, c] elements at row and column strides; it ends with the last pixel's last channel."""
    raw = np.ascontiguousarray(codes).view(np.uint8)
    height, width, pixel_bytes = raw.shape
    image = np.full((height - 1) * strides[0] + (width - 1) * strides[1] + pixel_bytes, GAP_BYTE, np.uint8)
    np.lib.stride_tricks.as_strided(image, raw.shape, (*strides, 1))[...] = raw
    return image


def read_image(spm: Bytes, address: int, window: Window) -> Bytes:
    """The output's raw bytes [oh, ow, oc * element bytes] out of a scratchpad."""
    pixel_bytes = window.output_channels * dtype_of(window.output_type).itemsize
    shape = (window.output_height, window.output_width, pixel_bytes)
    return np.lib.stride_tricks.as_strided(spm[address:], shape, (*window.output_strides, 1)).copy()


def instruction_of(window: Window, name: str, address: dict[str, int], block_bytes: int, **changes: int) -> Instruction:
    """CONV or DEPTHWISE of a window whose pieces lie at `address`; `changes` set further fields."""
    values = {
        "input": address["input"],
        "input_row_bytes": window.input_strides[0],
        "input_column_bytes": window.input_strides[1],
        "input_height": window.height,
        "input_width": window.width,
        "input_channels": window.channels,
        "output": address["output"],
        "output_row_bytes": window.output_strides[0],
        "output_column_bytes": window.output_strides[1],
        "output_height": window.output_height,
        "output_width": window.output_width,
        "output_channels": window.output_channels,
        "kernel_height": window.kernel[0],
        "kernel_width": window.kernel[1],
        "stride_height": window.stride[0],
        "stride_width": window.stride[1],
        "dilation_height": window.dilation[0],
        "dilation_width": window.dilation[1],
        "pad_top": window.pad_top,
        "pad_left": window.pad_left,
        "input_type": int(window.input_type),
        "output_type": int(window.output_type),
        "input_zero_point": window.input_zero_point,
        "output_zero_point": window.output_zero_point,
        "clamp_low": window.clamp_low,
        "clamp_high": window.clamp_high,
        "weights": address["blocks"],
        "parameters": address["parameters"],
        "block_bytes": block_bytes,
    }
    if name == "CONV":
        values |= {"accumulators": 0, "load_accumulators": 0, "keep_accumulators": 0}
    return Instruction(name, values | changes)


def random_window(rng: np.random.Generator, channels: int, output_channels: int) -> Window:
    """Any geometry the instruction allows, small enough to compute in NumPy."""

    def draw(low: int, high: int) -> int:
        return int(rng.integers(low, high))

    def gap() -> int:
        return int(rng.choice([0, 1, 3, 16, 37]))

    shapes = [(1, 1), (3, 3), (5, 5), (1, 7), (7, 1), (2, 3)]
    kernel = shapes[draw(0, len(shapes))]
    dilation = (draw(1, 4), draw(1, 4))
    bound = int(rng.choice([2, 9, 20]))
    window = Window(
        draw(1, bound),
        draw(1, bound),
        channels,
        draw(1, bound),
        draw(1, bound),
        output_channels,
        kernel=kernel,
        stride=(draw(1, 4), draw(1, 4)),
        dilation=dilation,
        pad_top=draw(-3, kernel[0] * dilation[0] + 4),
        pad_left=draw(-3, kernel[1] * dilation[1] + 4),
        input_gap=gap(),
        input_row_gap=gap(),
        output_gap=gap(),
        output_row_gap=gap(),
    )
    return with_random_types(window, rng)


def with_random_types(window: Window, rng: np.random.Generator) -> Window:
    """The window with random 8-bit types, zero points and bounds."""
    return with_types(window, rng, DataType(int(rng.integers(2))), DataType(int(rng.integers(2))))


def with_types(window: Window, rng: np.random.Generator, input_type: DataType, output_type: DataType) -> Window:
    """The window with these types, and random zero points and bounds where they are codes."""
    low_in, high_in = code_range(input_type)
    low_out, high_out = code_range(output_type)
    zero_point = int(rng.integers(low_out, high_out, endpoint=True))
    relu = bool(rng.integers(2))
    return replace(
        window,
        input_type=input_type,
        output_type=output_type,
        input_zero_point=int(rng.integers(low_in, high_in, endpoint=True)),
        output_zero_point=zero_point,
        clamp_low=zero_point if relu else low_out,
        clamp_high=high_out,
    )


def code_range(data_type: DataType) -> tuple[int, int]:
    """Lowest and highest code; of what has no codes, zeros."""
    if data_type not in CODES:
        return 0, 0
    info = np.iinfo(dtype_of(data_type))
    return int(info.min), int(info.max)
