"""Divide: how a layer is best divided over many equal cores, by estimate.

The heuristics of Jung et al., CGO 2023, were made for three cores. Where there are more, rows soon get scarce, and what
cores receive from each other counts more than what they compute: every direction and every pair of directions is judged
by what the slowest core takes, with what it lacks of its inputs and what its reader, divided alike, would lack of it.
What it loads counts in full: whole networks take about the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from npu_backend.box import Box
from npu_backend.cost import CostModel
from npu_backend.isa import FORMAT_BY_NAME, Engine
from npu_backend.machine_types import Machine
from npu_backend.passes.cuts import Grid, grids
from npu_backend.passes.lower import probe
from npu_backend.stages import Fused, Layer, Split, TilePart

Axes = Mapping[str, tuple[int, int]]

# About what a tile loads at a time; every load has its set-up and latency.
LOAD_BYTES = 4096


@dataclass(frozen=True)
class Estimate:
    """Nanoseconds that the slowest core computes and exchanges, and that it or DRAM loads."""

    work_ns: float
    load_ns: float

    def __str__(self) -> str:
        return f"estimate: {self.work_ns / 1000:.2f} us of work, {self.load_ns / 1000:.2f} us of loads"

    @property
    def total_ns(self) -> float:
        """By which divisions are compared."""
        return self.work_ns + self.load_ns


@dataclass(frozen=True)
class Divider:
    """Divides layers over the equal cores of a machine whose feature maps stay in the scratchpads where they can."""

    fused: Fused
    cost: CostModel
    # Found so far: computation by output and shape of the part, the rate of loads by how many there are.
    compute_ns: dict[tuple[str, tuple[int, ...]], float] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)

    @property
    def _machine(self) -> Machine:
        return self.cost.machine

    def split(self, layer: Layer, axes: Axes, sources: Mapping[str, Split], reader_axes: Axes | None) -> Split:
        """The best division.

        `axes`: the axis of every direction and its multiple, at least one. `sources`: how the inputs that layers
        compute are divided. `reader_axes`: the axes of the first layer that reads the output.
        """
        cores = len(self._machine.cores)
        possible = grids(self.fused.output(layer).box, axes, cores)
        judged = [(self._estimate(layer, grid, sources, reader_axes), grid) for grid in possible]
        estimate, best = min(judged, key=lambda pair: pair[0].total_ns)
        boxes = (*best.boxes, *[None] * (cores - len(best.boxes)))
        return Split(best.direction, boxes, f"{' x '.join(map(str, best.counts))} parts, {estimate}")

    def _estimate(self, layer: Layer, grid: Grid, sources: Mapping[str, Split], reader_axes: Axes | None) -> Estimate:
        lacking = max(self._lacking_bytes(layer, box, core, sources) for core, box in _samples(grid))
        exchange_ns = self._exchange_ns(lacking) + self._exchange_ns(self._reader_lacks_bytes(layer, grid, reader_axes))
        return Estimate(self._compute_ns(layer, grid.box(0)) + exchange_ns, self._load_ns(layer, grid, sources))

    def _compute_ns(self, layer: Layer, box: Box) -> float:
        key = layer.output, box.shape
        if key not in self.compute_ns:
            engines = dict.fromkeys(Engine, 0.0)
            for instruction in probe(self.fused, layer, TilePart(box)):
                engine = FORMAT_BY_NAME[instruction.name].engine
                if engine in (Engine.MATRIX, Engine.VECTOR):
                    engines[engine] += self.cost.instruction_ns(0, instruction)
            self.compute_ns[key] = max(engines.values())
        return self.compute_ns[key]

    def _load_ns(self, layer: Layer, grid: Grid, sources: Mapping[str, Split]) -> float:
        """Weights, once or by every core that needs them, and the inputs that do not stay."""
        cores, slices = grid.part_count, grid.slices(grid.whole.rank - 1)
        needed = self.fused.needed(layer, grid.box(0))
        inputs = sum(self._bytes(name, box) for name, box in needed.items() if name not in sources)
        loads = slices if self._machine.network.multicast else cores
        weights = self.fused.constant_bytes(layer) / slices
        loading_ns = weights / self._rate(loads) + inputs / self._rate(cores)
        return loading_ns + (weights + inputs) / LOAD_BYTES * self.cost.transfer_ns(0, 0, 0)

    def _rate(self, loads: int) -> float:
        """Bytes a nanosecond of the slowest core when so many of them load."""
        if loads not in self.rates:
            cores = range(len(self._machine.cores))
            self.rates[loads] = min(self.cost.load_bytes_per_ns(core, loads) for core in cores)
        return self.rates[loads]

    def _lacking_bytes(self, layer: Layer, box: Box, core: int, sources: Mapping[str, Split]) -> int:
        """What a core needs of the inputs that stay and has not computed."""
        needed = self.fused.needed(layer, box)
        return sum(self._missing_bytes(name, needed[name], split.boxes[core]) for name, split in sources.items())

    def _reader_lacks_bytes(self, layer: Layer, grid: Grid, reader_axes: Axes | None) -> int:
        if reader_axes is None:
            return 0
        reader = self.fused.layers[self.fused.readers[layer.output][0]]
        alike = grid.alike(self.fused.output(reader).box, reader_axes)
        if alike.part_count != grid.part_count:
            return self._bytes(layer.output, grid.whole)
        needs = {core: self.fused.needed(reader, box)[layer.output] for core, box in _samples(alike)}
        return max(self._missing_bytes(layer.output, need, grid.box(core)) for core, need in needs.items())

    def _missing_bytes(self, name: str, need: Box, have: Box | None) -> int:
        there = self._bytes(name, need.intersect(have)) if have is not None else 0
        return self._bytes(name, need) - there

    def _bytes(self, name: str, box: Box) -> int:
        return box.size * self.fused.graph.tensor(name).itemsize

    def _exchange_ns(self, received_bytes: int) -> float:
        """A neighbour's data, over a link or through DRAM."""
        if not received_bytes:
            return 0.0
        cost, signal_ns = self.cost, self._machine.synchronization.cross_signal_ns
        if self._machine.network.cores_reach_each_other:
            return signal_ns + cost.transfer_ns(1, received_bytes, received_bytes, to_core=0)
        sharers = len(self._machine.cores)
        stored_ns = cost.transfer_ns(1, received_bytes, received_bytes, store=True, sharers=sharers)
        return stored_ns + signal_ns + cost.transfer_ns(0, received_bytes, received_bytes, sharers=sharers)


def _samples(grid: Grid) -> list[tuple[int, Box]]:
    """Parts that stand for all: the first, which is the largest, and one in the middle, which has most neighbours."""
    inner = grid.counts[-1]
    middle = grid.part_count // inner // 2 * inner + inner // 2
    return [(core, grid.box(core)) for core in sorted({0, middle})]
