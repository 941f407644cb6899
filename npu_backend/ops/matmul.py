"""Products of two computed tensors, each read in whatever order it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import CHANNEL_BLOCK
from npu_backend.ops import numerics_matmul as numerics
from npu_backend.ops.attributes import MatMulAttributes
from npu_backend.ops.base import LoweredInstruction, OpSpec, Reduction, Tile, register
from npu_backend.ops.elementwise import FORMS, element_fields
from npu_backend.ops.matrix import accumulator_fields

Axes = tuple[int, ...]
_OPERANDS = ("left", "right", "output")


@dataclass(frozen=True)
class _Matrices:
    """How an operand or the output is stored: the stored axis of every batch axis, of the rows and of the columns."""

    axes: Axes

    @staticmethod
    def left(a: MatMulAttributes, rank: int) -> _Matrices:
        return _Matrices(_turned(a.left_axes or tuple(range(rank)), turn=a.transpose_a))

    @staticmethod
    def right(a: MatMulAttributes, rank: int) -> _Matrices:
        return _Matrices(_turned(a.right_axes or tuple(range(rank)), turn=a.transpose_b))

    @staticmethod
    def output(a: MatMulAttributes, rank: int) -> _Matrices:
        return _Matrices(a.output_axes or tuple(range(rank)))

    @property
    def rows(self) -> int:
        """The stored axis of the rows."""
        return self.axes[-2]

    @property
    def columns(self) -> int:
        """The stored axis of the columns."""
        return self.axes[-1]

    def shape(self, stored: Sequence[int]) -> tuple[int, ...]:
        """The stored shape as batch axes, rows, columns."""
        return tuple(stored[axis] for axis in self.axes)

    def stored_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inverse of `shape`."""
        return tuple(shape[self.axes.index(axis)] for axis in range(len(shape)))

    def view(self, values: np.ndarray) -> np.ndarray:
        """The stored array as batch axes, rows, columns."""
        return values.transpose(self.axes)

    def batch_box(self, stored: Sequence[int], batch: Sequence[tuple[int, int]]) -> Box:
        """The box of the matrices that the intervals of the output's batch axes need; an extent of 1 broadcasts."""
        box = Box.whole(stored)
        own = self.axes[:-2]
        for axis, interval in zip(own, batch[len(batch) - len(own) :]):
            if stored[axis] != 1:
                box = box.with_interval(axis, *interval)
        return box


def _turned(axes: Axes, *, turn: bool) -> Axes:
    return (*axes[:-2], axes[-1], axes[-2]) if turn else axes


