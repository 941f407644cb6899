"""Convolution in its dense, grouped and depthwise forms, on ``[n, h, w, c]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import CHANNEL_BLOCK
from npu_backend.ops import matrix
from npu_backend.ops import numerics_conv as numerics
from npu_backend.ops.attributes import ConvAttributes
from npu_backend.ops.base import LoweredInstruction, PackedConstant, Tile, register
from npu_backend.ops.packing import chunk_bytes
from npu_backend.ops.windows import image_fields, padding_before, window_box, window_count


@register
class Conv2d(matrix.MatrixSpec):
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
        """As ONNX Runtime's QLinearConv, where the codes have 8 bits."""
        constants, a = matrix.MatrixConstants.of(graph, op), op.attributes
        sums = numerics.conv_sums(
            inputs[0], matrix.zero_point_of(graph.tensor(op.inputs[0])), constants.weight.transpose(0, 2, 3, 1),
            bias=constants.bias, strides=a.strides, pads=a.pads, dilations=a.dilations, groups=a.groups,
        )  # fmt: skip
        return matrix.finish(graph, op, sums)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis; channels in blocks of 16, or in whole groups that are not made of blocks."""
        return {0: 1, 1: 1, 2: 1, 3: matrix.channel_multiple(graph, op)}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """Rows and columns with their halo; the channels of the groups concerned."""
        shape, kernel, a = graph.tensor(op.inputs[0]).shape, graph.constants[op.inputs[1]].shape[2:], op.attributes
        channels = matrix.input_channels(graph, op, out_box.interval(3))
        return (window_box(out_box, shape, kernel, a.strides, a.dilations, a.pads, channels),)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """One row per block of 16 output channels, or per group that is not made of blocks."""
        weight = graph.constants[op.inputs[1]]
        chunk = chunk_bytes(weight) if op.attributes.groups == 1 else None
        return (PackedConstant(matrix.weight_rows(graph, op, weight), 3, matrix.channel_multiple(graph, op), chunk),)

    def reduction_length(self, graph: Graph, op: Op) -> int | None:
        """The input channels of a dense convolution."""
        return graph.tensor(op.inputs[0]).shape[3] if op.attributes.groups == 1 else None

    def accumulator_bytes(self, graph: Graph, op: Op, out_box: Box) -> int:
        """Of the sums' type, channels rounded up to whole blocks."""
        return matrix.accumulator_bytes(graph, op, out_box)

    def macs(self, graph: Graph, op: Op) -> int:
        """Output elements times the weights each one sums over."""
        return prod(graph.tensor(op.output).shape) * prod(graph.constants[op.inputs[1]].shape[1:])

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per image, and per group where groups are neither one nor depthwise."""
        window = self._window(graph, op, tile) | matrix.matrix_fields(graph, op)
        name, more = ("DEPTHWISE", {}) if matrix.is_depthwise(graph, op) else ("CONV", matrix.accumulator_fields(tile))
        lowered = []
        for image in range(*tile.output.box.interval(0)):
            for group in matrix.tile_groups(graph, op, tile):
                source, output, weights = matrix.group_operands(graph, op, tile, group)
                fields = window | more | image_fields(source, output, image)
                fields |= matrix.weight_fields(graph, op, weights, self._block_bytes(graph, op, tile))
                lowered.append(LoweredInstruction(name, fields))
        return tuple(lowered)

    def _block_bytes(self, graph: Graph, op: Op, tile: Tile) -> int:
        """A row is a block, of which a part of the reduction has only a part, or a whole group's blocks."""
        return tile.constants[0].row_bytes // -(-matrix.channel_multiple(graph, op) // CHANNEL_BLOCK)

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
