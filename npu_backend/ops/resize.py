"""Resize of height and width, on ``[n, h, w, c]``; the coordinates become tables when the model is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import COMPUTED_TYPES
from npu_backend.isa_functions import ResizeFunction
from npu_backend.ops import numerics_core
from npu_backend.ops import numerics_resize as numerics
from npu_backend.ops.attributes import ResizeAttributes
from npu_backend.ops.base import LoweredInstruction, OpSpec, PackedConstant, Tile, register
from npu_backend.ops.elementwise import element_fields
from npu_backend.ops.windows import at_batch


@register
class Resize2d(OpSpec):
    """Interpolation in every coordinate mode of ONNX Runtime's 2-D kernels."""

    kind = "resize2d"
    meaning = "2-D resize: nearest, bilinear, cubic, antialiased, in every coordinate mode"
    forms = COMPUTED_TYPES

    def infer_shape(
        self, attributes: ResizeAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The input's shape with the new height and width."""
        batch, _, _, channels = inputs[0].shape
        return batch, *attributes.output_size, channels

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's Resize between dequantise and quantise."""
        rows, columns = _taps(graph, op)
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        filling = numerics_core.encode(np.float32(op.attributes.extrapolation), y)
        if _function(graph, op) is ResizeFunction.NEAREST:
            result: Any = numerics.resize_nearest(inputs[0], rows.positions[:, 0], columns.positions[:, 0])
        else:
            function = numerics.bilinear if _function(graph, op) is ResizeFunction.BILINEAR else numerics.separable
            real = function(numerics_core.decode(inputs[0], x.quantization), rows, columns)
            result = numerics_core.encode(real, y)
        return np.where(numerics.outside(rows, columns)[:, :, None], filling, result)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis."""
        del graph, op
        return {0: 1, 1: 1, 2: 1, 3: 1}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """From the lowest to the highest neighbour of the box."""
        box = out_box
        for axis, taps in enumerate(_taps(graph, op), 1):
            start, stop = out_box.interval(axis)
            used = taps.positions[start:stop]
            box = box.with_interval(axis, int(used.min()), int(used.max()) + 1)
        return (box,)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """One table row per output row, and one per output column."""
        return tuple(PackedConstant(_table(taps), axis) for axis, taps in enumerate(_taps(graph, op), 1))

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per image."""
        origin, taps = tile.inputs[0].box.starts, _taps(graph, op)
        fields = {
            "row_table": tile.constants[0].address, "column_table": tile.constants[1].address,
            "row_taps": taps[0].weights.shape[1], "column_taps": taps[1].weights.shape[1],
            "input_row_origin": origin[1], "input_column_origin": origin[2], "function": _function(graph, op),
            "extrapolation": op.attributes.extrapolation,
            **element_fields("input", graph.tensor(op.inputs[0])), **element_fields("output", graph.tensor(op.output)),
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


def _function(graph: Graph, op: Op) -> ResizeFunction:
    x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
    counts = [taps.weights.shape[1] for taps in _taps(graph, op)]
    if counts == [1, 1] and (x.dtype, x.quantization) == (y.dtype, y.quantization):
        return ResizeFunction.NEAREST
    is_bilinear = op.attributes.function == "bilinear" and not op.attributes.antialias and counts == [2, 2]
    return ResizeFunction.BILINEAR if is_bilinear else ResizeFunction.SEPARABLE


def _taps(graph: Graph, op: Op) -> tuple[numerics.Taps, numerics.Taps]:
    _, height, width, _ = graph.tensor(op.inputs[0]).shape
    return resize_taps(op.attributes, (height, width))


@lru_cache(maxsize=128)
def resize_taps(a: ResizeAttributes, size: tuple[int, int]) -> tuple[numerics.Taps, numerics.Taps]:
    """Neighbours and weights of every output row and column of an input of this height and width.

    ONNX Runtime copies an image whose size stays, whatever its scales.
    """
    if a.output_size == size:
        return numerics.identity_taps(size[0]), numerics.identity_taps(size[1])
    return _axis_taps(a, 0, size[0]), _axis_taps(a, 1, size[1])


def _axis_taps(a: ResizeAttributes, number: int, length: int) -> numerics.Taps:
    roi = a.roi[number], a.roi[number + 2]
    axis = numerics.Axis(length, a.output_size[number], a.coordinate_mode, a.scales[number], roi)  # type: ignore[arg-type]
    if a.function == "nearest":
        return numerics.nearest_taps(axis, a.nearest_mode)  # type: ignore[arg-type]
    if a.antialias:
        return numerics.antialias_taps(axis, a.function, a.cubic_coefficient, a.exclude_outside)
    if a.function == "bilinear":
        return numerics.linear_taps(axis)
    return numerics.cubic_taps(axis, a.cubic_coefficient, a.exclude_outside)


def _table(taps: numerics.Taps) -> np.ndarray:
    """Per output position: all source positions, then all weights."""
    halves = taps.positions.astype("<i4").view(np.uint8), taps.weights.astype("<f4").view(np.uint8)
    return np.concatenate(halves, axis=1)
