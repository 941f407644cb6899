"""Choose: the plans of a strategy and of the rungs below it, on all cores or fewer, judged by the emulator's clock.

Strata are chosen with a profile, as in Jung et al., CGO 2023: what the cores wait between two layers comes from a run
without strata. A stratum that then takes longer than its layers took before is given up again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from npu_backend.cost import CostModel
from npu_backend.machine_types import Machine
from npu_backend.passes.emit import emit
from npu_backend.passes.fit import fit
from npu_backend.passes.order import order
from npu_backend.passes.partition import partition
from npu_backend.passes.strata import strata
from npu_backend.passes.synchronize import Synchronized, synchronize
from npu_backend.passes.tile import TileSearch
from npu_backend.plan_times import PlanTimes
from npu_backend.program import Program
from npu_backend.rates import least_ns
from npu_backend.stages import Fused, Partitioned, Placed
from npu_backend.strategies import STRATEGIES, Directions, Strategy

# How often strata that turned out slower are given up and the rest is tried again.
_ROUNDS = 3
# Where half of the cores take so many times as long as more, a quarter is not tried.
_TOO_SLOW = 1.3
# On more cores than this a plan takes long to make. What many cores move through DRAM makes the rungs without
# forwarding several times slower there, and strata are tried once, where they promise this share of the time at least.
_MANY_CORES = 8
_WORTH_A_PLAN = 0.03


@dataclass(frozen=True)
class Plan:
    """What the passes made of a network by one strategy."""

    strategy: Strategy
    partitioned: Partitioned
    ordered: Partitioned
    synchronized: Synchronized
    # Shared by the same plan under another rung's name.
    times: PlanTimes
    # Why it leaves cores idle.
    cores_reason: str = ""

    @property
    def placed(self) -> Placed:
        """The stage before synchronisation."""
        return self.synchronized.placed

    @property
    def divided(self) -> Partitioned:
        """The layers with their strata."""
        return self.placed.scheduled.tiled.resident.partitioned

    def program(self, machine: Machine, asked: Strategy) -> Program:
        """The program file for a machine of which the plan uses the first cores, and the strategy asked for."""
        return emit(self.synchronized, machine, asked, self.strategy, self.cores_reason)

    @property
    def total_ns(self) -> float:
        """How long it takes on the emulator's clock."""
        return self.times.total_ns

    @property
    def computes_ns(self) -> npt.NDArray[np.float64]:
        """float64 [layer][core][start, stop]: when a core's first computation of a layer starts and its last ends.

        Not a number where a core computes nothing of a layer.
        """
        return self.times.computes_ns

    @cached_property
    def ends_ns(self) -> npt.NDArray[np.float64]:
        """float64 [layer]: when it and all layers before it have computed."""
        latest = np.nanmax(np.nan_to_num(self.computes_ns[:, :, 1], nan=0.0), axis=1)
        ends: npt.NDArray[np.float64] = np.maximum.accumulate(latest)
        return ends


def choose(fused: Fused, machine: Machine, strategy: Strategy) -> Plan:
    """The fastest plan of the strategy and of the rungs below it, on as many cores as are of use.

    Raises CapacityError when no tile of some layer fits a scratchpad.
    """
    if not strategy.fewer_cores or len(machine.cores) == 1:
        return _Planner.of(fused, machine).best(strategy)
    best, reason = _fastest(fused, machine, strategy)
    return replace(best.best(strategy), cores_reason=reason)


def _fastest(fused: Fused, machine: Machine, strategy: Strategy) -> tuple[_Planner, str]:
    """The planner with all cores, half of them, a quarter and so on whose plan without strata is the fastest; why."""
    best, times_ns, count = _Planner.of(fused, machine), dict[int, float](), len(machine.cores)
    while count and _is_of_use(fused, machine.take(count), times_ns):
        planner = _Planner.of(fused, machine.take(count)) if times_ns else best
        # No rung may be slower than the one below it, which takes all cores.
        times_ns[count] = planner.fastest_without_strata(strategy, with_rungs=not times_ns).total_ns
        if times_ns[count] == min(times_ns.values()):
            best = planner
        count //= 2
    used = len(best.machine.cores)
    told = ", ".join(f"{time_ns / 1000:.1f} us on {cores}" for cores, time_ns in times_ns.items())
    return best, "" if used == len(machine.cores) else f"without strata {told}"


def _is_of_use(fused: Fused, fewer: Machine, times_ns: Mapping[int, float]) -> bool:
    """Whether so many cores could be the fastest: their peak is enough, and twice as many are not far better."""
    if not times_ns:
        return True
    *_, latest_ns = times_ns.values()
    fastest_ns = min(times_ns.values())
    return latest_ns < _TOO_SLOW * fastest_ns and least_ns(fused, fewer) < fastest_ns


