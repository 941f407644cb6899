"""Partition: divides every layer over the cores.

A few cores, or unequal ones, get shares along one axis (`shares`), in the direction that the strategy names or that the
heuristics of Jung et al., CGO 2023, find (`heuristics`). Many equal cores whose maps stay in the scratchpads get parts
along one or two axes, by estimate (`divide`).
"""

from __future__ import annotations

from dataclasses import replace

from npu_backend.cost import CostModel
from npu_backend.machine_types import Machine
from npu_backend.passes.candidate import Candidate, axes_of
from npu_backend.passes.divide import Divider
from npu_backend.passes.heuristics import heuristics
from npu_backend.passes.shares import balanced_boxes
from npu_backend.stages import Fused, Join, Partitioned, Split
from npu_backend.strategies import Directions, Strategy

# Up to so many cores the heuristics decide.
FEW_CORES = 4


def partition(fused: Fused, cost: CostModel, strategy: Strategy) -> Partitioned:
    """Gives every core of the cost model's machine an output box of every layer."""
    machine = cost.machine
    is_estimated = strategy.forward and strategy.directions is Directions.ADAPTIVE and _are_many(machine)
    divider = Divider(fused, cost) if is_estimated else None
    splits: dict[str, Split] = {}
    for layer in fused.layers:
        sources = {name: splits[name] for name in fused.inputs(layer) if name in splits}
        candidate = Candidate.of(fused, layer, machine, sources, strategy.forward or strategy.strata)
        splits[layer.output] = _split(candidate, strategy, divider)
    alone = tuple(Join(index, "") for index in range(len(splits)))
    return Partitioned(fused, machine, tuple(splits.values()), not strategy.forward and len(machine.cores) > 1, alone)


def _are_many(machine: Machine) -> bool:
    """Whether there are more cores than the heuristics were made for, and all are equal."""
    first = machine.cores[0]
    return len(machine.cores) > FEW_CORES and all(replace(core, name=first.name) == first for core in machine.cores)


def _split(candidate: Candidate, strategy: Strategy, divider: Divider | None) -> Split:
    directions = strategy.directions
    cores = len(candidate.machine.cores)
    if directions is Directions.SINGLE or cores == 1:
        reason = "strategy single" if cores > 1 else "one core"
        return Split("single", (candidate.output_box, *[None] * (cores - 1)), reason)
    if not candidate.axes:
        return _indivisible(candidate, cores)
    if divider is not None:
        return _divide(candidate, divider)
    direction, reason = _direction(candidate, strategy)
    return Split(direction, balanced_boxes(candidate, *candidate.axes[direction]), reason)


def _divide(candidate: Candidate, divider: Divider) -> Split:
    fused, layer = candidate.fused, candidate.layer
    reader = next(iter(fused.readers.get(layer.output, ())), None)
    reader_axes = axes_of(fused, fused.layers[reader], candidate.machine) if reader is not None else None
    return divider.split(layer, candidate.axes, candidate.sources, reader_axes)


def _indivisible(candidate: Candidate, cores: int) -> Split:
    """One core computes what leaves the graph; what others read is computed by each, so that it need not move."""
    if candidate.layer.output in candidate.fused.readers:
        return Split("replicated", (candidate.output_box,) * cores, "indivisible, and read by all cores")
    return Split("single", (candidate.output_box, *[None] * (cores - 1)), "indivisible")


def _direction(candidate: Candidate, strategy: Strategy) -> tuple[str, str]:
    directions = strategy.directions
    if directions is Directions.ADAPTIVE:
        return heuristics(candidate)
    wanted = ("rows", "columns", "channels") if directions is Directions.SPATIAL else ("channels", "rows", "columns")
    direction = next(name for name in wanted if name in candidate.axes)
    return direction, f"strategy {directions.value}" if direction == wanted[0] else f"{wanted[0]} cannot be divided"
