"""Reductions over any axes of a tensor of rank 4 at most: maximum of codes, mean in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import PoolFunction
from npu_backend.ops import numerics_pool as numerics
from npu_backend.ops.attributes import ReduceAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, OpSpec, Tile, register
from npu_backend.ops.conv import quantization_of
from npu_backend.ops.pool import scale_fields
from npu_backend.ops.strided import collapse


@register
class Reduce(OpSpec):
    """Reduced axes keep extent 1."""

    kind = "reduce"
    meaning = (
        "maximum and mean over any axes (ReduceMax, GlobalMaxPool, ReduceMean); the mean within one step of ONNX "
        "Runtime's float mean"
    )

    def infer_shape(
        self, attributes: ReduceAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The input's, with 1 at every reduced axis."""
        return tuple(1 if axis in attributes.axes else extent for axis, extent in enumerate(inputs[0].shape))

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The largest code; or as ONNX Runtime's ReduceMean on dequantised values, within one step."""
        if op.attributes.function == "maximum":
            return np.asarray(inputs[0].max(axis=op.attributes.axes, keepdims=True))
        x, y = quantization_of(graph.tensor(op.inputs[0])), quantization_of(graph.tensor(op.output))
        return numerics.reduce_mean(
            inputs[0], np.float32(x.scale), x.zero_point, np.float32(y.scale), y.zero_point, op.attributes.axes
        )

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis that stays."""
        rank = len(graph.tensor(op.output).shape)
        return {axis: 1 for axis in range(rank) if axis not in op.attributes.axes}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The same box with the reduced axes whole."""
        for axis in op.attributes.axes:
            out_box = out_box.with_interval(axis, 0, graph.tensor(op.inputs[0]).shape[axis])
        return (out_box,)

    def permute(self, attributes: ReduceAttributes, axes: tuple[int, ...], rank: int) -> ReduceAttributes:
        """Follows its axes."""
        return ReduceAttributes(attributes.function, tuple(sorted(axes.index(axis) for axis in attributes.axes)))

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per index of the axes that stay, the innermost taken as channels where it stays."""
        source, output = tile.inputs[0], tile.output
        axes, last = op.attributes.axes, output.box.rank - 1
        channels = 1 if last in axes else output.box.shape[last]
        outer = [axis for axis in range(output.box.rank) if axis not in axes and (axis != last or channels == 1)]
        window = _window(source, axes)
        make = _maximum if op.attributes.function == "maximum" else _mean
        lowered = []
        for index in product(*(range(*output.box.interval(axis)) for axis in outer)):
            part, result = source, output
            for axis, position in zip(outer, index):
                part = part.narrow(part.box.with_interval(axis, position, position + 1))
                result = result.narrow(result.box.with_interval(axis, position, position + 1))
            fields = {"input": part.address, "output": result.address, **window, **scale_fields(graph, op)}
            lowered.append(make(fields, channels))
        return tuple(lowered)


def _window(source: Operand, axes: Sequence[int]) -> dict[str, int]:
    """The reduced axes as rows and columns."""
    counts, (steps,) = collapse(
        [source.box.shape[axis] for axis in axes], [[source.strides[axis] for axis in axes]]
    )  # fmt: skip
    assert len(counts) <= 2, f"{axes} of {source.box.shape} are no two runs"
    height, width = (*[1] * (2 - len(counts)), *counts)
    row_step, column_step = (*[0] * (2 - len(steps)), *steps)
    return {"input_height": height, "input_width": width, "input_row_bytes": row_step,
            "input_column_bytes": column_step}  # fmt: skip


def _mean(fields: Mapping[str, object], channels: int) -> LoweredInstruction:
    return LoweredInstruction("MEAN", {**fields, "channels": channels, "float_mean": 1})


def _maximum(fields: Mapping[str, object], channels: int) -> LoweredInstruction:
    """A pooling window as large as what is reduced."""
    return LoweredInstruction("POOL", {
        **fields, "function": PoolFunction.MAXIMUM, "input_channels": channels, "output_channels": channels,
        "kernel_height": fields["input_height"], "kernel_width": fields["input_width"],
        "output_height": 1, "output_width": 1, "output_row_bytes": channels, "output_column_bytes": channels,
        "stride_height": 1, "stride_width": 1, "dilation_height": 1, "dilation_width": 1, "pad_top": 0, "pad_left": 0,
    })  # fmt: skip