@dataclass(frozen=True)
class _Planner:
    fused: Fused
    machine: Machine
    search: TileSearch
    # Plans without strata by what decides them: a rung's is also the profile of the one above.
    known: dict[tuple[Directions, bool, bool], Plan] = field(default_factory=dict)
    divided: dict[tuple[Directions, bool, bool], tuple[Partitioned, Partitioned]] = field(default_factory=dict)

    @staticmethod
    def of(fused: Fused, machine: Machine) -> _Planner:
        return _Planner(fused, machine, TileSearch(CostModel(machine)))

    def best(self, strategy: Strategy) -> Plan:
        # One core has nobody to wait for.
        several = len(self.machine.cores) > 1
        plans = [self._with_strata(strategy) if strategy.strata and several else self.without_strata(strategy)]
        if (below := self._below(strategy)) is not None:
            plans.append(self.best(below))
        return min(plans, key=lambda plan: plan.total_ns) if len(plans) > 1 else plans[0]

    def fastest_without_strata(self, strategy: Strategy, *, with_rungs: bool) -> Plan:
        """The plan without strata, or one of the rungs below where that is faster."""
        plans = [self.without_strata(strategy)]
        while with_rungs and (below := self._below(strategy)) is not None:
            strategy = below
            plans.append(self.without_strata(strategy))
        return min(plans, key=lambda plan: plan.total_ns)

    @property
    def _are_many(self) -> bool:
        return len(self.machine.cores) > _MANY_CORES

    def _below(self, strategy: Strategy) -> Strategy | None:
        """The rung below that is worth a plan."""
        below = STRATEGIES[strategy.rung_below] if strategy.rung_below is not None else None
        if below is None or (self._are_many and not below.forward):
            return None
        return replace(below, scheduled=strategy.scheduled)

    def without_strata(self, strategy: Strategy) -> Plan:
        key = strategy.directions, strategy.forward, strategy.scheduled
        if key not in self.known:
            self.known[key] = self._plan(replace(strategy, strata=False))
        return replace(self.known[key], strategy=strategy)

    def _plan(
        self, strategy: Strategy, waiting_ns: Mapping[str, float] | None = None, closed: frozenset[str] = frozenset()
    ) -> Plan:
        partitioned, ordered = self._divided(strategy)
        placed = fit(ordered, strategy, self.search, waiting_ns or {}, closed)
        made = synchronize(placed)
        return Plan(strategy, partitioned, ordered, made, PlanTimes(made, strategy))

    def _divided(self, strategy: Strategy) -> tuple[Partitioned, Partitioned]:
        """The layers' parts, in the order of the network and in that in which they run; strata come later."""
        key = strategy.directions, strategy.forward, strategy.forward or strategy.strata
        if key not in self.divided:
            partitioned = partition(self.fused, self.search.cost, strategy)
            self.divided[key] = partitioned, order(partitioned)
        return self.divided[key]

    def _with_strata(self, strategy: Strategy) -> Plan:
        """The fastest of some rounds: each closes the strata that were slower than the same layers without.

        What cores wait is taken from the rung that has no strata, so without forwarding from `base` as it is.
        """
        before = self.without_strata(strategy)
        waiting_ns, closed = _waiting_ns(before), frozenset[str]()
        if self._are_many and self._promised_ns(before.ordered, waiting_ns) < _WORTH_A_PLAN * before.total_ns:
            return before
        plans = []
        for _ in range(1 if self._are_many else _ROUNDS):
            plans.append(self._plan(strategy, waiting_ns, closed))
            slower = _slower(plans[-1], before)
            if not slower:
                break
            closed |= slower
        return min(plans, key=lambda plan: plan.total_ns)

    def _promised_ns(self, ordered: Partitioned, waiting_ns: Mapping[str, float]) -> float:
        """What strata would save, by the costs with which they are chosen."""
        joins = strata(ordered, waiting_ns, frozenset(), self.search.cost).joins
        inside = (join for join, following in pairwise(joins) if join.stratum == following.stratum)
        return sum((join.synchronization_ns or 0.0) - (join.recompute_ns or 0.0) for join in inside)


def _waiting_ns(plan: Plan) -> dict[str, float]:
    """By a layer's output: between its end on a core and the start of the layer after it there, the cores' mean."""
    times = plan.computes_ns
    waits = {}
    for index, layer in enumerate(plan.divided.fused.layers[:-1]):
        gaps = times[index + 1, :, 0] - times[index, :, 1]
        if not np.isnan(gaps).all():
            waits[layer.output] = max(0.0, float(np.nanmean(gaps)))
    return waits


def _slower(plan: Plan, before: Plan) -> frozenset[str]:
    """What lies inside the strata that take longer than their layers did before.

    Where the layers ran in another order before, with others between them, there is nothing to compare.
    """
    inside: dict[int, list[int]] = {}
    for index, join in enumerate(plan.divided.joins):
        inside.setdefault(join.stratum, []).append(index)
    places = {layer.output: index for index, layer in enumerate(before.divided.fused.layers)}
    closed: set[str] = set()
    for layers in inside.values():
        outputs = [plan.divided.fused.layers[index].output for index in layers]
        there = [places[output] for output in outputs]
        side_by_side = there == list(range(there[0], there[0] + len(there)))
        if len(layers) > 1 and side_by_side and _lasts_ns(plan, layers) > _lasts_ns(before, there):
            closed.update(outputs[:-1])
    return frozenset(closed)


def _lasts_ns(plan: Plan, layers: list[int]) -> float:
    start = plan.ends_ns[layers[0] - 1] if layers[0] else 0.0
    return float(plan.ends_ns[layers[-1]] - start)
