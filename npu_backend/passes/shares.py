"""Shares: parts along one axis that balance load plus compute time, also of unequal cores."""

from __future__ import annotations

from math import prod

from npu_backend.box import Box, split_interval
from npu_backend.machine_types import Core
from npu_backend.ops import spec_of
from npu_backend.passes.candidate import Candidate
from npu_backend.rates import multiplied_type


def balanced_boxes(candidate: Candidate, axis: int, multiple: int) -> tuple[Box | None, ...]:
    """Every core's part of the output, None where there are not enough multiples for it."""
    extent = candidate.output_box.shape[axis]
    units = -(-extent // multiple)
    shares = balanced_shares(units, [_unit_time_ns(candidate, core, axis, units) for core in candidate.machine.cores])
    bounds = split_interval(0, units, shares)
    return tuple(
        candidate.output_box.with_interval(axis, low * multiple, min(high * multiple, extent)) if high > low else None
        for low, high in bounds
    )


def _unit_time_ns(candidate: Candidate, core: Core, axis: int, units: int) -> float:
    """Load plus compute time of one unit of the axis on a core."""
    fused, layer = candidate.fused, candidate.layer
    macs = {op: spec_of(op).macs(fused.graph, op) for op in layer.ops}
    elements = prod(fused.output(layer).shape) * sum(count == 0 for count in macs.values())
    compute = elements / (core.vector_lanes * core.clock_mhz / 1000)
    compute += sum(n / core.peak_macs_per_ns(multiplied_type(fused.graph, op)) for op, n in macs.items() if n)
    return (compute + _moved_bytes(candidate, axis) / core.memory_gb_per_s) / units


def _moved_bytes(candidate: Candidate, axis: int) -> int:
    """Bytes that cross DRAM in proportion to a core's share, as far as can be told before residency is decided."""
    fused, layer = candidate.fused, candidate.layer
    by_channel = axis == len(fused.output(layer).shape) - 1
    moved = candidate.weight_bytes if by_channel else 0
    names = [layer.output] if by_channel else [layer.output, *fused.inputs(layer)]
    return moved + sum(fused.graph.tensor(name).size_bytes for name in names if not candidate.can_stay(name))


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
