"""What one choice of tile sizes costs: scratchpad bytes, traffic, and time as a software pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import prod

from npu_backend.box import Box, steps
from npu_backend.cost import CostModel
from npu_backend.graph import Tensor
from npu_backend.isa import FORMAT_BY_NAME, Engine
from npu_backend.ops import spec_of
from npu_backend.ops.base import Reduction
from npu_backend.passes.lower import constant_slice, part_needs, probe
from npu_backend.stages import Fused, Layer, Resident, TilePart, Tiling, aligned

_Extents = tuple[tuple[int, ...], int | None]


@dataclass(frozen=True)
class Sizes:
    """Extent of a tile on every axis, and of the part of the reduction it sums; which of the loops is the outer."""

    extents: tuple[int, ...]
    reduction: int | None
    channels_outer: bool


@dataclass(frozen=True)
class Task:
    """A core's part of one layer, which is to be tiled."""

    resident: Resident
    cost: CostModel
    layer_index: int
    core: int
    out_box: Box
    # Found so far by tile extents and reduction, since the loop order and the buffers do not matter to them.
    compute_ns: dict[_Extents, tuple[float, float, float]] = field(default_factory=dict)
    needs: dict[_Extents, dict[str, Box]] = field(default_factory=dict)

    @property
    def fused(self) -> Fused:
        """The graph in layers."""
        return self.resident.partitioned.fused

    @cached_property
    def layer(self) -> Layer:
        """The layer."""
        return self.fused.layers[self.layer_index]

    @cached_property
    def output_is_resident(self) -> bool:
        """Whether the output goes into a buffer that outlives the layer."""
        return self.layer.output in self.resident.residencies

    @cached_property
    def whole_needs(self) -> dict[str, Box]:
        """The box of every input that the whole part of the layer reads."""
        return part_needs(self.fused, self.layer, TilePart(self.out_box))

    @cached_property
    def sharers(self) -> int:
        """Cores that are taken to move as much at the same time."""
        return len(self.resident.partitioned.cores_of(self.layer_index))

    @property
    def slices(self) -> tuple[int, ...]:
        """Along every axis, into how many different intervals the cores divide the output."""
        return self.resident.partitioned.splits[self.layer_index].slices

    def constant_sharers(self, axis: int | None) -> int:
        """Cores that load different rows of a constant at the same time; with multicast the same rows come once."""
        if not self.resident.partitioned.machine.network.multicast:
            return self.sharers
        return 1 if axis is None else self.slices[axis]

    def streamed(self, needs: dict[str, Box]) -> dict[str, Box]:
        """The inputs that come from DRAM tile by tile."""
        return {name: box for name, box in needs.items() if not self.resident.in_scratchpad(name, self.layer_index)}


