"""Softmax over the last axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import DATA_TYPES
from npu_backend.ops import numerics_softmax as numerics
from npu_backend.ops.attributes import SoftmaxAttributes
from npu_backend.ops.base import LoweredInstruction, OpSpec, PackedConstant, Tile, register
from npu_backend.ops.conv import quantization_of
from npu_backend.ops.strided import collapse


@register
class Softmax(OpSpec):
    """Softmax of 8-bit codes over the axis that is stored last."""

    kind = "softmax"
    meaning = "softmax over one axis, which the layout places last"

    def infer_shape(
        self, attributes: SoftmaxAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The input's."""
        return inputs[0].shape

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's QLinearSoftmax."""
        x, y = quantization_of(graph.tensor(op.inputs[0])), quantization_of(graph.tensor(op.output))
        axis = op.attributes.axis
        rows = np.moveaxis(inputs[0], axis, -1)
        return np.moveaxis(numerics.softmax(rows, np.float32(x.scale), np.float32(y.scale), y.zero_point), -1, axis)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis but the normalised one."""
        return dict.fromkeys(range(len(graph.tensor(op.output).shape) - 1), 1)

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The same rows."""
        return (out_box,)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """256 exponentials."""
        x = graph.tensor(op.inputs[0])
        table = numerics.softmax_table(np.float32(quantization_of(x).scale), x.shape[-1])
        return (PackedConstant(table.view(np.uint8).reshape(1, -1)),)

    def permute(self, attributes: SoftmaxAttributes, axes: tuple[int, ...], rank: int) -> SoftmaxAttributes | None:
        """Follows its axis, as long as that is stored last."""
        axis = axes.index(attributes.axis % rank)
        return SoftmaxAttributes(axis) if axis == rank - 1 else None

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction for up to three axes of rows."""
        assert op.attributes.axis % tile.output.box.rank == tile.output.box.rank - 1, op
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        source, output = tile.inputs[0], tile.output
        counts, strides = collapse(output.box.shape[:-1], [source.strides[:-1], output.strides[:-1]])
        assert len(counts) <= 3, f"{op.name}: rows of {len(counts)} separate axes"
        pad = 3 - len(counts)
        return (LoweredInstruction("SOFTMAX", {
            "input": source.address, "output": output.address, "counts": (*[1] * pad, *counts),
            "length": output.box.shape[-1],
            "input_strides": (*[0] * pad, *strides[0]), "output_strides": (*[0] * pad, *strides[1]),
            "table": tile.constants[0].address, "input_type": DATA_TYPES[x.dtype], "output_type": DATA_TYPES[y.dtype],
            "output_zero_point": quantization_of(y).zero_point,
            "output_scale": float(numerics.softmax_output_scale(np.float32(quantization_of(y).scale))),
        }),)  # fmt: skip
