"""Blocks of pixels to channels and back, on ``[n, h, w, c]``.

Both see the image and its depth form as ``[n, h, row in block, w, column in block, c]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.ops.attributes import BlockAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, Tile, register
from npu_backend.ops.movement import Movement, copy


def _image(operand: Operand, block: int) -> tuple[int, ...]:
    """Strides of an image over images, rows, rows in a block, columns, columns in a block, and channels."""
    n, h, w, c = operand.strides
    return n, h * block, h, w * block, w, c


def _depth(operand: Operand, block: int, mode: str) -> tuple[int, ...]:
    """The same strides of the depth form, whose channels hold the block before (DCR) or behind (CRD) the image's."""
    n, h, w, c = operand.strides
    channels = operand.box.shape[3] // block**2
    row, column, channel = (block * channels, channels, 1) if mode == "DCR" else (block, 1, block**2)
    return n, h, row * c, w, column * c, channel * c


def _move(source: Operand, source_strides: tuple[int, ...], output: Operand, output_strides: tuple[int, ...],
          deep: Box, block: int) -> tuple[LoweredInstruction, ...]:  # fmt: skip
    n, h, w, c = deep.shape
    counts = n, h, block, w, block, c // block**2
    from_view, to_view = (
        Operand(operand.address, strides, Box.whole(counts), operand.dtype)
        for operand, strides in ((source, source_strides), (output, output_strides))
    )
    return copy(from_view, to_view, counts)


@register
class DepthToSpace(Movement):
    """Channels become blocks of pixels."""

    kind = "depth_to_space"
    meaning = "channels to blocks of pixels (DepthToSpace, both modes)"

    def infer_shape(
        self, attributes: BlockAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """Rows and columns times the block."""
        n, h, w, c = inputs[0].shape
        return n, h * attributes.block, w * attributes.block, c // attributes.block**2

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """ONNX's reshapes around a transpose."""
        b, (n, h, w, c) = op.attributes.block, inputs[0].shape
        if op.attributes.mode == "DCR":
            parts = inputs[0].reshape(n, h, w, b, b, c // b**2).transpose(0, 1, 3, 2, 4, 5)
        else:
            parts = inputs[0].reshape(n, h, w, c // b**2, b, b).transpose(0, 1, 4, 2, 5, 3)
        return parts.reshape(n, h * b, w * b, c // b**2)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Images, whole rows and columns of blocks, and channels where a channel's block lies together."""
        axes = {0: 1, 1: op.attributes.block, 2: op.attributes.block}
        return axes | ({3: 1} if op.attributes.mode == "CRD" else {})

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The blocks' pixels."""
        b = op.attributes.block
        return (_scaled(out_box, (1, b, b, 1), (1, 1, 1, b * b)),)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One strided copy."""
        source, b = tile.inputs[0], op.attributes.block
        return _move(source, _depth(source, b, op.attributes.mode), tile.output, _image(tile.output, b), source.box, b)


@register
class SpaceToDepth(Movement):
    """Blocks of pixels become channels."""

    kind = "space_to_depth"
    meaning = "blocks of pixels to channels (SpaceToDepth)"

    def infer_shape(
        self, attributes: BlockAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """Rows and columns divided by the block."""
        n, h, w, c = inputs[0].shape
        return n, h // attributes.block, w // attributes.block, c * attributes.block**2

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """ONNX's reshapes around a transpose."""
        b, (n, h, w, c) = op.attributes.block, inputs[0].shape
        parts = inputs[0].reshape(n, h // b, b, w // b, b, c).transpose(0, 1, 3, 2, 4, 5)
        return parts.reshape(n, h // b, w // b, c * b**2)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Images, rows and columns."""
        return {0: 1, 1: 1, 2: 1}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The pixels' blocks."""
        b = op.attributes.block
        return (_scaled(out_box, (1, 1, 1, b * b), (1, b, b, 1)),)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One strided copy."""
        source, output, b = tile.inputs[0], tile.output, op.attributes.block
        return _move(source, _image(source, b), output, _depth(output, b, "DCR"), output.box, b)


def _scaled(box: Box, divisors: Sequence[int], factors: Sequence[int]) -> Box:
    starts, stops = (
        tuple(bound // divisor * factor for bound, divisor, factor in zip(bounds, divisors, factors))
        for bounds in (box.starts, box.stops)
    )
    return Box(starts, stops)
