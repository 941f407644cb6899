"""What the operators of the matrix engine share: constants, groups of channels, fields, and the end of the sums.

Activations are codes with int8 weights, or float16 with float16 weights. Whatever the output's data type, it is
``encode(float32(sum + bias) * multiplier)``, but for int32, which is ``sum + bias`` itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import CODES, Graph, Op, Tensor
from npu_backend.isa import CHANNEL_BLOCK, DATA_TYPES
from npu_backend.ops import numerics_conv as numerics
from npu_backend.ops.base import Address, Operand, OpSpec, Tile
from npu_backend.ops.numerics_core import integer_range
from npu_backend.ops.packing import (
    dense_bytes,
    depthwise_bytes,
    folded_bias,
    pack_dense,
    pack_depthwise,
    parameter_bytes,
)

NO_ACCUMULATORS = {"accumulators": 0, "load_accumulators": 0, "keep_accumulators": 0}


@dataclass(frozen=True)
class MatrixConstants:
    """The constant inputs of a convolution or a matrix product; float weights have no scale."""

    weight: np.ndarray
    weight_scale: np.ndarray | None
    bias: np.ndarray | None

    @staticmethod
    def of(graph: Graph, op: Op) -> MatrixConstants:
        """Reads them from the operator's inputs: x, weight, weight_scale if the weight is int8, and maybe bias."""
        weight, *rest = (graph.constants[name] for name in op.inputs if name in graph.constants)
        scale = rest.pop(0) if weight.dtype == np.int8 else None
        return MatrixConstants(weight, scale, rest[0] if rest else None)


class MatrixSpec(OpSpec):
    """A convolution, or a product with a constant matrix."""

    forms = (*CODES, "float16")

    def wrong_types(self, graph: Graph, op: Op) -> str | None:
        """Codes go with int8 weights and an int32 bias, float16 with float16 and float32; only codes are clamped."""
        x, y, constants = graph.tensor(op.inputs[0]), graph.tensor(op.output), MatrixConstants.of(graph, op)
        weight, bias = ("float16", "float32") if x.quantization is None else ("int8", "int32")
        if constants.weight.dtype != weight:
            return f"multiplies {x.dtype} by {constants.weight.dtype} weights instead of {weight}"
        if constants.bias is not None and constants.bias.dtype != bias:
            return f"adds a {constants.bias.dtype} bias to sums of {x.dtype} instead of {bias}"
        if op.attributes.clamp is not None and y.quantization is None:
            return f"clamps {y.dtype}, which is no code"
        return super().wrong_types(graph, op)


def zero_point_of(tensor: Tensor) -> int:
    """The code of zero; of a float, 0."""
    return 0 if tensor.quantization is None else tensor.quantization.zero_point


def sum_type(tensor: Tensor) -> np.dtype[np.generic]:
    """What products with a tensor's elements are summed in: codes exactly, 8-bit ones wrapping around in int32."""
    if tensor.quantization is None:
        return np.dtype(np.float32)
    return np.dtype(np.int64 if tensor.itemsize == 2 else np.int32)


def multipliers(graph: Graph, op: Op, channels: int) -> np.ndarray:
    """float32 ``[channels]``: what the sums of every output channel are multiplied with."""
    source, result = graph.tensor(op.inputs[0]), graph.tensor(op.output)
    in_scale = np.float32(source.quantization.scale if source.quantization else 1)
    out_scale = np.float32(result.quantization.scale if result.quantization else 1)
    weight_scale = MatrixConstants.of(graph, op).weight_scale
    factors = numerics.output_multipliers(in_scale, np.float32(1) if weight_scale is None else weight_scale, out_scale)
    return np.broadcast_to(factors, (channels,))


def finish(graph: Graph, op: Op, sums: np.ndarray) -> np.ndarray:
    """The output from the sums, bias included, channel last."""
    result, factors = graph.tensor(op.output), multipliers(graph, op, sums.shape[-1])
    if result.dtype == "int32":
        return sums.astype(np.int32)
    if result.quantization is None:
        return numerics.dequantize_sums(sums, factors, result.dtype)
    codes = numerics.requantize_sums(sums, factors, result.quantization.zero_point, result.dtype)
    return codes if op.attributes.clamp is None else np.clip(codes, *op.attributes.clamp).astype(result.dtype)


def engine_bias(graph: Graph, op: Op, weight: np.ndarray) -> np.ndarray:
    """``[o]`` of the sums' type: what the engine adds to its sums over raw inputs, of weight ``[o, i, kh, kw]``."""
    source, bias = graph.tensor(op.inputs[0]), MatrixConstants.of(graph, op).bias
    if source.quantization is None:
        return np.zeros(len(weight), np.float32) if bias is None else bias
    # The engine takes a uint16 as 32768 less, so that it is an int16.
    zero_point = source.quantization.zero_point - (32768 if source.dtype == "uint16" else 0)
    return folded_bias(weight, bias, zero_point).astype(sum_type(source))


def is_depthwise(graph: Graph, op: Op) -> bool:
    """Whether every channel has its own single filter."""
    channels = [graph.tensor(name).shape[3] for name in (op.inputs[0], op.output)]
    return bool(op.attributes.groups > 1 and channels == [op.attributes.groups] * 2)


