"""Resize of height and width, on ``[n, h, w, c]``; the coordinates become tables when the model is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import DATA_TYPES, ResizeFunction
from npu_backend.ops import numerics_resize as numerics
from npu_backend.ops.attributes import ResizeAttributes
from npu_backend.ops.base import LoweredInstruction, OpSpec, PackedConstant, Tile, register
from npu_backend.ops.conv import quantization_of
from npu_backend.ops.windows import at_batch

_TABLE_ROW = np.dtype([("first", "<u4"), ("second", "<u4"), ("first_weight", "<f4"), ("second_weight", "<f4")])


@register
class Resize2d(OpSpec):
    """Nearest or bilinear interpolation in every coordinate mode of ONNX Runtime's 2-D kernels."""

    kind = "resize2d"
    meaning = "2-D resize, nearest and bilinear, with half_pixel, pytorch_half_pixel, align_corners and asymmetric"

    def infer_shape(
        self, attributes: ResizeAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The input's shape with the new height and width."""
        batch, _, _, channels = inputs[0].shape
        return batch, *attributes.output_size, channels

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's Resize between dequantise and quantise."""
        rows, columns = (_taps(graph, op, axis) for axis in (0, 1))
        if op.attributes.function == "nearest":
            return numerics.resize_nearest(inputs[0], rows.low, columns.low)
        x, y = quantization_of(graph.tensor(op.inputs[0])), quantization_of(graph.tensor(op.output))
        return numerics.resize_linear(
            inputs[0], np.float32(x.scale), x.zero_point, np.float32(y.scale), y.zero_point, rows, columns
        )

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis."""
        del graph, op
        return {0: 1, 1: 1, 2: 1, 3: 1}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """From the lowest to the highest neighbour of the box."""
        box = out_box
        for axis in (0, 1):
            taps, part = _taps(graph, op, axis), slice(*out_box.interval(axis + 1))
            box = box.with_interval(axis + 1, int(taps.low[part].min()), int(taps.high[part].max()) + 1)
        return (box,)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """One table row per output row, and one per output column."""
        return tuple(PackedConstant(_table(_taps(graph, op, axis)), axis + 1) for axis in (0, 1))

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per image."""
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        origin = tile.inputs[0].box.starts
        fields = {
            "row_table": tile.constants[0].address, "column_table": tile.constants[1].address,
            "input_row_origin": origin[1], "input_column_origin": origin[2],
            "function": ResizeFunction[op.attributes.function.upper()], "data_type": DATA_TYPES[x.dtype],
            "input_scale": quantization_of(x).scale, "input_zero_point": quantization_of(x).zero_point,
            "output_scale": quantization_of(y).scale, "output_zero_point": quantization_of(y).zero_point,
        }  # fmt: skip
        lowered = []
        for image in range(*tile.output.box.interval(0)):
            source, output = at_batch(tile.inputs[0], image), at_batch(tile.output, image)
            lowered.append(LoweredInstruction("RESIZE", fields | {
                "input": source.address, "input_row_bytes": source.strides[1],
                "input_column_bytes": source.strides[2],
                "input_height": source.box.shape[1], "input_width": source.box.shape[2],
                "output": output.address, "output_row_bytes": output.strides[1],
                "output_column_bytes": output.strides[2], "output_height": output.box.shape[1],
                "output_width": output.box.shape[2], "channels": output.box.shape[3],
            }))  # fmt: skip
        return tuple(lowered)


def _taps(graph: Graph, op: Op, axis: int) -> numerics.LinearTaps:
    """Both neighbours and weights of every output position; nearest has one neighbour of weight 1."""
    a: ResizeAttributes = op.attributes
    lengths = graph.tensor(op.inputs[0]).shape[axis + 1], a.output_size[axis]
    if a.function == "bilinear":
        return numerics.linear_taps(*lengths, a.coordinate_mode, a.scales[axis])  # type: ignore[arg-type]
    index = numerics.nearest_indices(*lengths, a.coordinate_mode, a.nearest_mode, a.scales[axis])  # type: ignore[arg-type]
    return numerics.LinearTaps(index, index, np.ones(len(index), np.float32), np.zeros(len(index), np.float32))


def _table(taps: numerics.LinearTaps) -> np.ndarray:
    table = np.empty(len(taps.low), _TABLE_ROW)
    for name, values in zip(_TABLE_ROW.names or (), taps):
        table[name] = values
    return table.view(np.uint8).reshape(len(table), -1)
