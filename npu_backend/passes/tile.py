"""Tile: cuts every core's part of a layer into tiles that fit beside what is resident.

Tile sizes along rows, columns, output channels and the reduction are enumerated; each is judged by the shared cost
model as a software pipeline of load, compute and store with double buffers, and the fastest that fits is taken.

Cores whose parts are the same but for their place share one search. Where the network has multicast, the tile sizes of
the largest part are offered to the other cores first: cores that cut channels and reduction alike ask for the same
weights in the same turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

from npu_backend.box import Box
from npu_backend.cost import CostModel
from npu_backend.errors import DoesNotFitError
from npu_backend.isa import WEIGHT_CHUNK
from npu_backend.ops import spec_of
from npu_backend.passes.lower import footprint
from npu_backend.passes.tile_estimate import Estimate, Sizes, Task
from npu_backend.stages import Fused, Layer, Resident, Tiled, TilePart, Tiling

# Whether to cut columns, whether to cut the reduction, and how many buffers; the first that fits is taken.
_WIDENING = (
    (False, False, 2), (True, False, 2), (False, True, 2), (True, True, 2), (True, False, 1), (True, True, 1),
)  # fmt: skip

# Tilings whose estimates differ by less than this share count as equally fast; less traffic then wins.
EQUALLY_FAST = 0.02


@dataclass
class TileSearch:
    """Finds tilings and remembers them, since a retry after a spill asks for most of them again."""

    cost: CostModel
    known: dict[object, _Found] = field(default_factory=dict)
    footprints: dict[tuple[str, Box], object] = field(default_factory=dict)

    def tile(self, resident: Resident, planned_share: float) -> Tiled:
        """A tiling for every layer and core that takes at most `planned_share` of the free scratchpad.

        Raises DoesNotFitError when a layer has no tile small enough.
        """
        layers = range(len(resident.partitioned.splits))
        tilings = tuple(self._layer(resident, index, planned_share) for index in layers)
        return Tiled(resident, tilings, planned_share)

    def _layer(self, resident: Resident, index: int, planned_share: float) -> tuple[Tiling | None, ...]:
        partitioned = resident.partitioned
        boxes, is_multicast = partitioned.splits[index].boxes, partitioned.machine.network.multicast
        parts = [(core, box) for core, box in enumerate(boxes) if box is not None]
        tilings: list[Tiling | None] = [None] * len(boxes)
        offered: _Offer | None = None
        for core, box in sorted(parts, key=lambda part: -part[1].size) if is_multicast else parts:
            search = Search(Task(resident, self.cost, index, core, box), planned_share, offered)
            found = self._found(search)
            tilings[core] = found.at(box)
            if is_multicast and offered is None:
                offered = found.sizes, found.tiling.buffers
        return tuple(tilings)

    def _found(self, search: Search) -> _Found:
        task = search.task
        key = search.key, self._footprint(task.fused, task.layer, task.out_box)
        if key not in self.known:
            best = search.best()
            self.known[key] = _Found(best.sizes, best.tiling(), task.out_box)
        return self.known[key]

    def _footprint(self, fused: Fused, layer: Layer, out_box: Box) -> object:
        """What a part of a layer computes, wherever it lies."""
        key = layer.output, out_box
        if key not in self.footprints:
            self.footprints[key] = footprint(fused, layer, TilePart(out_box))
        return self.footprints[key]


# Tile sizes that another core's part of the layer has, and how many buffers.
_Offer = tuple[Sizes, int]


@dataclass(frozen=True)
class _Found:
    sizes: Sizes
    tiling: Tiling
    out_box: Box

    def at(self, out_box: Box) -> Tiling:
        """The tiling of a part of the same shape that lies elsewhere."""
        if out_box == self.out_box:
            return self.tiling
        offsets = [there - here for there, here in zip(out_box.starts, self.out_box.starts)]
        parts = tuple(TilePart(part.out_box.translate(offsets), part.reduction) for part in self.tiling.parts)
        return replace(self.tiling, parts=parts)


@dataclass(frozen=True)
class Search:
    """The search for one core's tile sizes; what another core has is taken over if it is offered and fits."""

    task: Task
    planned_share: float
    offered: _Offer | None = None

    @cached_property
    def room_bytes(self) -> int:
        resident, core = self.task.resident, self.task.core
        free = resident.partitioned.machine.cores[core].spm_bytes - resident.bytes_at(self.task.layer_index, core)
        return int(free * self.planned_share)

    @property
    def key(self) -> object:
        """What the search depends on beside what is computed, within one network.

        Plans differ in the order of their layers. Where sizes are offered, cores at different ends of the network share
        an estimate.
        """
        task = self.task
        streamed, sharers = tuple(task.streamed(task.whole_needs)), (task.sharers, *task.slices)
        kind = task.cost.kind(task.core, with_paths=self.offered is None)
        return (task.layer.output, kind, self.room_bytes, streamed, task.output_is_resident,
                sharers, self.offered)  # fmt: skip

    def best(self) -> Estimate:
        """What is offered, if it fits, or the fastest choice that fits.

        Columns and single buffers are tried only where nothing else fits, the reduction also where loads dominate.
        """
        if self.offered is not None:
            estimate = Estimate(self.task, *self.offered)
            if estimate.working_bytes <= self.room_bytes:
                return estimate
        smallest = 1 << 62
        for columns, reduction, buffers in _WIDENING:
            fitting, demand = self._fitting(columns, reduction, buffers)
            smallest = min(smallest, demand)
            if not fitting:
                continue
            if not reduction and not _least_traffic(fitting).is_compute_bound:
                fitting += self._fitting(columns, True, buffers)[0]
            return _least_traffic(fitting)
        raise DoesNotFitError(self.task.layer_index, self.task.core, smallest, self.room_bytes)

    def _fitting(self, columns: bool, reduction: bool, buffers: int) -> tuple[list[Estimate], int]:
        """The choices that fit, and the scratchpad bytes of the smallest."""
        estimates = [Estimate(self.task, sizes, buffers) for sizes in self._candidates(columns, reduction)]
        demand = min((estimate.working_bytes for estimate in estimates), default=1 << 62)
        return [estimate for estimate in estimates if estimate.working_bytes <= self.room_bytes], demand

    def _candidates(self, columns: bool, reduction: bool) -> Iterator[Sizes]:
        box = self.task.out_box
        for extents, part in product(product(*self._extents(columns)), self._reductions(reduction)):
            order_matters = extents[-1:] < box.shape[-1:] and extents[:-1] != box.shape[:-1]
            for channels_outer in (False, True) if order_matters else (False,):
                yield Sizes(extents, part, channels_outer)

    def _extents(self, columns: bool) -> list[list[int]]:
        """For every axis the extents to try: images one by one, rows and channels halved, the rest where asked."""
        graph, op, box = self.task.fused.graph, self.task.layer.anchor, self.task.out_box
        multiples, last = spec_of(op).split_axes(graph, op), box.rank - 1
        rows = next((axis for axis in sorted(multiples) if axis not in (0, last)), 0)
        options = []
        for axis, extent in enumerate(box.shape):
            if axis in multiples and axis == 0 and rows != 0 and last > 1:
                options.append([multiples[axis]])
            elif axis in multiples and (axis in (rows, last) or columns):
                options.append(_halvings(extent, multiples[axis]))
            else:
                options.append([extent])
        return options

    def _reductions(self, reduction: bool) -> list[int | None]:
        op = self.task.layer.anchor
        length = spec_of(op).reduction_length(self.task.fused.graph, op)
        if not reduction:
            return [None]
        return [part for part in _halvings(length, WEIGHT_CHUNK) if part < length] if length else []


def _least_traffic(estimates: list[Estimate]) -> Estimate:
    """The estimate that moves the least among those about as fast as the fastest."""
    bound, judged = float("inf"), []
    for estimate in sorted(estimates, key=lambda estimate: estimate.least_ns):
        if estimate.least_ns > bound:
            break
        judged.append(estimate)
        bound = min(bound, estimate.total_ns * (1 + EQUALLY_FAST))
    return min(
        (estimate for estimate in judged if estimate.total_ns <= bound),
        key=lambda estimate: (estimate.loaded_bytes, estimate.tile_count, estimate.total_ns),
    )


def _halvings(extent: int, multiple: int) -> list[int]:
    """The whole extent, a half, a quarter and so on, rounded up to the multiple."""
    sizes, parts = [extent], 2
    while sizes[-1] > multiple:
        part = -(-extent // parts)
        size = -(-part // multiple) * multiple
        sizes += [size] if size < sizes[-1] else []
        parts *= 2
        if size == multiple:
            break
    return sizes
