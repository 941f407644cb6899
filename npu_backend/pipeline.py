"""The straight line from a graph to a program; nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npu_backend.cost import CostModel
from npu_backend.errors import CapacityError
from npu_backend.graph import Graph
from npu_backend.machine_types import Machine
from npu_backend.passes.emit import emit
from npu_backend.passes.fuse import fuse
from npu_backend.passes.legalize import legalize
from npu_backend.passes.partition import partition
from npu_backend.passes.place import OverflowsError, place
from npu_backend.passes.reside import reside
from npu_backend.passes.schedule import schedule
from npu_backend.passes.synchronize import synchronize
from npu_backend.passes.tile import DoesNotFitError, TileSearch
from npu_backend.program import Program
from npu_backend.stages import Partitioned, Placed, Resident
from npu_backend.strategies import Strategy

STAGES = ("legalize", "fuse", "partition", "reside", "tile", "schedule", "place", "synchronize", "emit")

# Called after every pass with its name and what it made; may raise to stop there.
Observer = Callable[[str, Any], None]


def compile_graph(graph: Graph, machine: Machine, strategy: Strategy, observe: Observer = lambda *_: None) -> Program:
    """A program for `graph` on all cores of `machine`.

    Raises CapacityError when no tile of some layer fits a scratchpad.
    """

    def done(name: str, stage: Any) -> Any:
        observe(name, stage)
        return stage

    legal = done("legalize", legalize(graph))
    fused = done("fuse", fuse(legal))
    partitioned = done("partition", partition(fused, machine, strategy))
    placed = _fit(partitioned, strategy, done)
    synchronized = done("synchronize", synchronize(placed))
    return done("emit", emit(synchronized, strategy))  # type: ignore[no-any-return]


def _fit(partitioned: Partitioned, strategy: Strategy, done: Callable[[str, Any], Any]) -> Placed:
    """Keeps tensors resident, tiles, schedules and places; what does not fit is spilled, and all is tried again."""
    search = TileSearch(CostModel(partitioned.machine))
    spilled: frozenset[str] = frozenset()
    planned_share = 0.9
    while True:
        resident = reside(partitioned, strategy, spilled)
        try:
            tiled = search.tile(resident, planned_share)
            scheduled = schedule(tiled)
            placed = place(scheduled)
        except (DoesNotFitError, OverflowsError) as failure:
            victim = _largest_resident(resident, failure.layer_index, failure.core)
            if victim is not None:
                spilled |= {victim}
            elif isinstance(failure, OverflowsError) and planned_share > 0.4:
                planned_share -= 0.2
            else:
                raise _capacity_error(partitioned, failure) from failure
            continue
        for name, stage in (("reside", resident), ("tile", tiled), ("schedule", scheduled), ("place", placed)):
            done(name, stage)
        return placed


def _largest_resident(resident: Resident, layer_index: int, core: int) -> str | None:
    """The tensor that takes the most of a core's scratchpad while a layer runs."""
    sizes = {
        residency.tensor: box.size
        for residency in resident.residencies.values()
        if residency.first_layer <= layer_index <= residency.last_layer and (box := residency.boxes[core]) is not None
    }
    return max(sizes, key=sizes.__getitem__, default=None)


def _capacity_error(partitioned: Partitioned, failure: DoesNotFitError | OverflowsError) -> CapacityError:
    layer = partitioned.fused.layers[failure.layer_index]
    core = partitioned.machine.cores[failure.core]
    return CapacityError(
        f"{layer.anchor.kind} {layer.name}: the smallest tile needs {failure.demand_bytes} bytes, core {core.name} has "
        f"room for {failure.room_bytes} of its {core.spm_bytes}; use a machine with a larger spm_bytes"
    )
