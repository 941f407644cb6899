"""Cuts: the ways to divide a layer along one or two axes over equal cores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod

from npu_backend.box import Box


@dataclass(frozen=True)
class Cut:
    """An axis in so many parts of whole multiples, as equal as can be; `direction` is the axis' name."""

    direction: str
    axis: int
    multiple: int
    parts: int

    def intervals(self, whole: Box) -> list[tuple[int, int]]:
        """The parts, the larger ones first; fewer where the axis has not so many multiples."""
        start, stop = whole.interval(self.axis)
        units = -(-(stop - start) // self.multiple)
        parts = min(self.parts, units)
        bounds = [start + (units // parts * part + min(part, units % parts)) * self.multiple for part in range(parts)]
        return list(zip(bounds, [*bounds[1:], stop]))


@dataclass(frozen=True)
class Grid:
    """A box cut along one or two axes; parts along the second lie on neighbouring cores."""

    whole: Box
    cuts: tuple[Cut, ...]

    @property
    def direction(self) -> str:
        """For example "rows" or "rows x channels"."""
        return " x ".join(cut.direction for cut in self.cuts)

    @cached_property
    def _intervals(self) -> list[list[tuple[int, int]]]:
        return [cut.intervals(self.whole) for cut in self.cuts]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Parts along every axis that is cut."""
        return tuple(map(len, self._intervals))

    @property
    def part_count(self) -> int:
        """Parts in all."""
        return prod(self.counts)

    def slices(self, axis: int) -> int:
        """Different intervals of the parts along an axis."""
        return prod(count for cut, count in zip(self.cuts, self.counts) if cut.axis == axis)

    def box(self, part: int) -> Box:
        """One of the parts."""
        box = self.whole
        for cut, intervals in zip(reversed(self.cuts), reversed(self._intervals)):
            part, position = divmod(part, len(intervals))
            box = box.with_interval(cut.axis, *intervals[position])
        return box

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The parts, one a core."""
        return tuple(map(self.box, range(self.part_count)))

    def alike(self, whole: Box, axes: Mapping[str, tuple[int, int]]) -> Grid:
        """Another box divided in the same way, along those of the same directions that it can be divided along."""
        cuts = tuple(Cut(cut.direction, *axes[cut.direction], cut.parts) for cut in self.cuts if cut.direction in axes)
        return Grid(whole, cuts)


def grids(whole: Box, axes: Mapping[str, tuple[int, int]], cores: int) -> Iterator[Grid]:
    """Every direction in as many parts as there are cores, and every two in powers of two of them.

    `axes`: the axis of every direction and the multiple its parts must have.
    """
    for name, axis in axes.items():
        yield Grid(whole, (Cut(name, *axis, cores),))
    for (first, outer), (second, inner) in product(axes.items(), axes.items()):
        for parts in (2**power for power in range(1, cores.bit_length())):
            rows = len(Cut(first, *outer, parts).intervals(whole))
            if first != second and cores // rows > 1:
                # Axes of few multiples leave the rest of the cores to the other axis.
                yield Grid(whole, (Cut(first, *outer, rows), Cut(second, *inner, cores // rows)))