@dataclass(frozen=True)
class Estimate:
    """What one choice of sizes costs, judged by a tile in the middle."""

    task: Task
    sizes: Sizes
    buffers: int

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Tiles along every axis; a scalar counts as one of a single axis."""
        return tuple(-(-whole // part) for whole, part in zip(self.task.out_box.shape, self.sizes.extents)) or (1,)

    @cached_property
    def reduction_count(self) -> int:
        if self.sizes.reduction is None:
            return 1
        return -(-self._reduction_length // self.sizes.reduction)

    @property
    def _reduction_length(self) -> int:
        layer = self.task.layer
        length = spec_of(layer.anchor).reduction_length(self.task.fused.graph, layer.anchor)
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
        box = self.task.out_box
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
            zip(self.task.out_box.starts, self.task.out_box.stops), self.sizes.extents, self.counts
        ):
            low = start + extent * ((count - 1) // 2)
            intervals.append((low, min(low + extent, stop)))
        return TilePart(_box(tuple(intervals)), self._reductions[-1])

    @cached_property
    def _loads(self) -> list[tuple[int, int, int, int]]:
        """Bytes, contiguous run, number of loads and sharers of every streamed input and constant."""
        fused, layer, graph = self.task.fused, self.task.layer, self.task.fused.graph
        whole = self.task.whole_needs
        channel_tiles, other_tiles = self.counts[-1], prod(self.counts[:-1])
        loads = []
        for name, box in self.task.streamed(self._needs).items():
            tensor = graph.tensor(name)
            by_channel = box.shape[-1:] < whole[name].shape[-1:] or self.reduction_count > 1
            stays = other_tiles == 1 if self.sizes.channels_outer else True
            times = other_tiles * (channel_tiles if by_channel or not stays else 1) * self.reduction_count
            if box == whole[name]:  # every tile reads the same
                times = 1
            loads.append((box.size * tensor.itemsize, _run_bytes(tensor, box), times, self.task.sharers))
        for op in layer.ops:
            for constant in fused.constants[op.output]:
                (first, last), (low, high) = constant_slice(constant, self._first_reduction)
                stays = self.sizes.channels_outer or channel_tiles == 1 or constant.axis is None
                repeats = 1 if stays and self.reduction_count == 1 else other_tiles
                times = (1 if constant.axis is None else channel_tiles) * repeats * self.reduction_count
                whole_rows = high - low == constant.rows.shape[1]
                size, run = (last - first) * (high - low), high - low
                loads.append((size, size if whole_rows else run, times, self.task.constant_sharers(constant.axis)))
        return loads

    @property
    def _needs(self) -> dict[str, Box]:
        """The box of every input that the tile in the middle reads."""
        key = self.sizes.extents, self.sizes.reduction
        if key not in self.task.needs:
            self.task.needs[key] = part_needs(self.task.fused, self.task.layer, self._first_reduction)
        return self.task.needs[key]

    @cached_property
    def _first_reduction(self) -> TilePart:
        return TilePart(self.middle.out_box, self._reductions[0])

    @cached_property
    def working_bytes(self) -> int:
        """Scratchpad bytes of the pipeline: as many of each load and result as there are buffers, if it changes."""
        tiles, fused, layer = self.tile_count, self.task.fused, self.task.layer
        total = sum(aligned(size) * (self.buffers if times > 1 else 1) for size, _, times, _ in self._loads)
        for op in layer.ops:
            if op.output != layer.output or not self.task.output_is_resident:
                size = self.middle.out_box.size * fused.graph.tensor(op.output).itemsize
                total += aligned(size) * (self.buffers if tiles > 1 else 1)
        if self.sizes.reduction is not None:
            total += aligned(spec_of(layer.anchor).accumulator_bytes(fused.graph, layer.anchor, self.middle.out_box))
        return total

    @cached_property
    def loaded_bytes(self) -> int:
        """Bytes of all loads of all tiles."""
        return sum(size * times for size, _, times, _ in self._loads)

    @property
    def is_compute_bound(self) -> bool:
        """Whether the loads hide behind the computation."""
        return max(self._compute_ns) * self.tile_count >= self._loads_ns[1]

    @property
    def _compute_ns(self) -> tuple[float, float]:
        """Time of a tile, or of one part of its reduction, on the matrix and on the vector engine."""
        return self._engines_ns[:2]

    @property
    def _engines_ns(self) -> tuple[float, float, float]:
        """The same, and of the rows that an instruction fetches from DRAM by itself."""
        key = self.sizes.extents, self.sizes.reduction
        if key not in self.task.compute_ns:
            self.task.compute_ns[key] = self._probe_ns()
        return self.task.compute_ns[key]

    def _probe_ns(self) -> tuple[float, float, float]:
        task, compute = self.task, dict.fromkeys((Engine.MATRIX, Engine.VECTOR, Engine.LOAD), 0.0)
        for instruction in probe(task.fused, task.layer, self.middle):
            engine = FORMAT_BY_NAME[instruction.name].engine
            assert engine is not None
            compute[engine] += (task.cost.instruction_ns(task.core, instruction) if engine is not Engine.LOAD
                                else task.cost.rows_ns(task.core, instruction, sharers=task.sharers))  # fmt: skip
        return compute[Engine.MATRIX], compute[Engine.VECTOR] / self.reduction_count, compute[Engine.LOAD]

    @cached_property
    def _loads_ns(self) -> tuple[float, float]:
        """Time of the loads of one tile, and of all."""
        cost, core = self.task.cost, self.task.core
        timed = [
            (cost.transfer_ns(core, size, run, sharers=sharers), times) for size, run, times, sharers in self._loads
        ]
        return sum(time for time, _ in timed), sum(time * times for time, times in timed)

    @property
    def least_ns(self) -> float:
        """A bound below `total_ns` that needs no instruction: the loads alone."""
        return self._loads_ns[1]

    @cached_property
    def total_ns(self) -> float:
        """The slowest engine's work and what nothing hides: with one buffer, everything one after the other."""
        first_load, all_loads = self._loads_ns
        all_loads += self._engines_ns[2] * self.tile_count
        store = 0.0 if self.task.output_is_resident else self._store_ns(self.task.sharers)
        work = (*(time * self.tile_count for time in self._compute_ns), all_loads, store * prod(self.counts))
        if self.buffers == 1:
            return sum(work)
        return max(work) + first_load + min(self._compute_ns) + store

    def _store_ns(self, sharers: int) -> float:
        tensor = self.task.fused.output(self.task.layer)
        box = self.middle.out_box
        size = box.size * tensor.itemsize
        return self.task.cost.transfer_ns(self.task.core, size, _run_bytes(tensor, box), sharers=sharers)


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
