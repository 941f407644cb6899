"""Max-min fair sharing: cases by hand, then random networks against an independent simulation in exact fractions.

The programs' transfers have no set-up and no latency, and no burst is rounded, so that only sharing takes time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from npu_backend.errors import NpuError
from npu_backend.isa import Engine
from npu_backend.machine import load_machine
from npu_backend.network import MachineRecords, machine_records
from npu_backend.program import DRAM_NODE
from tests.emulator.replay import load, machine, replay_records, send, store


@dataclass(frozen=True)
class Traffic:
    """Transfers of one DMA engine, in order: bytes each, and the resources all of them cross."""

    place: tuple[int, Engine]
    sizes: tuple[int, ...]
    resources: tuple[int, ...]
    destination: int = DRAM_NODE


def network(cores: int, capacities: Sequence[float], traffic: Sequence[Traffic]) -> MachineRecords:
    """Records with the given resources, one path for each traffic."""
    plain = machine_records(machine(cores))
    steps: list[int] = []
    paths = []
    for row in traffic:
        core, engine = row.place
        source, destination = (DRAM_NODE, core) if engine == Engine.LOAD else (core, row.destination)
        paths.append({"source": source, "destination": destination, "first_step": len(steps),
                      "step_count": len(row.resources), "latency_ns": 0.0, "hops": 0})  # fmt: skip
        steps += row.resources
    resources = tuple({"bytes_per_ns": value, "name": f"r{i}", "is_link": 0} for i, value in enumerate(capacities))
    free = {**plain.machine, "dram_latency_ns": 0.0, "burst_bytes": 1}
    cores_records = tuple({**core, "dma_setup_cycles": 0} for core in plain.cores)
    return MachineRecords(free, cores_records, resources, tuple(paths), tuple(steps))


def stop_times(cores: int, capacities: Sequence[float], traffic: Sequence[Traffic]) -> list[list[float]]:
    """When each transfer ends on the emulator."""
    make: Mapping[Engine, Any] = {Engine.LOAD: load, Engine.STORE: store}
    streams = {
        row.place: [make[row.place[1]](size) if row.place[1] in make else send(size, core=row.destination)
                    for size in row.sizes]
        for row in traffic
    }  # fmt: skip
    _, spans = replay_records(network(cores, capacities, traffic), streams)
    return [spans[row.place][:, 1].tolist() for row in traffic]


def test_a_flow_alone_gets_its_narrowest_resource() -> None:
    assert stop_times(1, [10, 4, 8], [Traffic((0, Engine.LOAD), (100,), (0, 1, 2))]) == [[25]]


def test_two_flows_share_a_link_then_one_has_it_alone() -> None:
    # 5 each until 20; the longer one has 100 left at 10.
    assert stop_times(1, [10], [Traffic((0, Engine.LOAD), (100,), (0,)),
                                Traffic((0, Engine.STORE), (200,), (0,))]) == [[20], [30]]  # fmt: skip


def test_what_a_limited_flow_leaves_goes_to_the_others() -> None:
    # Resource 1 holds the first to 2; the second gets the other 8.
    assert stop_times(1, [10, 2], [Traffic((0, Engine.LOAD), (20,), (0, 1)),
                                   Traffic((0, Engine.STORE), (80,), (0,))]) == [[10], [10]]  # fmt: skip


def test_a_third_flow_comes_and_goes() -> None:
    # Until 10: three flows at 4. Both loads end; core 0 starts another.
    times = stop_times(2, [12], [Traffic((0, Engine.LOAD), (40, 40), (0,)), Traffic((0, Engine.STORE), (100,), (0,)),
                                 Traffic((1, Engine.LOAD), (40,), (0,))])  # fmt: skip
    # From 10: two flows at 6, 40 and 60 bytes: the load ends at 10 + 40/6, then 20 bytes at 12.
    assert times[0] == pytest.approx([10, 10 + 40 / 6])
    assert times[1] == pytest.approx([10 + 40 / 6 + 20 / 12])
    assert times[2] == pytest.approx([10])


def test_a_chain_of_bottlenecks() -> None:
    # Resource 0 (6) carries a and b, resource 1 (10) carries b and c: a = b = 3, c = 7.
    times = stop_times(2, [6, 10], [Traffic((0, Engine.LOAD), (30,), (0,)), Traffic((0, Engine.STORE), (30,), (0, 1)),
                                    Traffic((1, Engine.LOAD), (70,), (1,))])  # fmt: skip
    assert times == [[10], [10], [10]]


def test_empty_paths_are_refused() -> None:
    with pytest.raises(NpuError, match="path 0 crosses nothing"):
        stop_times(1, [1], [Traffic((0, Engine.LOAD), (1,), ())])


def test_a_resource_named_twice_on_a_path_is_crossed_once() -> None:
    assert stop_times(1, [10], [Traffic((0, Engine.LOAD), (100,), (0,) * 50),
                                Traffic((0, Engine.STORE), (200,), (0, 0))]) == [[20], [30]]  # fmt: skip


def fair_rates(capacities: Sequence[Fraction], paths: Sequence[Sequence[int]]) -> list[Fraction]:
    """Max-min by its definition: raise all rates together, freeze those that a full resource holds back."""
    rates = [Fraction(0)] * len(paths)
    growing = set(range(len(paths)))
    while growing:
        spare = {resource: capacities[resource] - sum(rates[f] for f, path in enumerate(paths) if resource in path)
                 for f in growing for resource in paths[f]}  # fmt: skip
        step = min(room / sum(1 for f in growing if resource in paths[f]) for resource, room in spare.items())
        for flow in growing:
            rates[flow] += step
        used = {resource: sum(rates[f] for f, path in enumerate(paths) if resource in path) for resource in spare}
        full = {resource for resource in spare if used[resource] == capacities[resource]}
        growing -= {flow for flow in growing if full & set(paths[flow])}
    return rates


def simulate(capacities: Sequence[float], traffic: Sequence[Traffic]) -> list[list[float]]:
    """Ends of all transfers, recomputing every rate from scratch at every end."""
    exact = [Fraction(value) for value in capacities]
    ends: list[list[float]] = [[] for _ in traffic]
    left = {index: Fraction(row.sizes[0]) for index, row in enumerate(traffic)}
    now = Fraction(0)
    while left:
        active = sorted(left)
        rates = fair_rates(exact, [traffic[index].resources for index in active])
        step = min(left[index] / rate for index, rate in zip(active, rates, strict=True))
        now += step
        for index, rate in zip(active, rates, strict=True):
            left[index] -= rate * step
            if left[index] == 0:
                del left[index]
                ends[index].append(float(now))
                if len(ends[index]) < len(traffic[index].sizes):
                    left[index] = Fraction(traffic[index].sizes[len(ends[index])])
    return ends


def random_traffic(rng: random.Random, cores: int, resources: int) -> list[Traffic]:
    rows = []
    for core in range(cores):
        for engine in (Engine.LOAD, Engine.STORE, Engine.NETWORK):
            crossed = tuple(rng.sample(range(resources), rng.randint(1, min(resources, 4))))
            sizes = tuple(rng.randint(1, 2000) for _ in range(rng.randint(1, 4)))
            destination = (core + 1) % cores if engine == Engine.NETWORK else DRAM_NODE
            rows.append(Traffic((core, engine), sizes, crossed, destination))
    return rng.sample(rows, rng.randint(1, len(rows)))


@pytest.mark.parametrize("seed", range(60))
def test_random_traffic_equals_the_definition(seed: int) -> None:
    rng = random.Random(seed)
    cores, resources = rng.randint(2, 5), rng.randint(1, 8)
    capacities = [rng.choice([1, 2, 2.5, 7, 10, 16, 33.25]) for _ in range(resources)]
    traffic = random_traffic(rng, cores, resources)
    got, expected = stop_times(cores, capacities, traffic), simulate(capacities, traffic)
    for times, reference in zip(got, expected, strict=True):
        assert times == pytest.approx(reference, rel=1e-9)


def filled_rates(capacities: Sequence[float], paths: Sequence[Sequence[int]]) -> list[float]:
    """Max-min by progressive filling, from nothing, in floats."""
    rates = [0.0] * len(paths)
    left, waiting = list(capacities), set(range(len(paths)))
    while waiting:
        users = Counter(resource for flow in waiting for resource in paths[flow])
        tightest = min(users, key=lambda resource: left[resource] / users[resource])
        share = left[tightest] / users[tightest]
        for flow in [flow for flow in waiting if tightest in paths[flow]]:
            rates[flow] = share
            waiting.discard(flow)
            for resource in paths[flow]:
                left[resource] -= share
    return rates


def simulate_in_floats(capacities: Sequence[float], traffic: Sequence[Traffic]) -> list[list[float]]:
    """As `simulate`, for more flows than fractions can bear."""
    ends: list[list[float]] = [[] for _ in traffic]
    left, now = {index: float(row.sizes[0]) for index, row in enumerate(traffic)}, 0.0
    while left:
        active = sorted(left)
        rates = filled_rates(capacities, [traffic[index].resources for index in active])
        step = min(left[index] / rate for index, rate in zip(active, rates, strict=True))
        now += step
        for index, rate in zip(active, rates, strict=True):
            left[index] -= rate * step
            if left[index] <= 1e-9 * rate:
                del left[index]
                ends[index].append(now)
                if len(ends[index]) < len(traffic[index].sizes):
                    left[index] = float(traffic[index].sizes[len(ends[index])])
    return ends


def crowd(rng: random.Random, cores: int, links: int) -> tuple[list[float], list[Traffic]]:
    """Many flows: all loads and stores cross resource 0, and one or another of its two ports; all cross some links."""
    capacities = [rng.uniform(5, 60), *(rng.uniform(3, 30) for _ in "12"), *(rng.uniform(2, 20) for _ in range(links))]
    traffic = []
    for core in range(cores):
        for engine in (Engine.LOAD, Engine.STORE, Engine.NETWORK):
            crossed = rng.sample(range(3, 3 + links), rng.randint(1, 3))
            memory = [] if engine == Engine.NETWORK else [0, rng.choice([1, 2])]
            sizes = tuple(rng.randint(1, 3000) for _ in range(rng.randint(1, 4)))
            destination = (core + 1) % cores if engine == Engine.NETWORK else DRAM_NODE
            traffic.append(Traffic((core, engine), sizes, (*memory, *crossed), destination))
    return capacities, traffic


@pytest.mark.parametrize(("seed", "cores", "links"), [*((seed, 8, 5 * (1 + seed % 5)) for seed in range(15)),
                                                      (15, 32, 40), (16, 32, 150)])  # fmt: skip
def test_crowds_equal_a_solution_from_nothing(seed: int, cores: int, links: int) -> None:
    """Few flows are solved again at each change: the rates are those of all of them solved."""
    capacities, traffic = crowd(random.Random(seed), cores, links)
    got, expected = stop_times(cores, capacities, traffic), simulate_in_floats(capacities, traffic)
    for times, reference in zip(got, expected, strict=True):
        assert times == pytest.approx(reference, rel=1e-9)


def stepped(capacities: Sequence[float], traffic: Sequence[Traffic]) -> list[float]:
    """The last end of each engine, when each resource hands out its bytes every ns, a byte to the flow served longest
    ago.
    """
    turns = list(range(len(traffic)))
    pending = [list(row.sizes) for row in traffic]
    left = [float(row.sizes[0]) for row in traffic]
    ends, now = [0.0] * len(traffic), 0.0
    while any(pending):
        credit = [float(capacity) for capacity in capacities]
        active = {index for index, rows in enumerate(pending) if rows}
        while active:
            for index in [turn for turn in turns if turn in active]:
                moved = min([1.0, left[index], *(credit[resource] for resource in traffic[index].resources)])
                for resource in traffic[index].resources:
                    credit[resource] -= moved
                left[index] -= moved
                if moved <= 1e-9:
                    active.discard(index)
                else:
                    turns.remove(index)
                    turns.append(index)
        now += 1
        for index, rows in enumerate(pending):
            if rows and left[index] <= 1e-9:
                rows.pop(0)
                ends[index] = now
                left[index] = float(rows[0]) if rows else 0.0
    return ends


@pytest.mark.parametrize("seed", range(8))
def test_a_cycle_stepped_network_stays_near(seed: int) -> None:
    """Byte by byte and cycle by cycle, as an arbiter serves them: within 3% and a few cycles of the fluid model."""
    rng = random.Random(1000 + seed)
    capacities = [rng.choice([8, 16, 20, 32]) for _ in range(4)]
    traffic = random_traffic(rng, 3, 4)
    fluid = [times[-1] for times in stop_times(3, capacities, traffic)]
    for index, (time, cycle) in enumerate(zip(fluid, stepped(capacities, traffic), strict=True)):
        assert cycle == pytest.approx(time, rel=0.03, abs=3 * len(traffic[index].sizes)), traffic[index]


def test_pruned_resources_change_nothing() -> None:
    """Most resources of a shipped machine never limit; with and without them the times are those of the definition."""
    records = machine_records(load_machine("ring4"))
    by_ends = {(row["source"], row["destination"]): row for row in records.paths}
    traffic = []
    for core in range(4):
        for place, ends in (((core, Engine.LOAD), (DRAM_NODE, core)), ((core, Engine.STORE), (core, DRAM_NODE)),
                            ((core, Engine.NETWORK), (core, (core + 2) % 4))):  # fmt: skip
            row = by_ends[ends]
            crossed = records.path_steps[row["first_step"] : row["first_step"] + row["step_count"]]
            traffic.append(Traffic(place, (1000 + 100 * core, 333), tuple(crossed), ends[1]))
    capacities = [row["bytes_per_ns"] for row in records.resources]
    got, expected = stop_times(4, capacities, traffic), simulate(capacities, traffic)
    for times, reference in zip(got, expected, strict=True):
        assert times == pytest.approx(reference, rel=1e-9)
