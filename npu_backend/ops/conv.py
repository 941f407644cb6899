"""Convolution in its dense, grouped and depthwise forms, on ``[n, h, w, c]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Quantization, Tensor
from npu_backend.isa import CHANNEL_BLOCK, DATA_TYPES
from npu_backend.ops import numerics_conv as numerics
from npu_backend.ops.attributes import ConvAttributes
from npu_backend.ops.base import LoweredInstruction, OpSpec, PackedConstant, Tile, register
from npu_backend.ops.numerics_core import integer_range
from npu_backend.ops.packing import PARAMETER_BYTES, chunk_bytes, folded_bias, pack_dense, pack_depthwise
from npu_backend.ops.windows import image_fields, padding_before, window_box, window_count


@dataclass(frozen=True)
class MatrixConstants:
    """The constant inputs of a convolution or a matrix product."""

    weight: np.ndarray
    weight_scale: np.ndarray
    bias: np.ndarray | None

    @staticmethod
    def of(graph: Graph, op: Op) -> MatrixConstants:
        """Reads them from the operator's inputs: x, weight, weight_scale and maybe bias."""
        values = [graph.constants[name] for name in op.inputs if name in graph.constants]
        return MatrixConstants(values[0], values[1], values[2] if len(values) > 2 else None)


def quantization_of(tensor: Tensor) -> Quantization:
    """The tensor's quantisation, which an importer of quantised operators always sets."""
    assert tensor.quantization is not None, f"{tensor.name} has no quantisation"
    return tensor.quantization


def multipliers(graph: Graph, op: Op, constants: MatrixConstants, channels: int) -> np.ndarray:
    """float32 ``[channels]``: requantisation factor of every output channel."""
    source, result = graph.tensor(op.inputs[0]), graph.tensor(op.output)
    scales = numerics.output_multipliers(
        np.float32(quantization_of(source).scale), constants.weight_scale, np.float32(quantization_of(result).scale)
    )
    return np.broadcast_to(scales, (channels,))


def matrix_fields(graph: Graph, op: Op) -> dict[str, object]:
    """Type, zero point and clamp fields of a matrix instruction."""
    source, result = graph.tensor(op.inputs[0]), graph.tensor(op.output)
    low, high = op.attributes.clamp or integer_range(np.dtype(result.dtype))
    return {
        "input_type": DATA_TYPES[source.dtype], "output_type": DATA_TYPES[result.dtype],
        "input_zero_point": quantization_of(source).zero_point,
        "output_zero_point": quantization_of(result).zero_point,
        "clamp_low": low, "clamp_high": high,
    }  # fmt: skip


NO_ACCUMULATORS = {"accumulators": 0, "load_accumulators": 0, "keep_accumulators": 0}


