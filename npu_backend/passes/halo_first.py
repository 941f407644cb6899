"""Halo-first: the tiles that compute what other cores wait for run before the others.

Exchanging it and loading the next layer's weights then go on beside the rest of the layer (Jung et al., CGO 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from npu_backend.box import Box, subtract_all
from npu_backend.ops import spec_of
from npu_backend.passes.reside import needed_boxes
from npu_backend.stages import Tiled, TilePart, Tiling

# What others need of a tile is cut off it when it is no larger than this share of the tile.
CUT_SHARE = 0.5


def halo_first(tiled: Tiled) -> Tiled:
    """The same parts of every layer and core in another order, some of them cut."""
    residencies = tiled.resident.residencies
    layers = tiled.resident.partitioned.fused.layers
    tilings = tuple(
        _layer_tilings(tiled, index) if layer.output in residencies else tiled.tilings[index]
        for index, layer in enumerate(layers)
    )
    return replace(tiled, tilings=tilings)


def _layer_tilings(tiled: Tiled, index: int) -> tuple[Tiling | None, ...]:
    awaited = _awaited(tiled, index)
    return tuple(
        replace(tiling, parts=_Order(tiled, index, awaited[core]).parts(tiling)) if tiling and awaited[core] else tiling
        for core, tiling in enumerate(tiled.tilings[index])
    )


def _awaited(tiled: Tiled, index: int) -> list[list[Box]]:
    """For every core, what other cores need of its part."""
    partitioned = tiled.resident.partitioned
    residency = tiled.resident.residencies[partitioned.fused.layers[index].output]
    readers = [reader for reader in partitioned.fused.readers[residency.tensor] if reader <= residency.last_layer]
    awaited: list[list[Box]] = [[] for _ in residency.boxes]
    for reader, need in needed_boxes(partitioned, residency.tensor, readers).items():
        own = partitioned.out_box(index, reader)
        for missing in subtract_all(need, [] if own is None else [own]):
            for core, piece in partitioned.splits[index].owners(missing):
                awaited[core].append(piece)
    return [list(dict.fromkeys(pieces)) for pieces in awaited]


@dataclass(frozen=True)
class _Order:
    """How the tiles of one core's part of a layer are to run, of which others await some boxes."""

    tiled: Tiled
    index: int
    awaited: list[Box]

    def parts(self, tiling: Tiling) -> tuple[TilePart, ...]:
        """What is awaited first, within the tiles that share the same channels and so the same weights."""
        ordered: list[TilePart] = []
        for _, group in groupby(tiling.parts, key=lambda part: part.out_box.interval(part.out_box.rank - 1)
                                if part.out_box.rank else None):  # fmt: skip
            cut = [piece for part in group for piece in self._cut(part)]
            ordered += sorted(cut, key=lambda part: not self._is_awaited(part.out_box))
        return tuple(ordered)

    def _is_awaited(self, box: Box) -> bool:
        return any(box.overlaps(piece) for piece in self.awaited)

    def _cut(self, part: TilePart) -> Iterator[TilePart]:
        """The part, or what others need of it and the rest; cutting would load inputs from DRAM twice."""
        if part.reduction or not self._reads_scratchpad_only:
            return iter((part,))
        return (replace(part, out_box=piece) for piece in self._strips(part.out_box))

    def _strips(self, box: Box) -> list[Box]:
        """Whole strips along the one axis on which what is awaited does not fill the box, then the rest of it."""
        strips, rest = [], box
        for piece in self.awaited:
            common = piece.intersect(rest)
            if common.is_empty:
                continue
            axes = [axis for axis in range(box.rank) if common.interval(axis) != rest.interval(axis)]
            if len(axes) != 1 or common.size > CUT_SHARE * rest.size or not self._may_cut(axes[0], common):
                continue
            left = rest.subtract(common)
            if len(left) == 1:
                strips.append(common)
                rest = left[0]
        return [*strips, rest]

    def _may_cut(self, axis: int, piece: Box) -> bool:
        fused = self.tiled.resident.partitioned.fused
        anchor = fused.layers[self.index].anchor
        multiple = spec_of(anchor).split_axes(fused.graph, anchor).get(axis)
        extent = fused.graph.tensor(anchor.output).shape[axis]
        start, stop = piece.interval(axis)
        return multiple is not None and start % multiple == 0 and (stop % multiple == 0 or stop == extent)

    @property
    def _reads_scratchpad_only(self) -> bool:
        resident = self.tiled.resident
        fused = resident.partitioned.fused
        return all(resident.in_scratchpad(name, self.index) for name in fused.inputs(fused.layers[self.index]))
