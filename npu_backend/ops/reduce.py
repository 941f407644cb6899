"""Reductions over any axes, and the index of an extreme along one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npu_backend.graph import Graph, Op
from npu_backend.isa_functions import ReduceFunction
from npu_backend.ops import numerics_lines as numerics
from npu_backend.ops.attributes import ArgReduceAttributes, ReduceAttributes
from npu_backend.ops.base import LoweredInstruction, Tile, register
from npu_backend.ops.lines import LineSpec, line_instructions
from npu_backend.ops.numerics_core import encode


@register
class Reduce(LineSpec):
    """Elements over any axes to one, in float32."""

    kind = "reduce"
    meaning = "reductions over any axes, within one step of ONNX Runtime's float sums: " + ", ".join(
        sorted(numerics.REDUCTIONS)
    )
    reduces = True

    def line_axes(self, attributes: ReduceAttributes, rank: int) -> tuple[int, ...]:
        """The reduced axes."""
        return attributes.axes

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's float reduction, but for the order of sums."""
        x, a = graph.tensor(op.inputs[0]), op.attributes
        return encode(numerics.reduce(inputs[0], x.quantization, a.function, a.axes), graph.tensor(op.output))

    def permute(self, attributes: ReduceAttributes, axes: tuple[int, ...], rank: int) -> ReduceAttributes:
        """Follows its axes, in the order in which they were summed."""
        return ReduceAttributes(attributes.function, tuple(axes.index(axis) for axis in attributes.axes))

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """REDUCE instructions."""
        fields = {"function": ReduceFunction[op.attributes.function.upper()]}
        return line_instructions("REDUCE", graph, op, (tile.inputs[0], tile.output), op.attributes.axes, fields)


@register
class ArgReduce(LineSpec):
    """Where along an axis the largest or smallest element is."""

    kind = "arg_reduce"
    meaning = "index of the largest or smallest element along an axis, the first or last of equals (ArgMax, ArgMin)"
    reduces = True

    def wrong_types(self, graph: Graph, op: Op) -> str | None:
        """An index is int32 or int64."""
        output = graph.tensor(op.output)
        return None if output.dtype in ("int32", "int64") else f"makes indices of {output.dtype}"

    def line_axes(self, attributes: ArgReduceAttributes, rank: int) -> tuple[int, ...]:
        """The axis searched."""
        return (attributes.axis % rank,)

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's ArgMax and ArgMin."""
        x, a = graph.tensor(op.inputs[0]), op.attributes
        axis = a.axis % inputs[0].ndim
        index = numerics.arg_reduce(inputs[0], x.quantization, a.function, axis, a.select_last)
        return index.astype(graph.tensor(op.output).dtype)

    def permute(self, attributes: ArgReduceAttributes, axes: tuple[int, ...], rank: int) -> ArgReduceAttributes:
        """Follows its axis."""
        return ArgReduceAttributes(attributes.function, axes.index(attributes.axis % rank), attributes.select_last)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """ARGREDUCE instructions."""
        a = op.attributes
        fields = {"function": ReduceFunction[a.function.upper()], "select_last": int(a.select_last)}
        axes = self.line_axes(a, tile.output.box.rank)
        return line_instructions("ARGREDUCE", graph, op, (tile.inputs[0], tile.output), axes, fields)
