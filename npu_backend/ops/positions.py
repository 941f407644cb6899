"""Operators that take every output element from a place that each axis tells by itself: slice, pad, expand, tile."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.ops.attributes import ExpandAttributes, PadAttributes, SliceAttributes, TileAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, Tile, register
from npu_backend.ops.movement import Movement, copy
from npu_backend.ops.strided import blocks

Positions = npt.NDArray[np.int64]
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbours along an output axis whose positions in the input are `step` apart."""

    start: int
    count: int
    source: int
    step: int


class _ByPosition(Movement):
    """Output element ``[i, j, ...]`` is input element ``[p(i), q(j), ...]``."""

    @abstractmethod
    def positions(self, attributes: Any, extent: int, axis: int) -> Positions:
        """For every position of an output axis, where on the same axis of the input it comes from, or NOWHERE."""

    def infer_shape(
        self, attributes: Any, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """As many elements as each axis has positions."""
        return tuple(len(positions) for positions in _positions(self, attributes, inputs[0].shape))

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """NumPy's indexing by the positions of each axis."""
        positions = _positions(self, op.attributes, inputs[0].shape)
        source = inputs[0].reshape((1,) * (len(positions) - inputs[0].ndim) + inputs[0].shape)
        if any(len(axis) and axis.min() == NOWHERE for axis in positions):
            # A border of the fill value catches what comes from nowhere: position -1.
            source = np.pad(source, [(0, 1)] * source.ndim, constant_values=self.fill(op.attributes, source.dtype))
        return np.array(source[np.ix_(*positions)])

    def fill(self, attributes: Any, dtype: npt.DTypeLike) -> Any:
        """What elements from nowhere are."""
        raise AssertionError(f"{self.kind} takes every element from somewhere")

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """From the lowest to the highest position on every axis; empty where all come from nowhere."""
        rank = len(graph.tensor(op.inputs[0]).shape)
        intervals = [_hull(positions) for positions in _positions_in(self, graph, op, out_box)]
        starts, stops = zip(*intervals[len(intervals) - rank :]) if rank else ((), ())
        return (Box(starts, stops if all(low < high for low, high in intervals) else starts),)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A copy for every combination of the axes' runs; before them a fill, where elements come from nowhere."""
        output, source = tile.output, _with_rank(tile.inputs[0], tile.output.box.rank)
        positions = _positions_in(self, graph, op, output.box)
        lowered: list[LoweredInstruction] = []
        if any(axis.min() == NOWHERE for axis in positions):
            lowered += _fill(output, self.fill(op.attributes, output.dtype))
        for runs in product(*map(_runs, positions)):
            lowered += _copy_runs(source, output, runs)
        return tuple(lowered)

    def rank(self, attributes: Any, rank: int) -> int:
        """Axes of the output."""
        del attributes
        return rank


@lru_cache(maxsize=1024)
def _positions(spec: _ByPosition, attributes: Any, shape: tuple[int, ...]) -> tuple[Positions, ...]:
    rank = spec.rank(attributes, len(shape))
    extents = (1,) * (rank - len(shape)) + shape
    return tuple(np.asarray(spec.positions(attributes, extent, axis)) for axis, extent in enumerate(extents))


def _positions_in(spec: _ByPosition, graph: Graph, op: Op, out_box: Box) -> list[Positions]:
    every = _positions(spec, op.attributes, graph.tensor(op.inputs[0]).shape)
    return [axis[start:stop] for axis, start, stop in zip(every, out_box.starts, out_box.stops)]


def _with_rank(operand: Operand, rank: int) -> Operand:
    """The operand with axes of extent 1 in front."""
    missing = rank - operand.box.rank
    box = Box((0,) * missing + operand.box.starts, (1,) * missing + operand.box.stops)
    return Operand(operand.address, (0,) * missing + operand.strides, box, operand.dtype)


def _hull(positions: Positions) -> tuple[int, int]:
    taken = positions[positions != NOWHERE]
    return (int(taken.min()), int(taken.max()) + 1) if len(taken) else (0, 0)


def _runs(positions: Positions) -> list[_Run]:
    """Positions in arithmetic progressions, each as long as can be; what comes from nowhere left out."""
    somewhere = np.flatnonzero(positions != NOWHERE)
    if not len(somewhere):
        return []
    first, last = int(somewhere[0]), int(somewhere[-1]) + 1
    inside = positions[first:last]
    steps, runs, start = np.diff(inside), [], 0
    bends = np.flatnonzero(np.diff(steps)) + 2
    for stop in (*bends.tolist(), len(inside)):
        # The step into a run is no step of it.
        if stop > start + 1 or stop == len(inside):
            step = int(steps[start]) if stop > start + 1 else 0
            runs.append(_Run(first + start, stop - start, int(inside[start]), step))
            start = stop
    return runs


def _copy_runs(source: Operand, output: Operand, runs: Sequence[_Run]) -> tuple[LoweredInstruction, ...]:
    starts = tuple(low + run.start for low, run in zip(output.box.starts, runs))
    target = output.narrow(Box(starts, tuple(start + run.count for start, run in zip(starts, runs))))
    offset = sum((run.source - low) * stride for run, low, stride in zip(runs, source.box.starts, source.strides))
    strides = tuple(run.step * stride for run, stride in zip(runs, source.strides))
    return copy(Operand(source.address + offset, strides, target.box, source.dtype), target, target.box.shape)


def _fill(output: Operand, value: Any) -> list[LoweredInstruction]:
    fields = {"element_bytes": np.dtype(output.dtype).itemsize, "value": int.from_bytes(value.tobytes(), "little")}
    return [
        LoweredInstruction("FILL", {"output": output.address + offset, "counts": counts, "output_strides": steps}
                           | fields)
        for counts, (steps,), (offset,) in blocks(output.box.shape, [output.strides])
    ]  # fmt: skip


@register
class Pad(_ByPosition):
    """A border of one value, or of the input's own elements."""

    kind = "pad"
    meaning = "padding of any axes: constant, reflect, edge, wrap"

    def positions(self, attributes: PadAttributes, extent: int, axis: int) -> Positions:
        """NumPy's padding, of positions; what is taken away goes last."""
        before, after = attributes.before[axis], attributes.after[axis]
        more: dict[str, Any] = {"constant_values": NOWHERE} if attributes.mode == "constant" else {}
        padded = np.pad(np.arange(extent), (max(before, 0), max(after, 0)), attributes.mode, **more)  # type: ignore[call-overload]
        return np.asarray(padded[max(-before, 0) : len(padded) - max(-after, 0)])

    def fill(self, attributes: PadAttributes, dtype: npt.DTypeLike) -> Any:
        """The attribute's value."""
        return np.array(attributes.value).astype(dtype)

    def permute(self, attributes: PadAttributes, axes: tuple[int, ...], rank: int) -> PadAttributes:
        """Follows its axes."""
        before, after = (tuple(side[a] for a in axes) for side in (attributes.before, attributes.after))
        return PadAttributes(before, after, attributes.value, attributes.mode)


@register
class Slice(_ByPosition):
    """Every step-th element of an interval of every axis, forwards or backwards."""

    kind = "slice"
    meaning = "slices and splits with any steps"

    def positions(self, attributes: SliceAttributes, extent: int, axis: int) -> Positions:
        """The range."""
        return np.arange(attributes.starts[axis], attributes.stops[axis], attributes.steps[axis])

    def permute(self, attributes: SliceAttributes, axes: tuple[int, ...], rank: int) -> SliceAttributes:
        """Follows its axes."""
        a = attributes
        return SliceAttributes(*(tuple(side[axis] for axis in axes) for side in (a.starts, a.stops, a.steps)))


@register
class Expand(_ByPosition):
    """Axes of extent 1 repeated."""

    kind = "expand"
    meaning = "broadcast to a shape (Expand)"

    def positions(self, attributes: ExpandAttributes, extent: int, axis: int) -> Positions:
        """All 0 where the axis is repeated."""
        return np.zeros(attributes.shape[axis], np.int64) if extent == 1 else np.arange(extent)

    def rank(self, attributes: ExpandAttributes, rank: int) -> int:
        """The shape's."""
        return len(attributes.shape)

    def permute(self, attributes: ExpandAttributes, axes: tuple[int, ...], rank: int) -> ExpandAttributes | None:
        """Follows its axes, if it has as many as its input."""
        return ExpandAttributes(tuple(attributes.shape[a] for a in axes)) if len(attributes.shape) == rank else None


@register
class Repeat(_ByPosition):
    """The whole input, several times along every axis."""

    kind = "tile"
    meaning = "repetition along any axes (Tile)"

    def positions(self, attributes: TileAttributes, extent: int, axis: int) -> Positions:
        """The axis, over and over."""
        return np.tile(np.arange(extent), attributes.repeats[axis])

    def permute(self, attributes: TileAttributes, axes: tuple[int, ...], rank: int) -> TileAttributes:
        """Follows its axes."""
        return TileAttributes(tuple(attributes.repeats[a] for a in axes))
