"""The same elements in row-major order under another shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm, prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.ops.attributes import ReshapeAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, Tile, register
from npu_backend.ops.movement import Movement, copy


@dataclass(frozen=True)
class _Segment:
    """Neighbouring axes of the input and of the output that hold the same elements, and the extents of both."""

    source_axes: tuple[int, ...]
    output_axes: tuple[int, ...]
    source_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    @property
    def source_step(self) -> tuple[int, int]:
        """The first input axis longer than 1, and the elements of one step along it."""
        return _outermost(self.source_axes, self.source_shape)

    @property
    def output_step(self) -> tuple[int, int]:
        """The same of the output."""
        return _outermost(self.output_axes, self.output_shape)

    @property
    def multiple(self) -> int:
        """Steps of the output's axis that are whole steps of the input's too."""
        unit = self.output_step[1]
        return lcm(unit, self.source_step[1]) // unit


def _outermost(axes: Sequence[int], shape: Sequence[int]) -> tuple[int, int]:
    at = next(i for i, extent in enumerate(shape) if extent > 1)
    return axes[at], prod(shape[at + 1 :])


def _segments(source: Sequence[int], output: Sequence[int]) -> list[_Segment]:
    """The shapes in segments as short as can be; axes of extent 1 alone make none."""
    segments, i, j = [], 0, 0
    while i < len(source) and j < len(output):
        first_i, first_j = i, j
        i, j = i + 1, j + 1
        while (inner := prod(source[first_i:i])) != (outer := prod(output[first_j:j])):
            i, j = (i + 1, j) if inner < outer else (i, j + 1)
        if inner > 1:
            segments.append(_Segment(tuple(range(first_i, i)), tuple(range(first_j, j)), tuple(source[first_i:i]),
                                     tuple(output[first_j:j])))  # fmt: skip
    return segments


def _segments_of(graph: Graph, op: Op) -> list[_Segment]:
    return _segments(graph.tensor(op.inputs[0]).shape, graph.tensor(op.output).shape)


@register
class Reshape(Movement):
    """The same bytes under another shape; divided along axes whose steps both shapes have."""

    kind = "reshape"
    meaning = "reshape, flatten, squeeze, unsqueeze"

    def infer_shape(
        self, attributes: ReshapeAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The attribute's."""
        assert prod(attributes.shape) == prod(inputs[0].shape), (attributes.shape, inputs[0].shape)
        return attributes.shape

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """NumPy's reshape."""
        return inputs[0].reshape(op.attributes.shape)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """The outermost axis of every segment, where a part can be whole steps of the input's too."""
        output, segments = graph.tensor(op.output).shape, _segments_of(graph, op)
        multiples = {segment.output_step[0]: segment.multiple for segment in segments}
        return {axis: multiple for axis, multiple in multiples.items() if multiple < output[axis]}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The steps of the input's axes that hold the same elements."""
        box, output = graph.tensor(op.inputs[0]).box, graph.tensor(op.output)
        for segment in _segments_of(graph, op):
            (out_axis, out_unit), (in_axis, in_unit) = segment.output_step, segment.source_step
            if out_box.interval(out_axis) != output.box.interval(out_axis):
                start, stop = (bound * out_unit // in_unit for bound in out_box.interval(out_axis))
                box = box.with_interval(in_axis, start, stop)
        return (box,)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One copy with an axis for every segment."""
        segments = _segments_of(graph, op)
        counts = [prod(tile.output.box.shape[axis] for axis in segment.output_axes) for segment in segments]
        source = _flat(tile.inputs[0], [segment.source_axes for segment in segments])
        return copy(source, _flat(tile.output, [segment.output_axes for segment in segments]), counts)


def _flat(operand: Operand, groups: Sequence[Sequence[int]]) -> Operand:
    """The operand with each group of axes as one, which its elements must fill without gaps."""
    strides, extents = [], []
    for axes in groups:
        moving = [axis for axis in axes if operand.box.shape[axis] > 1] or [axes[-1]]
        inner = operand.strides[moving[-1]]
        for position, axis in enumerate(moving):
            step = inner * prod(operand.box.shape[each] for each in moving[position + 1 :])
            assert operand.strides[axis] == step, f"axes {axes} of {operand.box} have gaps"
        strides.append(inner)
        extents.append(prod(operand.box.shape[axis] for axis in axes))
    return Operand(operand.address, tuple(strides), Box.whole(extents), operand.dtype)
