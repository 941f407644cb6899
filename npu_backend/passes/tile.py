"""Tile: cuts every core's part of a layer into tiles that fit beside what is resident.

Tile sizes along rows, columns, output channels and the reduction are enumerated; each is judged by the shared cost
model as a software pipeline of load, compute and store with double buffers, and the fastest that fits is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import prod

from npu_backend.box import Box, steps
from npu_backend.cost import CostModel
from npu_backend.graph import Tensor
from npu_backend.isa import CHANNEL_BLOCK, FORMAT_BY_NAME, WEIGHT_CHUNK, Engine
from npu_backend.ops import spec_of
from npu_backend.ops.base import Reduction
from npu_backend.passes.lower import constant_slice, part_needs, probe
from npu_backend.stages import Fused, Layer, Resident, Tiled, TilePart, Tiling, aligned

# Whether to cut columns, whether to cut the reduction, and how many buffers; the first that fits is taken.
_WIDENING = (
    (False, False, 2), (True, False, 2), (False, True, 2), (True, True, 2), (True, False, 1), (True, True, 1),
)  # fmt: skip

# Tilings whose estimates differ by less than this share count as equally fast; less traffic then wins.
EQUALLY_FAST = 0.02


class DoesNotFitError(Exception):
    """No tile of a layer fits beside what is resident on a core; the pipeline then spills something."""

    def __init__(self, layer_index: int, core: int, demand_bytes: int, room_bytes: int) -> None:
        super().__init__(f"layer {layer_index} core {core}: {demand_bytes} > {room_bytes}")
        self.layer_index, self.core = layer_index, core
        self.demand_bytes, self.room_bytes = demand_bytes, room_bytes


@dataclass
class TileSearch:
    """Finds tilings and remembers them, since a retry after a spill asks for most of them again."""

    cost: CostModel
    known: dict[object, Tiling] = field(default_factory=dict)

    def tile(self, resident: Resident, planned_share: float) -> Tiled:
        """A tiling for every layer and core that takes at most `planned_share` of the free scratchpad.

        Raises DoesNotFitError when a layer has no tile small enough.
        """
        cores = range(len(resident.partitioned.machine.cores))
        layers = range(len(resident.partitioned.splits))
        tilings = tuple(tuple(self._tiling(resident, i, core, planned_share) for core in cores) for i in layers)
        return Tiled(resident, tilings, planned_share)

    def _tiling(self, resident: Resident, layer_index: int, core: int, planned_share: float) -> Tiling | None:
        out_box = resident.partitioned.out_box(layer_index, core)
        if out_box is None:
            return None
        search = _Search(resident, self.cost, layer_index, core, out_box, planned_share)
        if search.key not in self.known:
            self.known[search.key] = search.best()
        return self.known[search.key]


@dataclass(frozen=True)
class Sizes:
    """Extent of a tile on every axis, and of the part of the reduction it sums; which of the loops is the outer."""

    extents: tuple[int, ...]
    reduction: int | None
    channels_outer: bool


@dataclass(frozen=True)
class _Search:
    resident: Resident
    cost: CostModel
    layer_index: int
    core: int
    out_box: Box
    planned_share: float

    @property
    def fused(self) -> Fused:
        return self.resident.partitioned.fused

    @cached_property
    def layer(self) -> Layer:
        return self.fused.layers[self.layer_index]

    @cached_property
    def room_bytes(self) -> int:
        spm_bytes = self.resident.partitioned.machine.cores[self.core].spm_bytes
        return int((spm_bytes - self.resident.bytes_at(self.layer_index, self.core)) * self.planned_share)

    @property
    def key(self) -> object:
        """What the search depends on, within one compilation."""
        needs = part_needs(self.fused, self.layer, TilePart(self.out_box))
        return self.layer_index, self.core, self.room_bytes, tuple(self.streamed(needs)), self.output_is_resident

    @cached_property
    def split_axes(self) -> dict[int, int]:
        return dict(spec_of(self.layer.anchor).split_axes(self.fused.graph, self.layer.anchor))

    @cached_property
    def output_is_resident(self) -> bool:
        return self.layer.output in self.resident.residencies

    def streamed(self, needs: dict[str, Box]) -> dict[str, Box]:
        """The inputs that come from DRAM tile by tile."""
        return {name: box for name, box in needs.items() if not self.resident.in_scratchpad(name, self.layer_index)}

    def best(self) -> Tiling:
        """The fastest tiling that fits.

        Columns and single buffers are tried only where nothing else fits, the reduction also where loads dominate.
        """
        smallest = 1 << 62
        for columns, reduction, buffers in _WIDENING:
            fitting, demand = self._fitting(columns, reduction, buffers)
            smallest = min(smallest, demand)
            if not fitting:
                continue
            if not reduction and not min(fitting, key=lambda estimate: estimate.total_ns).is_compute_bound:
                fitting += self._fitting(columns, True, buffers)[0]
            return _least_traffic(fitting).tiling()
        raise DoesNotFitError(self.layer_index, self.core, smallest, self.room_bytes)

    def _fitting(self, columns: bool, reduction: bool, buffers: int) -> tuple[list[_Estimate], int]:
        """The choices that fit, and the scratchpad bytes of the smallest."""
        estimates = [_Estimate(self, sizes, buffers) for sizes in self._candidates(columns, reduction)]
        demand = min((estimate.working_bytes for estimate in estimates), default=1 << 62)
        return [estimate for estimate in estimates if estimate.working_bytes <= self.room_bytes], demand

    def _candidates(self, columns: bool, reduction: bool) -> Iterator[Sizes]:
        options, last = [], self.out_box.rank - 1
        rows = next((axis for axis in sorted(self.split_axes) if axis not in (0, last)), 0)
        for axis, extent in enumerate(self.out_box.shape):
            multiple = self.split_axes.get(axis)
            if multiple is None:
                options.append([extent])
            elif axis == 0 and last > 1 and rows != 0:
                options.append([1])
            elif axis in (rows, last) or columns:
                options.append(_halvings(extent, multiple))
            else:
                options.append([extent])
        length = spec_of(self.layer.anchor).reduction_length(self.fused.graph, self.layer.anchor)
        lengths: list[int | None] = [None]
        if reduction:
            lengths = [n for n in _halvings(length, WEIGHT_CHUNK) if n < length] if length else []
        for *extents, channels, part in product(*options, lengths):
            sizes = (*extents, channels)
            outer_matters = channels < self.out_box.shape[-1] and sizes[:-1] != self.out_box.shape[:-1]
            for channels_outer in (False, True) if outer_matters else (False,):
                yield Sizes(sizes, part, channels_outer)


def _least_traffic(estimates: list[_Estimate]) -> _Estimate:
    """The estimate that moves the least among those about as fast as the fastest."""
    bound = min(estimate.total_ns for estimate in estimates) * (1 + EQUALLY_FAST)
    return min(
        (estimate for estimate in estimates if estimate.total_ns <= bound),
        key=lambda estimate: (estimate.loaded_bytes, estimate.tile_count, estimate.total_ns),
    )


def _halvings(extent: int, multiple: int) -> list[int]:
    """The whole extent, a half, a quarter and so on, rounded up to the multiple."""
    sizes, parts = [extent], 2
    while sizes[-1] > multiple:
        size = -(-(-(-extent // parts)) // multiple) * multiple
        sizes += [size] if size < sizes[-1] else []
        parts *= 2
        if size == multiple:
            break
    return sizes


@dataclass(frozen=True)
class _Estimate:
    """What one choice of sizes costs, judged by a tile in the middle."""

    search: _Search
    sizes: Sizes
    buffers: int

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Tiles along every axis."""
        return tuple(-(-whole // part) for whole, part in zip(self.search.out_box.shape, self.sizes.extents))

    @cached_property
    def reduction_count(self) -> int:
        if self.sizes.reduction is None:
            return 1
        return -(-self._reduction_length // self.sizes.reduction)

    @property
    def _reduction_length(self) -> int:
        layer = self.search.layer
        length = spec_of(layer.anchor).reduction_length(self.search.fused.graph, layer.anchor)
        assert length is not None
        return length

    @cached_property
    def tile_count(self) -> int:
        """Tiles times parts of the reduction."""
        return prod(self.counts) * self.reduction_count

    def tiling(self) -> Tiling:
        """What the estimate stands for, tile by tile."""
        return Tiling(self._parts(), self.total_ns, self.working_bytes, self.buffers)

    def _parts(self) -> tuple[TilePart, ...]:
        """Every tile in the order in which they run."""
        box = self.search.out_box
        axes = [steps(*box.interval(axis), extent) for axis, extent in enumerate(self.sizes.extents)]
        if self.sizes.channels_outer:
            boxes = [_box((*outer, channels)) for channels in axes[-1] for outer in product(*axes[:-1])]
        else:
            boxes = [_box(intervals) for intervals in product(*axes)]
        return tuple(TilePart(tile_box, reduction) for tile_box in boxes for reduction in self._reductions)

    @cached_property
    def _reductions(self) -> tuple[Reduction | None, ...]:
        if self.sizes.reduction is None:
            return (None,)
        total = self._reduction_length
        return tuple(Reduction(low, high, total) for low, high in steps(0, total, self.sizes.reduction))

    @cached_property
    def middle(self) -> TilePart:
        """A tile with neighbours on both sides where there are any."""
        intervals = []
        for (start, stop), extent, count in zip(
            zip(self.search.out_box.starts, self.search.out_box.stops), self.sizes.extents, self.counts
        ):
            low = start + extent * ((count - 1) // 2)
            intervals.append((low, min(low + extent, stop)))
        return TilePart(_box(tuple(intervals)), self._reductions[-1])

    @cached_property
    def _loads(self) -> list[tuple[int, int, int]]:
        """Bytes, contiguous run and number of loads of every streamed input and constant."""
        fused, layer, graph = self.search.fused, self.search.layer, self.search.fused.graph
        whole = part_needs(fused, layer, TilePart(self.search.out_box))
        channel_tiles, other_tiles = self.counts[-1], prod(self.counts[:-1])
        loads = []
        for name, box in self.search.streamed(part_needs(fused, layer, self._first_reduction)).items():
            tensor = graph.tensor(name)
            by_channel = box.shape[-1] < whole[name].shape[-1] or self.reduction_count > 1
            stays = other_tiles == 1 if self.sizes.channels_outer else True
            times = other_tiles * (channel_tiles if by_channel or not stays else 1) * self.reduction_count
            loads.append((box.size * tensor.itemsize, _run_bytes(tensor, box), times))
        for op in layer.ops:
            for constant in fused.constants[op.output]:
                (first, last), (low, high) = constant_slice(constant, self._first_reduction)
                stays = self.sizes.channels_outer or channel_tiles == 1 or constant.axis is None
                repeats = 1 if stays and self.reduction_count == 1 else other_tiles
                times = (1 if constant.axis is None else channel_tiles) * repeats * self.reduction_count
                whole_rows = high - low == constant.rows.shape[1]
                loads.append(((last - first) * (high - low), ((last - first) if whole_rows else 1) * (high - low), times))
        return loads

    @cached_property
    def _first_reduction(self) -> TilePart:
        return TilePart(self.middle.out_box, self._reductions[0])

    @cached_property
    def working_bytes(self) -> int:
        """Scratchpad bytes of the pipeline: as many of each load and result as there are buffers, if it changes."""
        tiles, fused, layer = self.tile_count, self.search.fused, self.search.layer
        total = sum(aligned(size) * (self.buffers if times > 1 else 1) for size, _, times in self._loads)
        for op in layer.ops:
            if op.output != layer.output or not self.search.output_is_resident:
                size = self.middle.out_box.size * fused.graph.tensor(op.output).itemsize
                total += aligned(size) * (self.buffers if tiles > 1 else 1)
        if self.sizes.reduction is not None:
            channels = -(-self.middle.out_box.shape[-1] // CHANNEL_BLOCK) * CHANNEL_BLOCK
            total += aligned(prod(self.middle.out_box.shape[:-1]) * channels * 4)
        return total

    @cached_property
    def loaded_bytes(self) -> int:
        """Bytes of all loads of all tiles."""
        return sum(size * times for size, _, times in self._loads)

    @property
    def is_compute_bound(self) -> bool:
        """Whether the loads hide behind the computation."""
        return max(self._compute_ns) * self.tile_count >= self._loads_ns[1]

    @cached_property
    def _compute_ns(self) -> tuple[float, float]:
        """Time of a tile, or of one part of its reduction, on the matrix and on the vector engine."""
        search, compute = self.search, dict.fromkeys((Engine.MATRIX, Engine.VECTOR), 0.0)
        for instruction in probe(search.fused, search.layer, self.middle):
            engine = FORMAT_BY_NAME[instruction.name].engine
            assert engine is not None
            compute[engine] += search.cost.instruction_ns(search.core, instruction)
        return compute[Engine.MATRIX], compute[Engine.VECTOR] / self.reduction_count

    @cached_property
    def _loads_ns(self) -> tuple[float, float]:
        """Time of the loads of one tile, and of all."""
        cost, core = self.search.cost, self.search.core
        timed = [(cost.transfer_ns(core, size, run, sharers=self._sharers), times) for size, run, times in self._loads]
        return sum(time for time, _ in timed), sum(time * times for time, times in timed)

    @property
    def _sharers(self) -> int:
        return len(self.search.resident.partitioned.cores_of(self.search.layer_index))

    @cached_property
    def total_ns(self) -> float:
        """The slowest engine's work and what nothing hides: with one buffer, everything one after the other."""
        first_load, all_loads = self._loads_ns
        store = 0.0 if self.search.output_is_resident else self._store_ns(self._sharers)
        work = (*(time * self.tile_count for time in self._compute_ns), all_loads, store * prod(self.counts))
        if self.buffers == 1:
            return sum(work)
        return max(work) + first_load + min(self._compute_ns) + store

    def _store_ns(self, sharers: int) -> float:
        tensor = self.search.fused.output(self.search.layer)
        box = self.middle.out_box
        size = box.size * tensor.itemsize
        return self.search.cost.transfer_ns(self.search.core, size, _run_bytes(tensor, box), sharers=sharers)


def _box(intervals: tuple[tuple[int, int], ...]) -> Box:
    return Box(tuple(low for low, _ in intervals), tuple(high for _, high in intervals))


def _run_bytes(tensor: Tensor, box: Box) -> int:
    """Contiguous bytes of a box in the dense tensor."""
    run = tensor.itemsize
    for extent, whole in zip(reversed(box.shape), reversed(tensor.shape)):
        run *= extent
        if extent != whole:
            break
    return run
