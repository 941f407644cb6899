"""Operators that give elements another order or shape: reshape, transpose, concatenation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.ops import numerics_core
from npu_backend.ops.attributes import ConcatAttributes, TransposeAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, PackedConstant, Tile, quantization_of, register
from npu_backend.ops.elementwise import element_fields
from npu_backend.ops.movement import Movement, copy
from npu_backend.ops.strided import elementwise
from npu_backend.ops.unary import table_lookup


@register
class Transpose(Movement):
    """Axes in another order; most are cancelled by the legalize pass and never run."""

    kind = "transpose"
    meaning = "transpose of any axes"

    def infer_shape(
        self, attributes: TransposeAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The permuted shape."""
        return tuple(inputs[0].shape[axis] for axis in attributes.axes)

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """NumPy's transpose."""
        return inputs[0].transpose(op.attributes.axes).copy()

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The box with its axes back in order."""
        axes = op.attributes.axes
        return (out_box.permute([axes.index(axis) for axis in range(len(axes))]),)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A strided copy."""
        source = tile.inputs[0]
        turned = Operand(
            source.address, tuple(source.strides[axis] for axis in op.attributes.axes), tile.output.box, source.dtype
        )
        return copy(turned, tile.output, tile.output.box.shape)


@register
class Concat(Movement):
    """Inputs one after the other; those of another scale are requantised, 8-bit codes by a table."""

    kind = "concat"
    keeps_elements = False
    meaning = "concatenation along any axis, inputs of other scales requantised"

    def infer_shape(
        self, attributes: ConcatAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The first input's shape with the extents along the axis added up."""
        shape = list(inputs[0].shape)
        shape[attributes.axis] = sum(tensor.shape[attributes.axis] for tensor in inputs)
        return tuple(shape)

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's QLinearConcat."""
        parts = [self._requantized(graph, op, name, value) for name, value in zip(op.inputs, inputs)]
        return np.concatenate(parts, axis=op.attributes.axis)

    def _requantized(self, graph: Graph, op: Op, name: str, value: np.ndarray) -> np.ndarray:
        if not _differs(graph, op, name):
            return value
        table = self._table(graph, op, name)
        real = numerics_core.decode(value, graph.tensor(name).quantization)
        return (numerics_core.encode(real, graph.tensor(op.output)) if table is None
                else numerics_core.apply_table(value, table))  # fmt: skip

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """What of the box comes from each input; empty where nothing does."""
        axis, boxes, offset = op.attributes.axis, [], 0
        for name in op.inputs:
            extent = graph.tensor(name).shape[axis]
            start, stop = (min(max(bound - offset, 0), extent) for bound in out_box.interval(axis))
            boxes.append(out_box.with_interval(axis, start, stop))
            offset += extent
        return tuple(boxes)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """A table for every input of another scale, in order."""
        tables = [self._table(graph, op, name) for name in op.inputs]
        return tuple(PackedConstant(table.view(np.uint8).reshape(1, 256)) for table in tables if table is not None)

    def permute(self, attributes: ConcatAttributes, axes: tuple[int, ...], rank: int) -> ConcatAttributes:
        """Follows its axis."""
        return ConcatAttributes(axes.index(attributes.axis % rank))

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A copy, a table look-up or a conversion per input that has a part in the tile."""
        axis, offset = op.attributes.axis, 0
        lowered: list[LoweredInstruction] = []
        tables = iter(tile.constants)
        for name, source in zip(op.inputs, tile.inputs):
            table = next(tables).address if self._table(graph, op, name) is not None else None
            start, stop = (bound + offset for bound in source.box.interval(axis))
            offset += graph.tensor(name).shape[axis]
            if source.box.is_empty:
                continue
            output = tile.output.narrow(tile.output.box.with_interval(axis, start, stop))
            if table is not None:
                lowered += table_lookup(source, output, table)
            elif _differs(graph, op, name):
                lowered += _convert(graph, op, name, source, output)
            else:
                lowered += copy(source, output, output.box.shape)
        return tuple(lowered)

    def _table(self, graph: Graph, op: Op, name: str) -> np.ndarray | None:
        x, y = graph.tensor(name), graph.tensor(op.output)
        if not _differs(graph, op, name) or x.itemsize > 1:
            return None
        return numerics_core.requantize_table(
            np.float32(quantization_of(x).scale), quantization_of(x).zero_point,
            np.float32(quantization_of(y).scale), quantization_of(y).zero_point, np.dtype(y.dtype),
        )  # fmt: skip


def _differs(graph: Graph, op: Op, name: str) -> bool:
    return graph.tensor(name).quantization != graph.tensor(op.output).quantization


def _convert(graph: Graph, op: Op, name: str, source: Operand, output: Operand) -> tuple[LoweredInstruction, ...]:
    operands = {"input": (source.address, source.strides), "output": (output.address, output.strides)}
    fields = element_fields("input", graph.tensor(name)) | element_fields("output", graph.tensor(op.output))
    return elementwise("CONVERT", output.box.shape, operands, fields)
