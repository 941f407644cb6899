"""The straight line from a graph to a program; nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from npu_backend.choose import choose
from npu_backend.collector import collector_paused
from npu_backend.graph import Graph
from npu_backend.machine_types import Machine
from npu_backend.passes.fuse import fuse
from npu_backend.passes.legalize import legalize
from npu_backend.program import Program
from npu_backend.rates import check_rates
from npu_backend.strategies import Strategy
from npu_backend.verify import verify

STAGES = ("legalize", "fuse", "partition", "order", "strata", "reside", "tile", "route", "schedule", "place",
          "synchronize", "emit")  # fmt: skip

# Called after every pass with its name and what it made; may raise to stop there.
Observer = Callable[[str, object], None]
Stage = TypeVar("Stage")


def compile_graph(
    graph: Graph, machine: Machine, strategy: Strategy, observe: Observer | None = None, *, check: bool = False
) -> Program:
    """A program for `graph` on all cores of `machine`; `check` verifies every stage thoroughly.

    Raises UnsupportedError for a data type that the machine cannot multiply, CapacityError when no tile of some layer
    fits a scratchpad.
    """

    def done(name: str, stage: Stage) -> Stage:
        verify(stage, thorough=check)
        if observe is not None:
            observe(name, stage)
        return stage

    verify(graph, thorough=check)
    check_rates(graph, machine)
    legal = done("legalize", legalize(graph))
    fused = done("fuse", fuse(legal))
    with collector_paused():
        plan = choose(fused, machine, strategy)
    done("partition", plan.partitioned)
    done("order", plan.ordered)
    done("strata", plan.divided)
    done("reside", plan.placed.scheduled.tiled.resident)
    done("tile", plan.placed.scheduled.tiled)
    done("route", plan.placed.scheduled.routed)
    done("schedule", plan.placed.scheduled)
    done("place", plan.placed)
    done("synchronize", plan.synchronized)
    return done("emit", plan.program(machine, strategy))