@register
class MatMul(OpSpec):
    """``y[..., m, n] = sum over k of a[..., m, k] * b[..., k, n]``: integer sums of codes, float32 sums of all else."""

    kind = "matmul"
    meaning = "product of two computed tensors (MatMul, Gemm), batch axes broadcast, either side transposed"
    forms = FORMS

    def infer_shape(
        self, attributes: MatMulAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """Broadcast batch axes, rows of a, columns of b; in the output's storage order."""
        a = _Matrices.left(attributes, len(inputs[0].shape)).shape(inputs[0].shape)
        b = _Matrices.right(attributes, len(inputs[1].shape)).shape(inputs[1].shape)
        assert a[-1] == b[-2], f"{a} times {b}: the inner extents differ"
        shape = (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
        return _Matrices.output(attributes, len(shape)).stored_shape(shape)

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's QLinearMatMul on 8-bit codes."""
        a, b, y = (graph.tensor(name) for name in (*op.inputs, op.output))
        left, right, output = _layouts(graph, op)
        result = numerics.matmul(left.view(inputs[0]), a, right.view(inputs[1]), b, y)
        return result.transpose(np.argsort(output.axes))

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis; the columns in blocks of 16."""
        output = _layouts(graph, op)[2]
        return {**dict.fromkeys(sorted(output.axes), 1), output.columns: CHANNEL_BLOCK}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The same matrices; the rows of a, the columns of b."""
        left, right, output = _layouts(graph, op)
        shapes = [graph.tensor(name).shape for name in op.inputs]
        batch = [out_box.interval(axis) for axis in output.axes[:-2]]
        rows, columns = out_box.interval(output.rows), out_box.interval(output.columns)
        return (left.batch_box(shapes[0], batch).with_interval(left.rows, *rows),
                right.batch_box(shapes[1], batch).with_interval(right.columns, *columns))  # fmt: skip

    def reduction_length(self, graph: Graph, op: Op) -> int | None:
        """k."""
        return graph.tensor(op.inputs[0]).shape[_layouts(graph, op)[0].columns]

    def reduction_boxes(self, graph: Graph, op: Op, boxes: Sequence[Box], reduction: Reduction) -> tuple[Box, ...]:
        """Columns of a and rows of b."""
        left, right, _ = _layouts(graph, op)
        inner = reduction.start, reduction.stop
        return boxes[0].with_interval(left.columns, *inner), boxes[1].with_interval(right.rows, *inner)

    def accumulator_bytes(self, graph: Graph, op: Op, out_box: Box) -> int:
        """int32 or float32 a sum, int64 where a 16-bit code takes part."""
        return out_box.size * _sum_bytes(graph, op)

    def macs(self, graph: Graph, op: Op) -> int:
        """Output elements times k."""
        return prod(graph.tensor(op.output).shape) * (self.reduction_length(graph, op) or 0)

    def reorder(self, attributes: MatMulAttributes, orders: Sequence[Axes]) -> MatMulAttributes:
        """Strides read any order."""
        left, right = (
            _moved(axes, order) for axes, order in zip((attributes.left_axes, attributes.right_axes), orders)
        )
        return replace(attributes, left_axes=left, right_axes=right)

    def reorder_output(self, attributes: MatMulAttributes, axes: Axes) -> MatMulAttributes:
        """Strides write any order."""
        return replace(attributes, output_axes=_moved(attributes.output_axes, axes))

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per matrix of the batch."""
        left, _, output = _layouts(graph, op)
        box = tile.output.box
        sizes = {"rows": box.shape[output.rows], "columns": box.shape[output.columns],
                 "inner": tile.inputs[0].box.shape[left.columns]}  # fmt: skip
        fixed = _type_fields(graph, op) | sizes
        matrix_bytes = sizes["rows"] * sizes["columns"] * _sum_bytes(graph, op)
        indices = product(*(range(*box.interval(axis)) for axis in output.axes[:-2]))
        return tuple(
            LoweredInstruction("MATMUL", fixed | _matrix_fields(graph, op, tile, index)
                               | accumulator_fields(tile, number * matrix_bytes))
            for number, index in enumerate(indices)
        )  # fmt: skip


def _moved(axes: Axes, order: Axes) -> Axes:
    """Where `order` puts the axes that lie at `axes` (empty: where they stand)."""
    return tuple(order[axis] for axis in axes) or tuple(order)


def _layouts(graph: Graph, op: Op) -> tuple[_Matrices, _Matrices, _Matrices]:
    a, b, y = (len(graph.tensor(name).shape) for name in (*op.inputs, op.output))
    return _Matrices.left(op.attributes, a), _Matrices.right(op.attributes, b), _Matrices.output(op.attributes, y)


def _type_fields(graph: Graph, op: Op) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, tensor in zip(_OPERANDS, (*op.inputs, op.output)):
        fields |= element_fields(name, graph.tensor(tensor))
    return fields


def _matrix_fields(graph: Graph, op: Op, tile: Tile, index: tuple[int, ...]) -> dict[str, object]:
    """Addresses and strides of the matrices at one index of the output's batch axes."""
    batch = [(position, position + 1) for position in index]
    fields: dict[str, object] = {}
    tensors = (graph.tensor(name) for name in (*op.inputs, op.output))
    for name, operand, tensor, layout in zip(_OPERANDS, (*tile.inputs, tile.output), tensors, _layouts(graph, op)):
        matrix = operand.narrow(operand.box.intersect(layout.batch_box(tensor.shape, batch)))
        fields |= {name: matrix.address, f"{name}_row_bytes": matrix.strides[layout.rows],
                   f"{name}_column_bytes": matrix.strides[layout.columns]}  # fmt: skip
    return fields


def _sum_bytes(graph: Graph, op: Op) -> int:
    tensors = [graph.tensor(name) for name in op.inputs]
    wide = all(tensor.quantization for tensor in tensors) and any(tensor.itemsize == 2 for tensor in tensors)
    return 8 if wide else 4
