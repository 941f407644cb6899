"""Transposed convolution as one convolution per phase of the stride."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import CHANNEL_BLOCK
from npu_backend.ops import matrix
from npu_backend.ops import numerics_conv as numerics
from npu_backend.ops.attributes import ConvTransposeAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, PackedConstant, Tile, register
from npu_backend.ops.windows import clip_interval, image_fields


@dataclass(frozen=True)
class Phase:
    """Along one axis: output positions o with ``(o + before) % stride == index``, and the kernel taps they meet.

    Tap t of output o meets input ``(o + before - t * dilation) / stride``; `taps` are in the order of these inputs, so
    descending, and their inputs lie `step` apart. A phase that meets none has a single tap of zero weight.
    """

    index: int
    taps: tuple[int, ...]
    step: int

    @staticmethod
    def all(kernel: int, stride: int, dilation: int) -> tuple[Phase, ...]:
        """Every phase."""
        step = dilation // gcd(dilation, stride)
        met = [tuple(tap for tap in reversed(range(kernel)) if tap * dilation % stride == index)
               for index in range(stride)]  # fmt: skip
        return tuple(Phase(index, taps, step) for index, taps in enumerate(met))

    @property
    def count(self) -> int:
        """Taps of the phase's convolution."""
        return max(1, len(self.taps))