@register
class Conv2d(OpSpec):
    """A 2-D convolution; groups equal to the channels run on the depthwise path of the array."""

    kind = "conv2d"
    meaning = "2-D convolution: any stride, dilation, pads and groups, with bias and clamp"

    def infer_shape(
        self, attributes: ConvAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """``[n, oh, ow, o]``."""
        (batch, height, width, _), weight = inputs[0].shape, constants[0]
        kernel, (top, left, bottom, right) = weight.shape[2:], attributes.pads
        rows = window_count(height, kernel[0], attributes.strides[0], attributes.dilations[0], top, bottom)
        columns = window_count(width, kernel[1], attributes.strides[1], attributes.dilations[1], left, right)
        return batch, rows, columns, weight.shape[0]

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's QLinearConv."""
        constants, a = MatrixConstants.of(graph, op), op.attributes
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        return numerics.conv(
            inputs[0], np.float32(quantization_of(x).scale), quantization_of(x).zero_point,
            constants.weight.transpose(0, 2, 3, 1), constants.weight_scale, constants.bias,
            np.float32(quantization_of(y).scale), quantization_of(y).zero_point, np.dtype(y.dtype),
            strides=a.strides, pads=a.pads, dilations=a.dilations, groups=a.groups, bounds=a.clamp,
        )  # fmt: skip

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis; channels in blocks of 16, or in whole groups."""
        return {0: 1, 1: 1, 2: 1, 3: self._channel_multiple(graph, op)}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """Rows and columns with their halo; the channels of the groups concerned."""
        shape, weight, a = graph.tensor(op.inputs[0]).shape, graph.constants[op.inputs[1]], op.attributes
        group_outputs = weight.shape[0] // a.groups
        first, last = out_box.starts[3] // group_outputs, -(-out_box.stops[3] // group_outputs)
        channels = (first * weight.shape[1], last * weight.shape[1])
        return (window_box(out_box, shape, weight.shape[2:], a.strides, a.dilations, a.pads, channels),)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """One row per block of 16 output channels, or per group."""
        constants = MatrixConstants.of(graph, op)
        weight, zero_point = constants.weight, quantization_of(graph.tensor(op.inputs[0])).zero_point
        bias = folded_bias(weight, constants.bias, zero_point)
        scales = multipliers(graph, op, constants, len(weight))
        if is_depthwise(graph, op):
            return (PackedConstant(pack_depthwise(weight, bias, scales), 3, CHANNEL_BLOCK),)
        if op.attributes.groups == 1:
            rows = pack_dense(weight, bias, scales)
            return (PackedConstant(rows, 3, CHANNEL_BLOCK, chunk_bytes(weight.shape[2:])),)
        size = len(weight) // op.attributes.groups
        rows = np.stack([pack_dense(weight[i : i + size], bias[i : i + size], scales[i : i + size]).reshape(-1)
                         for i in range(0, len(weight), size)])  # fmt: skip
        return (PackedConstant(rows, 3, size),)

    def reduction_length(self, graph: Graph, op: Op) -> int | None:
        """The input channels of a dense convolution."""
        return graph.tensor(op.inputs[0]).shape[3] if op.attributes.groups == 1 else None

    def macs(self, graph: Graph, op: Op) -> int:
        """Output elements times the weights each one sums over."""
        return prod(graph.tensor(op.output).shape) * prod(graph.constants[op.inputs[1]].shape[1:])

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per image, and per group where groups are neither one nor depthwise."""
        images = range(*tile.output.box.interval(0))
        if is_depthwise(graph, op):
            return tuple(self._depthwise(graph, op, tile, image) for image in images)
        groups = self._groups(graph, op, tile)
        return tuple(self._dense(graph, op, tile, image, group) for image in images for group in groups)

    def _channel_multiple(self, graph: Graph, op: Op) -> int:
        if op.attributes.groups == 1 or is_depthwise(graph, op):
            return CHANNEL_BLOCK
        return int(graph.constants[op.inputs[1]].shape[0] // op.attributes.groups)

    def _groups(self, graph: Graph, op: Op, tile: Tile) -> Sequence[int]:
        start, stop = tile.output.box.interval(3)
        multiple = self._channel_multiple(graph, op)
        return (0,) if op.attributes.groups == 1 else range(start // multiple, stop // multiple)

    def _window(self, graph: Graph, op: Op, tile: Tile) -> dict[str, object]:
        a, kernel = op.attributes, graph.constants[op.inputs[1]].shape[2:]
        source, output = tile.inputs[0].box, tile.output.box
        return {
            "kernel_height": kernel[0], "kernel_width": kernel[1],
            "stride_height": a.strides[0], "stride_width": a.strides[1],
            "dilation_height": a.dilations[0], "dilation_width": a.dilations[1],
            "pad_top": padding_before(output.starts[1], source.starts[1], a.strides[0], a.pads[0]),
            "pad_left": padding_before(output.starts[2], source.starts[2], a.strides[1], a.pads[1]),
        }  # fmt: skip

    def _depthwise(self, graph: Graph, op: Op, tile: Tile, image: int) -> LoweredInstruction:
        constant = tile.constants[0]
        fields = image_fields(tile.inputs[0], tile.output, image) | self._window(graph, op, tile)
        weights = {"weights": constant.address, "block_bytes": constant.row_bytes,
                   "parameters": constant.address + (constant.row_bytes - PARAMETER_BYTES)}  # fmt: skip
        return LoweredInstruction("DEPTHWISE", fields | matrix_fields(graph, op) | weights)

    def _dense(self, graph: Graph, op: Op, tile: Tile, image: int, group: int) -> LoweredInstruction:
        source, output, constant = tile.inputs[0], tile.output, tile.constants[0]
        block_bytes, weights = constant.row_bytes, constant.address
        if op.attributes.groups > 1:
            inputs, outputs = graph.constants[op.inputs[1]].shape[1], self._channel_multiple(graph, op)
            source = source.narrow(source.box.with_interval(3, group * inputs, (group + 1) * inputs))
            output = output.narrow(output.box.with_interval(3, group * outputs, (group + 1) * outputs))
            weights = constant.address + (group - constant.first_row) * constant.row_bytes
            block_bytes = constant.row_bytes // -(-outputs // CHANNEL_BLOCK)
        fields = image_fields(source, output, image) | self._window(graph, op, tile) | matrix_fields(graph, op)
        return LoweredInstruction("CONV", fields | accumulator_fields(tile) | {
            "weights": weights, "block_bytes": block_bytes, "parameters": weights + (block_bytes - PARAMETER_BYTES),
        })  # fmt: skip


def accumulator_fields(tile: Tile, offset: int = 0) -> dict[str, object]:
    """Where partial sums lie, `offset` bytes into the tile's, and whether they start or end here."""
    if tile.reduction is None or tile.accumulators is None:
        return dict(NO_ACCUMULATORS)
    return {
        "accumulators": tile.accumulators + offset,
        "load_accumulators": int(not tile.reduction.is_first),
        "keep_accumulators": int(not tile.reduction.is_last),
    }


def is_depthwise(graph: Graph, op: Op) -> bool:
    """Whether every channel is convolved with its own single filter."""
    weight = graph.constants[op.inputs[1]]
    return bool(op.attributes.groups == weight.shape[0] and weight.shape[1] == 1 and op.attributes.groups > 1)