def channel_multiple(graph: Graph, op: Op) -> int:
    """Output channels of a row of packed weights: a block, or a group that is not made of blocks."""
    made = graph.tensor(op.output).shape[3] // op.attributes.groups
    return CHANNEL_BLOCK if made % CHANNEL_BLOCK == 0 or op.attributes.groups == 1 or is_depthwise(graph, op) else made


def input_channels(graph: Graph, op: Op, outputs: tuple[int, int]) -> tuple[int, int]:
    """The input channels of the groups of an interval of output channels."""
    groups = op.attributes.groups
    made, read = (graph.tensor(name).shape[3] // groups for name in (op.output, op.inputs[0]))
    return outputs[0] // made * read, -(-outputs[1] // made) * read


def weight_rows(graph: Graph, op: Op, weight: np.ndarray) -> np.ndarray:
    """Weight ``[o, i / groups, kh, kw]`` as packed rows, each of `channel_multiple` output channels."""
    bias, factors = engine_bias(graph, op, weight), multipliers(graph, op, len(weight))
    if is_depthwise(graph, op):
        return pack_depthwise(weight, bias, factors)
    groups = op.attributes.groups
    parts = [pack_dense(*part) for part in zip(*(np.split(each, groups) for each in (weight, bias, factors)))]
    blocks = channel_multiple(graph, op) == CHANNEL_BLOCK
    return np.concatenate(parts) if blocks else np.stack([part.reshape(-1) for part in parts])


def tile_groups(graph: Graph, op: Op, tile: Tile) -> Sequence[int]:
    """Groups that take an instruction each; what is dense or depthwise is one."""
    if op.attributes.groups == 1 or is_depthwise(graph, op):
        return (0,)
    start, stop = tile.output.box.interval(3)
    made = graph.tensor(op.output).shape[3] // op.attributes.groups
    return range(start // made, -(-stop // made))


def group_operands(graph: Graph, op: Op, tile: Tile, group: int) -> tuple[Operand, Operand, Address]:
    """Input, output and packed weights of one of the tile's groups, of which the tile may hold a part."""
    source, output, constant = tile.inputs[0], tile.output, tile.constants[0]
    if op.attributes.groups == 1 or is_depthwise(graph, op):
        return source, output, constant.address
    made, read = (graph.tensor(name).shape[3] // op.attributes.groups for name in (op.output, op.inputs[0]))
    start, stop = output.box.interval(3)
    first, last = max(start, group * made), min(stop, (group + 1) * made)
    row = first // channel_multiple(graph, op)
    return (
        source.narrow(source.box.with_interval(3, group * read, (group + 1) * read)),
        output.narrow(output.box.with_interval(3, first, last)),
        constant.address + (row - constant.first_row) * constant.row_bytes,
    )


def block_bytes(graph: Graph, op: Op, taps: int) -> int:
    """Bytes of a block of 16 output channels with a window of so many taps: weights and parameters."""
    source, weight_type = graph.tensor(op.inputs[0]), graph.constants[op.inputs[1]].dtype
    if is_depthwise(graph, op):
        return depthwise_bytes(weight_type, taps) + parameter_bytes(sum_type(source).itemsize)
    channels = source.shape[3] // op.attributes.groups
    return dense_bytes(weight_type, channels, taps) + parameter_bytes(sum_type(source).itemsize)


def matrix_fields(graph: Graph, op: Op) -> dict[str, object]:
    """Type, zero point and clamp fields of a matrix instruction."""
    source, result = graph.tensor(op.inputs[0]), graph.tensor(op.output)
    low, high = (op.attributes.clamp or integer_range(result.dtype)) if result.quantization else (0, 0)
    return {
        "input_type": DATA_TYPES[source.dtype], "output_type": DATA_TYPES[result.dtype],
        "input_zero_point": zero_point_of(source), "output_zero_point": zero_point_of(result),
        "clamp_low": low, "clamp_high": high,
    }  # fmt: skip


def weight_fields(
    graph: Graph, op: Op, weights: Address, block_bytes: int, used_bytes: int | None = None
) -> dict[str, object]:
    """Where weights and parameters lie, which are the first `used_bytes` of every block."""
    used = block_bytes if used_bytes is None else used_bytes
    parameters = weights + (used - parameter_bytes(sum_type(graph.tensor(op.inputs[0])).itemsize))
    return {"weights": weights, "block_bytes": block_bytes, "parameters": parameters}


def accumulator_bytes(graph: Graph, op: Op, out_box: Box) -> int:
    """Scratchpad bytes of a tile's partial sums, channels rounded up to whole blocks."""
    channels = -(-out_box.shape[-1] // CHANNEL_BLOCK) * CHANNEL_BLOCK
    return prod(out_box.shape[:-1]) * channels * sum_type(graph.tensor(op.inputs[0])).itemsize


def accumulator_fields(tile: Tile, offset: int = 0) -> dict[str, object]:
    """Where partial sums lie, `offset` bytes into the tile's, and whether they start or end here."""
    if tile.reduction is None or tile.accumulators is None:
        return dict(NO_ACCUMULATORS)
    return {
        "accumulators": tile.accumulators + offset,
        "load_accumulators": int(not tile.reduction.is_first),
        "keep_accumulators": int(not tile.reduction.is_last),
    }