@register
class ConvTranspose2d(matrix.MatrixSpec):
    """Outputs of a phase lie `stride` apart and are an ordinary convolution of the input with a part of the kernel."""

    kind = "conv_transpose2d"
    meaning = "2-D transposed convolution: any stride, dilation, pads and groups, with bias and clamp"

    def infer_shape(
        self, attributes: ConvTransposeAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """``[n, oh, ow, o]`` by ONNX's formula of ConvTranspose."""
        a, (batch, *size, _), weight = attributes, inputs[0].shape, constants[0]
        rows, columns = (
            a.strides[i] * (size[i] - 1) + a.output_padding[i] + (weight.shape[2 + i] - 1) * a.dilations[i] + 1
            - a.pads[i] - a.pads[i + 2]
            for i in (0, 1)
        )  # fmt: skip
        return batch, rows, columns, weight.shape[1] * a.groups

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Integer sums requantised as a convolution; ONNX Runtime computes in float, so equal to it within one step."""
        a, zero_point = op.attributes, matrix.zero_point_of(graph.tensor(op.inputs[0]))
        sums = numerics.conv_transpose_sums(
            inputs[0], zero_point, _weight(graph, op).transpose(0, 2, 3, 1), matrix.MatrixConstants.of(graph, op).bias,
            a.strides, a.pads, a.output_padding, a.dilations, a.groups,
        )  # fmt: skip
        return matrix.finish(graph, op, sums)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis; channels in blocks of 16, or in whole groups."""
        return {0: 1, 1: 1, 2: 1, 3: matrix.channel_multiple(graph, op)}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """Input positions i with ``i * stride + tap * dilation - before`` inside the box for some tap."""
        shape, kernel, a = graph.tensor(op.inputs[0]).shape, graph.constants[op.inputs[1]].shape[2:], op.attributes
        spans = [out_box.interval(0)]
        for i in (0, 1):
            start, stop = out_box.interval(i + 1)
            # Positions that no tap meets (kernel below stride) still count as meeting one: the region's start then
            # depends on the box's start alone and its end on the end alone, so a part needs no more than the whole.
            reach = (kernel[i] - 1) * a.dilations[i]
            first = min(-((reach - start - a.pads[i]) // a.strides[i]), (start + a.pads[i]) // a.strides[i])
            spans.append(clip_interval(first, (stop - 1 + a.pads[i]) // a.strides[i] + 1, shape[i + 1]))
        spans.append(matrix.input_channels(graph, op, out_box.interval(3)))
        return (Box(tuple(low for low, _ in spans), tuple(high for _, high in spans)),)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """One row per block of 16 output channels, or per group: every phase's weights and parameters in turn."""
        weight = _weight(graph, op)
        parts = [matrix.weight_rows(graph, op, _phase_weight(weight, *phases)) for phases in _phases(graph, op)]
        return (PackedConstant(np.concatenate(parts, axis=1), 3, matrix.channel_multiple(graph, op)),)

    def macs(self, graph: Graph, op: Op) -> int:
        """Input elements times the weights each one meets."""
        weight = graph.constants[op.inputs[1]]
        return prod(graph.tensor(op.inputs[0]).shape[:3]) * prod(weight.shape)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per image, group and phase that the tile meets."""
        lowered: list[LoweredInstruction] = []
        offset = 0
        for rows, columns in _phases(graph, op):
            used = matrix.block_bytes(graph, op, rows.count * columns.count)
            lowered += _lower_phase(graph, op, tile, (rows, columns), offset, used)
            offset += used * _blocks_of_row(graph, op)
        return tuple(lowered)


def _phases(graph: Graph, op: Op) -> Iterator[tuple[Phase, Phase]]:
    kernel, a = graph.constants[op.inputs[1]].shape[2:], op.attributes
    for rows in Phase.all(kernel[0], a.strides[0], a.dilations[0]):
        for columns in Phase.all(kernel[1], a.strides[1], a.dilations[1]):
            yield rows, columns


def _blocks_of_row(graph: Graph, op: Op) -> int:
    """Blocks of output channels in a row of packed weights."""
    return -(-matrix.channel_multiple(graph, op) // CHANNEL_BLOCK)


def _lower_phase(
    graph: Graph, op: Op, tile: Tile, phases: tuple[Phase, Phase], offset: int, used_bytes: int
) -> list[LoweredInstruction]:
    a = op.attributes
    along = [
        _along(tile.output.box.interval(i + 1), tile.inputs[0].box.starts[i + 1], phases[i], op, i) for i in (0, 1)
    ]
    down, across = along
    if down is None or across is None:
        return []
    rows, columns = phases
    depthwise = matrix.is_depthwise(graph, op)
    fields = matrix.matrix_fields(graph, op) | ({} if depthwise else matrix.NO_ACCUMULATORS) | {
        "kernel_height": rows.count, "kernel_width": columns.count, "stride_height": 1, "stride_width": 1,
        "dilation_height": rows.step, "dilation_width": columns.step,
        "pad_top": down.before, "pad_left": across.before,
    }  # fmt: skip
    lowered = []
    for group in matrix.tile_groups(graph, op, tile):
        source, output, weights = matrix.group_operands(graph, op, tile, group)
        # The rows of groups hold phase after phase of blocks, those of blocks all phases of one.
        block_bytes = tile.constants[0].row_bytes if _blocks_are_rows(graph, op) else used_bytes
        fields |= matrix.weight_fields(graph, op, weights + offset, block_bytes, used_bytes)
        interleaved = _interleaved(output, down, across, a.strides)
        for image in range(*output.box.interval(0)):
            name = "DEPTHWISE" if depthwise else "CONV"
            lowered.append(LoweredInstruction(name, fields | image_fields(source, interleaved, image)))
    return lowered


def _blocks_are_rows(graph: Graph, op: Op) -> bool:
    return matrix.channel_multiple(graph, op) == CHANNEL_BLOCK


@dataclass(frozen=True)
class _Along:
    """A phase inside a tile, along one axis: first output position, number of them, padding before the input."""

    first: int
    count: int
    before: int


def _along(interval: tuple[int, int], in_start: int, phase: Phase, op: Op, axis: int) -> _Along | None:
    start, stop = interval
    stride, pad, dilation = op.attributes.strides[axis], op.attributes.pads[axis], op.attributes.dilations[axis]
    first = start + (phase.index - start - pad) % stride
    if first >= stop:
        return None
    # The first of the taps meets the first of the inputs.
    reach = phase.taps[0] * dilation if phase.taps else 0
    return _Along(first, -(-(stop - first) // stride), in_start - (first + pad - reach) // stride)


def _interleaved(output: Operand, down: _Along, across: _Along, strides: tuple[int, int]) -> Operand:
    """The phase's outputs as an operand of their own, `strides` apart in the tile."""
    box = output.box
    corner = output.narrow(Box((box.starts[0], down.first, across.first, box.starts[3]), box.stops))
    shape = (box.shape[0], down.count, across.count, box.shape[3])
    starts = corner.box.starts
    steps = (1, *strides, 1)
    return Operand(
        corner.address,
        tuple(stride * step for stride, step in zip(corner.strides, steps)),
        Box(starts, tuple(start + extent for start, extent in zip(starts, shape))),
        output.dtype,
    )


def _weight(graph: Graph, op: Op) -> np.ndarray:
    """The weight as a convolution has it: ``[o, i / groups, kh, kw]``."""
    weight, groups = graph.constants[op.inputs[1]], op.attributes.groups
    inputs, outputs, *kernel = weight.shape
    grouped = weight.reshape(groups, inputs // groups, outputs, *kernel)
    return grouped.swapaxes(1, 2).reshape(groups * outputs, inputs // groups, *kernel)


def _phase_weight(weight: np.ndarray, rows: Phase, columns: Phase) -> np.ndarray:
    """``[o, i, taps, taps]`` of one phase; a phase without taps gets a single zero tap."""
    if not rows.taps or not columns.taps:
        return np.zeros((*weight.shape[:2], rows.count, columns.count), weight.dtype)
    return weight[:, :, rows.taps, :][:, :, :, columns.taps]
