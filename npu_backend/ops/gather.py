"""Gather: positions along one axis that indices name at run time.

Data that is computed is gathered in the scratchpad, whole along the axis. Of a large table that lies in DRAM, such as
the rows of a word embedding, only what the indices name is moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import DATA_TYPES
from npu_backend.ops.attributes import GatherAttributes
from npu_backend.ops.base import LoweredInstruction, Tile, register
from npu_backend.ops.movement import Movement
from npu_backend.ops.strided import blocks, runs

# A table up to this size is loaded whole, once, rather than row by row.
SMALL_TABLE_BYTES = 1 << 15
# The least that DRAM gives for a row.
BURST_BYTES = 64


@register
class Gather(Movement):
    """Inputs: data, and indices int32 or int64 of any rank, which take the axis's place in the output's shape."""

    kind = "gather"
    meaning = "positions along an axis by indices, which may be computed (Gather)"

    def wrong_types(self, graph: Graph, op: Op) -> str | None:
        """Indices are int32 or int64."""
        indices = graph.tensor(op.inputs[1])
        if indices.dtype not in ("int32", "int64"):
            return f"takes positions by {indices.dtype} instead of int32 or int64"
        return super().wrong_types(graph, op)

    def infer_shape(
        self, attributes: GatherAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The data's shape with the indices' in place of the axis."""
        (data, indices), axis = (tensor.shape for tensor in inputs), attributes.axis
        return data[:axis] + indices + data[axis + 1 :]

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """NumPy's take."""
        return np.take(inputs[0], inputs[1], axis=op.attributes.axis)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis."""
        return dict.fromkeys(range(len(graph.tensor(op.output).shape)), 1)

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The data whole along the axis, and the indices of the box."""
        data, (first, last) = graph.tensor(op.inputs[0]).shape, self._index_axes(graph, op)
        indices = Box(out_box.starts[first:last], out_box.stops[first:last])
        starts = (*out_box.starts[:first], 0, *out_box.starts[last:])
        stops = (*out_box.stops[:first], data[first], *out_box.stops[last:])
        return Box(starts, stops), indices

    def read_in_dram(self, graph: Graph, op: Op) -> frozenset[str]:
        """The data, if no operator computes it and it is larger than what is taken of it, or than a small table."""
        data, output = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        if data.name in graph.producers:
            return frozenset()
        run_bytes = prod(data.shape[op.attributes.axis + 1 :]) * data.itemsize
        taken_bytes = output.size_bytes // run_bytes * max(run_bytes, BURST_BYTES)
        return frozenset((data.name,) if data.size_bytes > min(taken_bytes, SMALL_TABLE_BYTES) else ())

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """An instruction per axis of the indices, and per three of the data, that cannot be merged."""
        (data, indices), output, (first, last) = tile.inputs, tile.output, self._index_axes(graph, op)
        in_dram = isinstance(data.address.buffer, str)
        rest = [axis for axis in range(output.box.rank) if not first <= axis < last]
        sides = (_without(data.strides, first, first + 1), tuple(output.strides[axis] for axis in rest))
        lowered = []
        for (count,), ((index_step,), (out_step,)), (index_at, out_at) in blocks(
            indices.box.shape, (indices.strides, output.strides[first:last]), 1
        ):
            for run, counts, (in_steps, out_steps), (in_offset, out_offset) in runs(
                [output.box.shape[axis] for axis in rest], sides, np.dtype(data.dtype).itemsize, 3
            ):
                lowered.append(LoweredInstruction("LOAD_ROWS" if in_dram else "GATHER", {
                    "dram" if in_dram else "input": data.address + in_offset,
                    "output": output.address + out_at + out_offset, "indices": indices.address + index_at,
                    "index_type": DATA_TYPES[indices.dtype], "index_count": count, "index_bytes": index_step,
                    "extent": data.box.shape[first], "input_step_bytes": data.strides[first],
                    "output_step_bytes": out_step, "run_bytes": run, "counts": counts, "input_strides": in_steps,
                    "output_strides": out_steps,
                }))  # fmt: skip
        return tuple(lowered)

    def _index_axes(self, graph: Graph, op: Op) -> tuple[int, int]:
        """First and one past the last axis of the output that the indices take."""
        first = op.attributes.axis
        return first, first + len(graph.tensor(op.inputs[1]).shape)


def _without(values: tuple[int, ...], start: int, stop: int) -> tuple[int, ...]:
    return values[:start] + values[stop:]
