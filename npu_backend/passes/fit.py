"""Fit: strata, residency, tiles, schedule and placement; what does not fit is spilled, and all is tried again."""

from __future__ import annotations

from collections.abc import Mapping

from npu_backend.errors import CapacityError, DoesNotFitError
from npu_backend.passes.halo_first import halo_first
from npu_backend.passes.place import place
from npu_backend.passes.reside import reside
from npu_backend.passes.route import route
from npu_backend.passes.schedule import schedule
from npu_backend.passes.strata import strata
from npu_backend.passes.tile import TileSearch
from npu_backend.stages import Partitioned, Placed, Resident, Routed
from npu_backend.strategies import Strategy

# Shares of the free scratchpad that tiles may take, tried in turn when nothing is left to spill: buffers that fit by
# their sum may still not fit side by side.
_PLANNED_SHARES = (0.9, 0.7, 0.5)
# Shares of a scratchpad that may be taken when constants are loaded early, tried in turn before anything is spilled.
_EARLY_SHARES = (0.9, 0.7, 0.0)


def fit(
    partitioned: Partitioned,
    strategy: Strategy,
    search: TileSearch,
    waiting_ns: Mapping[str, float],
    closed: frozenset[str] = frozenset(),
) -> Placed:
    """Every buffer at an address.

    `waiting_ns` is what strata are chosen with, no stratum runs across a tensor in `closed`. Raises CapacityError when
    some layer does not fit even with nothing resident.
    """
    spilled: frozenset[str] = frozenset()
    shares = list(_PLANNED_SHARES)
    while True:
        resident = _resident(partitioned, strategy, search, waiting_ns, closed | spilled, spilled)
        try:
            tiled = search.tile(resident, shares[0])
            ordered = halo_first(tiled) if strategy.forward else tiled
            return _place(route(ordered, search.cost, scheduled=strategy.scheduled), hopeful=not spilled)
        except DoesNotFitError as failure:
            victim = _largest_resident(resident, failure.layer_index, failure.core)
            if victim is not None:
                spilled |= {victim}
            elif len(shares) > 1:
                shares.pop(0)
            else:
                raise _capacity_error(partitioned, failure) from failure


def _resident(
    partitioned: Partitioned, strategy: Strategy, search: TileSearch, waiting_ns: Mapping[str, float],
    closed: frozenset[str], spilled: frozenset[str],
) -> Resident:  # fmt: skip
    """What stays, with strata only across what stays: a stratum ends where its map finds no room."""
    if not strategy.strata:
        return reside(partitioned, strategy, spilled)
    while True:
        divided = strata(partitioned, waiting_ns, closed, search.cost)
        resident = reside(divided, strategy, spilled)
        lost = {layer.output for index, layer in enumerate(divided.fused.layers)
                if any(resident.in_scratchpad(layer.output, i) is None for i in divided.in_stratum(index))}  # fmt: skip
        if not lost:
            return resident
        closed |= lost


def _place(routed: Routed, hopeful: bool) -> Placed:
    """The schedule that loads the most constants early and still fits.

    Where one before it did not fit, the one that loads none early goes first: most of those that fail, fail with it.
    """
    if routed.tiled.resident.partitioned.barriers:
        return place(schedule(routed, 0.0))
    latest = None if hopeful else place(schedule(routed, _EARLY_SHARES[-1]))
    for early_share in _EARLY_SHARES[:-1]:
        try:
            return place(schedule(routed, early_share))
        except DoesNotFitError:
            continue
    return latest or place(schedule(routed, _EARLY_SHARES[-1]))


def _largest_resident(resident: Resident, layer_index: int, core: int) -> str | None:
    """The tensor that takes the most of a core's scratchpad while a layer runs."""
    sizes = {
        residency.tensor: box.size
        for residency in resident.residencies.values()
        if residency.first_layer <= layer_index <= residency.last_layer and (box := residency.boxes[core]) is not None
    }
    return max(sizes, key=sizes.__getitem__, default=None)


def _capacity_error(partitioned: Partitioned, failure: DoesNotFitError) -> CapacityError:
    layer = partitioned.fused.layers[failure.layer_index]
    core = partitioned.machine.cores[failure.core]
    return CapacityError(
        f"{layer.anchor.kind} {layer.name}: the smallest tile needs {failure.demand_bytes} bytes, core {core.name} has "
        f"room for {failure.room_bytes} of its {core.spm_bytes}; use a machine with a larger spm_bytes"
    )
