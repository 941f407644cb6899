"""Partition: divides every layer over the cores along one axis, in shares that balance load plus compute time.

The directions and their heuristics h1 to h5 are those of Jung et al., CGO 2023. In a product of two tensors, a side
that every core would need whole counts as weights. Where feature maps stay in the scratchpads, what only moves elements
is divided so that they move least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm, prod

from npu_backend.box import Box, split_interval
from npu_backend.graph import Op, Tensor
from npu_backend.machine_types import Core, Machine
from npu_backend.ops import spec_of
from npu_backend.ops.matrix import is_depthwise
from npu_backend.rates import multiplied_type
from npu_backend.stages import Fused, Join, Layer, Partitioned, Split
from npu_backend.strategies import Directions, Strategy

# h2: weights count as much larger than the input from this ratio on.
WEIGHTS_TO_INPUT = 2.0
# h5: a halo is too large when a core would read this many halo rows for each row of its own.
HALO_TO_OWN = 1.0
# A feature map is expected to stay in the scratchpads when it takes no more than this share of all of them.
SCRATCHPAD_SHARE = 0.5


def partition(fused: Fused, machine: Machine, strategy: Strategy) -> Partitioned:
    """Gives every core an output box of every layer."""
    splits: dict[str, Split] = {}
    for layer in fused.layers:
        sources = {name: splits[name] for name in fused.inputs(layer) if name in splits}
        splits[layer.output] = _split(
            _Candidate.of(fused, layer, machine, sources, strategy.forward or strategy.strata), strategy
        )
    alone = tuple(Join(index, "") for index in range(len(splits)))
    return Partitioned(fused, machine, tuple(splits.values()), not strategy.forward and len(machine.cores) > 1, alone)


@dataclass(frozen=True)
class _Candidate:
    """A layer with what the heuristics look at; `axes` maps a direction to axis and multiple where it is possible."""

    fused: Fused
    layer: Layer
    machine: Machine
    axes: dict[str, tuple[int, int]]
    input_bytes: int
    weight_bytes: int
    # How the inputs that layers compute are divided.
    sources: Mapping[str, Split]
    # Whether feature maps stay in the scratchpads where they can.
    forward: bool

    @staticmethod
    def of(fused: Fused, layer: Layer, machine: Machine, sources: Mapping[str, Split], forward: bool) -> _Candidate:
        graph = fused.graph
        inputs = sum(graph.tensor(name).size_bytes for name in fused.inputs(layer))
        axes, weights = _axes(fused, layer, machine), fused.constant_bytes(layer)
        return _Candidate(fused, layer, machine, axes, inputs, weights, sources, forward)

    @property
    def output_box(self) -> Box:
        return self.fused.output(self.layer).box

    @property
    def op(self) -> Op:
        return self.layer.anchor


def _axes(fused: Fused, layer: Layer, machine: Machine) -> dict[str, tuple[int, int]]:
    allowed = dict(spec_of(layer.anchor).split_axes(fused.graph, layer.anchor))
    shape = fused.output(layer).shape
    last = len(shape) - 1
    outer = next((axis for axis in sorted(allowed) if axis != last and shape[axis] > 1), None)
    wanted = {"rows": 1 if len(shape) == 4 else outer, "columns": 2 if len(shape) == 4 else None, "channels": last}
    axes = {}
    for direction, axis in wanted.items():
        if axis is None or axis not in allowed:
            continue
        multiple = allowed[axis]
        if direction == "channels":
            multiple = lcm(multiple, machine.cores[0].channel_alignment)
        if shape[axis] > multiple:
            axes[direction] = (axis, multiple)
    return axes


def _split(candidate: _Candidate, strategy: Strategy) -> Split:
    directions = strategy.directions
    cores = len(candidate.machine.cores)
    if directions is Directions.SINGLE or cores == 1:
        reason = "strategy single" if cores > 1 else "one core"
        return Split("single", (candidate.output_box, *[None] * (cores - 1)), reason)
    if not candidate.axes:
        return _indivisible(candidate, cores)
    direction, reason = _direction(candidate, strategy)
    return Split(direction, _boxes(candidate, *candidate.axes[direction]), reason)


def _indivisible(candidate: _Candidate, cores: int) -> Split:
    """One core computes what leaves the graph; what others read is computed by each, so that it need not move."""
    if candidate.layer.output in candidate.fused.readers:
        return Split("replicated", (candidate.output_box,) * cores, "indivisible, and read by all cores")
    return Split("single", (candidate.output_box, *[None] * (cores - 1)), "indivisible")


def _direction(candidate: _Candidate, strategy: Strategy) -> tuple[str, str]:
    directions = strategy.directions
    if directions is Directions.ADAPTIVE:
        return _heuristics(candidate)
    wanted = ("rows", "columns", "channels") if directions is Directions.SPATIAL else ("channels", "rows", "columns")
    direction = next(name for name in wanted if name in candidate.axes)
    return direction, f"strategy {directions.value}" if direction == wanted[0] else f"{wanted[0]} cannot be divided"


def _heuristics(candidate: _Candidate) -> tuple[str, str]:
    spatial = _spatial(candidate)
    if candidate.forward and candidate.sources and spec_of(candidate.op).keeps_elements:
        return min(candidate.axes, key=lambda name: _missing_bytes(candidate, name)), "where its elements are"
    if spatial is None:
        return "channels", "h3: too shallow to divide by rows"
    if "channels" not in candidate.axes:
        return spatial, "h1: spatial, channels cannot be divided"
    cores, extent = len(candidate.machine.cores), candidate.output_box.shape[candidate.axes[spatial][0]]
    if extent < cores and extent <= _units(candidate, "channels"):
        return "channels", f"h3: {extent} {spatial} for {cores} cores"
    shared = _shared_bytes(candidate, spatial)
    weights, inputs = candidate.weight_bytes + shared, candidate.input_bytes - shared
    if weights > WEIGHTS_TO_INPUT * inputs:
        return "channels", f"h2: {weights} weight bytes, {inputs} input bytes"
    # Where feature maps stay in the scratchpads, going from rows to channels would move all of them: h4 then only
    # holds where the channels are divided already.
    directions = [source.direction for source in candidate.sources.values()]
    if _is_channelwise(candidate) and not (candidate.forward and spatial in directions):
        return "channels", f"h4: {candidate.op.kind} is channel-wise"
    halo = _halo(candidate, spatial)
    if halo > HALO_TO_OWN * extent / cores:
        return "channels", f"h5: halo of {halo} for {extent // cores} {spatial} a core"
    return spatial, "h1: spatial"


def _units(candidate: _Candidate, direction: str) -> int:
    """Parts into which a direction can divide the output."""
    axis, multiple = candidate.axes[direction]
    return -(-candidate.output_box.shape[axis] // multiple)


def _missing_bytes(candidate: _Candidate, direction: str) -> int:
    """Bytes of the computed inputs that lie on another core than the one that needs them."""
    fused, missing = candidate.fused, 0
    for core, box in enumerate(_boxes(candidate, *candidate.axes[direction])):
        needed = fused.needed(candidate.layer, box) if box else {}
        for name, source in candidate.sources.items():
            need, have = needed.get(name), source.boxes[core]
            if need is not None:
                there = need.intersect(have).size if have else 0
                missing += (need.size - there) * fused.graph.tensor(name).itemsize
    return missing


def _spatial(candidate: _Candidate) -> str | None:
    """Rows or else columns; of a product of matrices whichever divides both of them."""
    possible = [name for name in ("rows", "columns") if name in candidate.axes]
    return next((name for name in possible if not _shared_bytes(candidate, name)), possible[0] if possible else None)


def _shared_bytes(candidate: _Candidate, direction: str) -> int:
    """Bytes of the inputs that every core would need whole, as it does weights."""
    return sum(tensor.size_bytes for tensor, low, high in _halves(candidate, direction) if low == high)


def _is_channelwise(candidate: _Candidate) -> bool:
    op = candidate.op
    return op.kind == "pool2d" or (op.kind == "conv2d" and is_depthwise(candidate.fused.graph, op))


def _halo(candidate: _Candidate, direction: str) -> int:
    """Input positions that two neighbouring cores both need, along the axes that the direction divides."""
    return max((
        low.intersect(high).shape[axis]
        for _, low, high in _halves(candidate, direction) for axis in range(low.rank)
        if low.interval(axis) != high.interval(axis)
    ), default=0)  # fmt: skip


def _halves(candidate: _Candidate, direction: str) -> list[tuple[Tensor, Box, Box]]:
    """Every input of the anchor with the boxes that the two halves of the output need of it."""
    axis = candidate.axes[direction][0]
    middle = candidate.output_box.shape[axis] // 2
    first = candidate.output_box.with_interval(axis, 0, middle)
    second = candidate.output_box.with_interval(axis, middle, candidate.output_box.shape[axis])
    graph, op = candidate.fused.graph, candidate.op
    pairs = zip(spec_of(op).input_boxes(graph, op, first), spec_of(op).input_boxes(graph, op, second))
    return [(graph.tensor(name), low, high) for name, (low, high) in zip(graph.activations(op), pairs)]


def _boxes(candidate: _Candidate, axis: int, multiple: int) -> tuple[Box | None, ...]:
    extent = candidate.output_box.shape[axis]
    units = -(-extent // multiple)
    shares = balanced_shares(units, [_unit_time_ns(candidate, core, axis, units) for core in candidate.machine.cores])
    bounds = split_interval(0, units, shares)
    return tuple(
        candidate.output_box.with_interval(axis, low * multiple, min(high * multiple, extent)) if high > low else None
        for low, high in bounds
    )


def _unit_time_ns(candidate: _Candidate, core: Core, axis: int, units: int) -> float:
    """Load plus compute time of one unit of the axis on a core."""
    fused, layer = candidate.fused, candidate.layer
    macs = {op: spec_of(op).macs(fused.graph, op) for op in layer.ops}
    elements = prod(fused.output(layer).shape) * sum(count == 0 for count in macs.values())
    compute = elements / (core.vector_lanes * core.clock_mhz / 1000)
    compute += sum(n / core.peak_macs_per_ns(multiplied_type(fused.graph, op)) for op, n in macs.items() if n)
    return (compute + _moved_bytes(candidate, axis) / core.memory_gb_per_s) / units


def _moved_bytes(candidate: _Candidate, axis: int) -> int:
    """Bytes that cross DRAM in proportion to a core's share, as far as can be told before residency is decided."""
    fused, layer = candidate.fused, candidate.layer
    by_channel = axis == len(fused.output(layer).shape) - 1
    moved = candidate.weight_bytes if by_channel else 0
    names = [layer.output] if by_channel else [layer.output, *fused.inputs(layer)]
    return moved + sum(fused.graph.tensor(name).size_bytes for name in names if not _can_stay(candidate, name))


def _can_stay(candidate: _Candidate, name: str) -> bool:
    """Whether a tensor may live in the scratchpads between its layers: it is computed, read, and small enough."""
    graph = candidate.fused.graph
    inside = name in graph.producers and name not in graph.output_names
    room = sum(core.spm_bytes for core in candidate.machine.cores) * SCRATCHPAD_SHARE
    return candidate.forward and inside and graph.tensor(name).size_bytes <= room


def balanced_shares(units: int, unit_times: list[float]) -> list[int]:
    """Whole units for every core so that no core's time could be lowered by moving one unit (greedy, exact)."""
    shares = [0] * len(unit_times)
    if units > 64 * len(unit_times):
        speeds = [1 / time for time in unit_times]
        shares = [int((units - len(unit_times)) * speed / sum(speeds)) for speed in speeds]
    for _ in range(units - sum(shares)):
        best = min(range(len(shares)), key=lambda core: ((shares[core] + 1) * unit_times[core], core))
        shares[best] += 1
    return shares
