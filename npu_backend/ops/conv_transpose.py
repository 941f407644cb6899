"""Transposed convolution as one dense convolution per phase of the stride."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import CHANNEL_BLOCK
from npu_backend.ops import numerics_conv as numerics
from npu_backend.ops.attributes import ConvTransposeAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, OpSpec, PackedConstant, Tile, register
from npu_backend.ops.conv import NO_ACCUMULATORS, MatrixConstants, matrix_fields, multipliers, quantization_of
from npu_backend.ops.packing import PARAMETER_BYTES, folded_bias, pack_dense
from npu_backend.ops.windows import clip_interval, image_fields


@dataclass(frozen=True)
class Phase:
    """Along one axis: output positions o with ``(o + before) % stride == index``, and the kernel taps they meet."""

    index: int
    taps: tuple[int, ...]

    @staticmethod
    def all(kernel: int, stride: int) -> tuple[Phase, ...]:
        """Every phase; the taps in the order of the input positions they meet, a phase without taps has none."""
        return tuple(Phase(index, tuple(range(index, kernel, stride))[::-1]) for index in range(stride))


@register
class ConvTranspose2d(OpSpec):
    """Outputs of a phase lie `stride` apart and are an ordinary convolution of the input with a part of the kernel."""

    kind = "conv_transpose2d"
    meaning = "2-D transposed convolution: one group, dilation 1, any stride and pads, with bias and clamp"

    def infer_shape(
        self, attributes: ConvTransposeAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """``[n, oh, ow, o]`` by ONNX's formula of ConvTranspose."""
        a, (batch, *size, _), weight = attributes, inputs[0].shape, constants[0]
        rows, columns = (
            a.strides[i] * (size[i] - 1) + a.output_padding[i] + weight.shape[2 + i] - a.pads[i] - a.pads[i + 2]
            for i in (0, 1)
        )
        return batch, rows, columns, weight.shape[1]

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Integer sums requantised as a convolution; ONNX Runtime computes in float, so equal to it within one step."""
        constants, a = MatrixConstants.of(graph, op), op.attributes
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        result = numerics.conv_transpose(
            inputs[0], np.float32(quantization_of(x).scale), quantization_of(x).zero_point,
            constants.weight.transpose(1, 2, 3, 0), constants.weight_scale, constants.bias,
            np.float32(quantization_of(y).scale), quantization_of(y).zero_point, np.dtype(y.dtype),
            strides=a.strides, pads=a.pads, output_padding=a.output_padding,
        )  # fmt: skip
        return result if a.clamp is None else np.clip(result, *a.clamp).astype(result.dtype)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis; channels in blocks of 16."""
        del graph, op
        return {0: 1, 1: 1, 2: 1, 3: CHANNEL_BLOCK}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """Input positions i with ``i * stride + tap - before`` inside the box for some tap."""
        shape, kernel, a = graph.tensor(op.inputs[0]).shape, graph.constants[op.inputs[1]].shape[2:], op.attributes
        spans = [out_box.interval(0)]
        for i in (0, 1):
            start, stop = out_box.interval(i + 1)
            # Positions that no tap meets (kernel below stride) still count as meeting one: the region's start then
            # depends on the box's start alone and its end on the end alone, so a part needs no more than the whole.
            first = min(-((kernel[i] - 1 - start - a.pads[i]) // a.strides[i]), (start + a.pads[i]) // a.strides[i])
            spans.append(clip_interval(first, (stop - 1 + a.pads[i]) // a.strides[i] + 1, shape[i + 1]))
        spans.append((0, shape[3]))
        return (Box(tuple(low for low, _ in spans), tuple(high for _, high in spans)),)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """One row per block of 16 output channels: every phase's weights and parameters in turn."""
        constants = MatrixConstants.of(graph, op)
        zero_point = quantization_of(graph.tensor(op.inputs[0])).zero_point
        scales = multipliers(graph, op, constants, constants.weight.shape[1])
        parts = []
        for rows, columns in self._phases(graph, op):
            weight = _phase_weight(constants.weight, rows, columns)
            parts.append(pack_dense(weight, folded_bias(weight, constants.bias, zero_point), scales))
        return (PackedConstant(np.concatenate(parts, axis=1), 3, CHANNEL_BLOCK),)

    def macs(self, graph: Graph, op: Op) -> int:
        """Input elements times the weights each one meets."""
        weight = graph.constants[op.inputs[1]]
        return prod(graph.tensor(op.inputs[0]).shape[:3]) * prod(weight.shape)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per image and phase that the tile meets."""
        lowered, offset = [], 0
        channels = graph.tensor(op.inputs[0]).shape[3]
        for rows, columns in self._phases(graph, op):
            taps = max(1, len(rows.taps)) * max(1, len(columns.taps))
            block = taps * -(-channels // 4) * 4 * CHANNEL_BLOCK + PARAMETER_BYTES
            lowered += self._lower_phase(graph, op, tile, rows, columns, offset, block)
            offset += block
        return tuple(lowered)

    def _phases(self, graph: Graph, op: Op) -> Iterator[tuple[Phase, Phase]]:
        kernel, strides = graph.constants[op.inputs[1]].shape[2:], op.attributes.strides
        for rows in Phase.all(kernel[0], strides[0]):
            for columns in Phase.all(kernel[1], strides[1]):
                yield rows, columns

    def _lower_phase(
        self, graph: Graph, op: Op, tile: Tile, rows: Phase, columns: Phase, offset: int, block: int
    ) -> list[LoweredInstruction]:
        a, constant, source = op.attributes, tile.constants[0], tile.inputs[0]
        down = _along(tile.output.box.interval(1), source.box.starts[1], rows, a.strides[0], a.pads[0])
        across = _along(tile.output.box.interval(2), source.box.starts[2], columns, a.strides[1], a.pads[1])
        if down is None or across is None:
            return []
        output = _interleaved(tile.output, down, across, a.strides)
        weights = constant.address + offset
        fields = matrix_fields(graph, op) | NO_ACCUMULATORS | {
            "kernel_height": max(1, len(rows.taps)), "kernel_width": max(1, len(columns.taps)),
            "stride_height": 1, "stride_width": 1, "dilation_height": 1, "dilation_width": 1,
            "pad_top": down.before, "pad_left": across.before,
            "weights": weights, "block_bytes": constant.row_bytes, "parameters": weights + (block - PARAMETER_BYTES),
        }  # fmt: skip
        return [LoweredInstruction("CONV", fields | image_fields(source, output, image))
                for image in range(*tile.output.box.interval(0))]  # fmt: skip


@dataclass(frozen=True)
class _Along:
    """A phase inside a tile, along one axis: first output position, number of them, padding before the input."""

    first: int
    count: int
    before: int


def _along(interval: tuple[int, int], in_start: int, phase: Phase, stride: int, pad: int) -> _Along | None:
    start, stop = interval
    first = start + (phase.index - start - pad) % stride
    if first >= stop:
        return None
    # Output `first` meets input (first + pad) // stride with tap `index`; earlier inputs meet the later taps.
    quotient = (first + pad) // stride
    reach = max(1, len(phase.taps)) - 1
    return _Along(first, -(-(stop - first) // stride), in_start - (quotient - reach))


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


def _phase_weight(weight: np.ndarray, rows: Phase, columns: Phase) -> np.ndarray:
    """int8 ``[o, i, taps, taps]`` of one phase; a phase without taps gets a single zero tap."""
    if not rows.taps or not columns.taps:
        shape = (weight.shape[1], weight.shape[0], max(1, len(rows.taps)), max(1, len(columns.taps)))
        return np.zeros(shape, np.int8)
    return weight[:, :, rows.taps, :][:, :, :, columns.taps].transpose(1, 0, 2, 3)
