"""Boxes: half-open intervals per axis, the one language in which every split, tile and transfer is spoken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod


@dataclass(frozen=True)
class Box:
    """A region of a tensor: elements with ``starts[i] <= index[i] < stops[i]`` on every axis i."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]

    @staticmethod
    def whole(shape: Sequence[int]) -> Box:
        """The box of a whole tensor of `shape`."""
        return Box((0,) * len(shape), tuple(shape))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Extent on every axis, zero where the interval is empty or reversed."""
        return tuple([stop - start if stop > start else 0 for start, stop in zip(self.starts, self.stops)])

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.starts)

    @property
    def is_empty(self) -> bool:
        """Whether the box holds no element."""
        # A plain loop as in `overlaps`.
        for start, stop in zip(self.starts, self.stops):  # noqa: SIM110
            if stop <= start:
                return True
        return False

    def interval(self, axis: int) -> tuple[int, int]:
        """The half-open interval on one axis."""
        return self.starts[axis], self.stops[axis]

    def with_interval(self, axis: int, start: int, stop: int) -> Box:
        """The same box with another interval on one axis."""
        starts, stops = list(self.starts), list(self.stops)
        starts[axis], stops[axis] = start, stop
        return Box(tuple(starts), tuple(stops))

    def intersect(self, other: Box) -> Box:
        """The elements in both boxes (possibly empty)."""
        return Box(tuple(map(max, self.starts, other.starts)), tuple(map(min, self.stops, other.stops)))

    def overlaps(self, other: Box) -> bool:
        """Whether at least one element is in both boxes."""
        # A plain loop: the passes ask this millions of times.
        for start, stop, low, high in zip(self.starts, self.stops, other.starts, other.stops):
            if not start < high > low < stop > start:
                return False
        return True

    def contains(self, other: Box) -> bool:
        """Whether every element of `other` is in this box; an empty box is in every box."""
        if other.is_empty:
            return True
        for start, stop, low, high in zip(self.starts, self.stops, other.starts, other.stops):
            if low < start or stop < high:
                return False
        return True

    def hull(self, other: Box) -> Box:
        """The smallest box that holds both; an empty box adds nothing."""
        if self.is_empty:
            return other
        if other.is_empty:
            return self
        return Box(tuple(map(min, self.starts, other.starts)), tuple(map(max, self.stops, other.stops)))

    def translate(self, offsets: Sequence[int]) -> Box:
        """The box moved by `offsets` elements."""
        return Box(
            tuple(start + offset for start, offset in zip(self.starts, offsets)),
            tuple(stop + offset for stop, offset in zip(self.stops, offsets)),
        )

    def relative_to(self, origin: Box) -> Box:
        """This box in the coordinates of `origin`'s first element."""
        return self.translate([-start for start in origin.starts])

    def subtract(self, other: Box) -> tuple[Box, ...]:
        """Disjoint boxes that together hold the elements of this box that are not in `other`."""
        if not self.overlaps(other):
            return () if self.is_empty else (self,)
        common, pieces, rest = self.intersect(other), [], self
        for axis in range(self.rank):
            (start, stop), (low, high) = rest.interval(axis), common.interval(axis)
            pieces += [rest.with_interval(axis, start, low), rest.with_interval(axis, high, stop)]
            rest = rest.with_interval(axis, low, high)
        return tuple(piece for piece in pieces if not piece.is_empty)

    def permute(self, axes: Sequence[int]) -> Box:
        """The box after a transpose: axis i of the result is axis ``axes[i]`` of this box."""
        return Box(tuple(self.starts[a] for a in axes), tuple(self.stops[a] for a in axes))

    def __str__(self) -> str:
        return "[" + ", ".join(f"{start}:{stop}" for start, stop in zip(self.starts, self.stops)) + "]"


def subtract_all(box: Box, others: Iterable[Box]) -> tuple[Box, ...]:
    """What remains of `box` when every box of `others` is taken away, as disjoint boxes."""
    remaining: tuple[Box, ...] = () if box.is_empty else (box,)
    for other in others:
        if any(part.overlaps(other) for part in remaining):
            remaining = tuple(piece for part in remaining for piece in part.subtract(other))
    return remaining


def split_interval(start: int, stop: int, parts: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive intervals of the lengths `parts`, which must add up to ``stop - start``."""
    assert sum(parts) == stop - start, (start, stop, parts)
    intervals, position = [], start
    for length in parts:
        intervals.append((position, position + length))
        position += length
    return intervals


def steps(start: int, stop: int, step: int) -> list[tuple[int, int]]:
    """Consecutive intervals of at most `step` elements that cover ``start:stop``."""
    return [(low, min(low + step, stop)) for low in range(start, stop, step)]
