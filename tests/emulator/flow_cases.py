"""Random sets of transfers, on the emulator's clock and flit by flit."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from npu_backend.isa import Engine, Instruction
from npu_backend.machine import Bus, Crossbar, Link, LinkList, Mesh, Network, Ring, Torus
from npu_backend.network import MachineRecords, machine_records
from npu_backend.program import DRAM_NODE
from tests.emulator.flit_reference import (
    FLIT_BYTES,
    SPARE_FLITS,
    FlitNetwork,
    FlitTransfer,
    Hop,
    Turns,
    finish_times_ns,
)
from tests.emulator.replay import (
    CORE,
    SPM_BYTES,
    Spans,
    fill,
    load,
    load_multicast,
    replay_records,
    send,
    send_multicast,
    signal,
    store,
    wait,
)
from tests.emulator.replay import machine as equal_cores

# In bytes a ns: links 16, a core's loads and stores together 24, each DMA direction 32, DRAM 48. So all of them limit.
# Set-up, DRAM's latency and the links' are those of the shipped ring4 and mesh16.
_CORE = replace(CORE, dma_bytes_per_cycle=32, memory_gb_per_s=24)
SETUP_CYCLES = 100
_DRAM_GB_PER_S = 48
_COMMON: dict[str, Any] = {"cores_reach_each_other": True, "multicast": True, "clock_mhz": 1000, "hop_latency_ns": 5}
_NARROW: dict[str, Any] = {**_COMMON, "link_bytes_per_cycle": 16}
_PORTS: dict[str, Any] = {**_NARROW, "memory_port_gb_per_s": 25.6}

FEW_BYTES, MANY_BYTES = 256, 32768
_FEW_TRANSFERS, _MANY_TRANSFERS = 2, 16
_MULTICAST_SHARE, _MULTICAST_CORES = 0.2, (2, 3, 4)
_WINDOWS_NS = (0, 200, 1000)  # within which all transfers of a set are asked to start


def _links() -> tuple[Link, ...]:
    """Six cores at three switches in a row, DRAM at the outer ones, a narrow link across and one of one way."""
    pairs = [("core0", "west", 16), ("core1", "west", 16), ("core2", "middle", 16), ("core3", "middle", 16),
             ("core4", "east", 16), ("core5", "east", 16), ("west", "middle", 24), ("middle", "east", 24),
             ("dram", "west", 32), ("dram", "east", 20), ("core0", "core5", 8)]  # fmt: skip
    both_ways = tuple(Link(a, b, width) for a, b, width in pairs)
    return (*both_ways, Link("west", "east", 12, one_way=True))


# Cores and network of each topology.
NETWORKS: Mapping[str, tuple[int, Network]] = {
    "bus": (6, Bus(topology="bus", bytes_per_cycle=32, **_COMMON)),
    "crossbar": (6, Crossbar(topology="crossbar", **_NARROW)),
    "ring": (8, Ring(topology="ring", nodes=8, memory_nodes=(0, 4), **_PORTS)),
    "one-way ring": (6, Ring(topology="ring", one_way=True, nodes=6, memory_nodes=(0, 3), **_PORTS)),
    "mesh": (16, Mesh(topology="mesh", rows=4, columns=4, memory_nodes=(0, 15), **_PORTS)),
    "torus": (16, Torus(topology="torus", rows=4, columns=4, memory_nodes=(0, 10), **_PORTS)),
    "links": (6, LinkList(topology="links", links=_links(), **_COMMON)),
}


@dataclass(frozen=True)
class Task:
    """One transfer of a set."""

    engine: Engine  # load, store or network
    cores: tuple[int, ...]  # whose engine is at work; several load one multicast
    destinations: tuple[int, ...]  # DRAM_NODE, or the cores that get it; several for a multicast
    size_bytes: int
    delay_ns: int  # for which its engines wait before it

    @property
    def source(self) -> int:
        return DRAM_NODE if self.engine == Engine.LOAD else self.cores[0]

    @property
    def is_multicast(self) -> bool:
        return len(self.destinations) > 1


@dataclass(frozen=True)
class Physics:
    """What the reference assumes; by default the clock's order, in which the latency passes before the first byte."""

    turns: Turns = Turns.TRANSFERS
    flit_bytes: int = FLIT_BYTES
    spare_flits: int = SPARE_FLITS
    wires_hold_latency: bool = False  # flits take a path's latency link by link, others meet them on the way
    stores_are_posted: bool = False  # a store's data goes at once, and DRAM's latency passes after it


@dataclass(frozen=True)
class Comparison:
    """One transfer, in nanoseconds from its start (set-up and latency included)."""

    emulator_ns: float
    reference_ns: float
    lone_ns: float  # with the network to itself

    @property
    def signed_error(self) -> float:
        """Relative to the reference; negative where the emulator is faster."""
        return (self.emulator_ns - self.reference_ns) / self.reference_ns

    @property
    def stretch(self) -> float:
        """How much longer it takes than alone."""
        return self.reference_ns / self.lone_ns


@cache
def records_of(topology: str, setup_cycles: int = SETUP_CYCLES) -> MachineRecords:
    """Of the machine of a topology of `NETWORKS`."""
    cores, network = NETWORKS[topology]
    core = replace(_CORE, dma_setup_cycles=setup_cycles)
    return machine_records(equal_cores(cores, network, core, _DRAM_GB_PER_S))


def random_tasks(seed: int, cores: int, *, short: bool = False) -> list[Task]:
    """2 to 16 transfers, one an engine, a fifth of loads and sends multicasts; in half of the sets, all sends go to the
    same two or three cores.

    Sizes are uniform from 256 bytes to 32 KiB, or, for `short` ones, their logarithms are.
    """
    rng = random.Random(seed)
    window_ns = rng.choice(_WINDOWS_NS)
    goals = rng.sample(range(cores), 3) if rng.random() < 0.5 else range(cores)
    free = {(core, engine) for core in range(cores) for engine in (Engine.LOAD, Engine.STORE, Engine.NETWORK)}
    tasks: list[Task] = []
    for _ in range(rng.randint(_FEW_TRANSFERS, min(_MANY_TRANSFERS, len(free)))):
        if not free:
            break
        core, engine = rng.choice(sorted(free))
        others = sorted(one for one, kind in free if kind == engine and one != core)
        loaders, destinations = _members(rng, core, engine, others, goals)
        free -= {(one, engine) for one in loaders}
        tasks.append(Task(engine, loaders, destinations, _random_size(rng, short=short), rng.randint(0, window_ns)))
    return tasks


def _members(rng: random.Random, core: int, engine: Engine, free: Sequence[int],
             goals: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:  # fmt: skip
    """Cores whose engines work on it, and destinations."""
    wanted = rng.choice(_MULTICAST_CORES) if rng.random() < _MULTICAST_SHARE else 1
    if engine == Engine.STORE:
        return (core,), (DRAM_NODE,)
    if engine == Engine.LOAD:
        loaders = (core, *rng.sample(free, min(wanted - 1, len(free))))
        return loaders, loaders
    candidates = [goal for goal in goals if goal != core]
    return (core,), tuple(rng.sample(candidates, min(wanted, len(candidates))))


def _random_size(rng: random.Random, *, short: bool) -> int:
    if short:
        return round(math.exp(rng.uniform(math.log(FEW_BYTES), math.log(MANY_BYTES))))
    return rng.randint(FEW_BYTES, MANY_BYTES)


def compare_sets(topology: str, seeds: Sequence[int], physics: Physics = Physics(), *, short: bool = False,
                 setup_cycles: int = SETUP_CYCLES) -> list[Comparison]:  # fmt: skip
    """All transfers of the sets of these seeds."""
    cores, _ = NETWORKS[topology]
    sets = (random_tasks(seed, cores, short=short) for seed in seeds)
    return [row for tasks in sets for row in compare(records_of(topology, setup_cycles), tasks, physics)]


def compare(records: MachineRecords, tasks: Sequence[Task], physics: Physics = Physics()) -> list[Comparison]:
    """Every transfer on the emulator's clock and flit by flit, both from the times at which the emulator starts it."""
    _, spans = replay_records(records, _streams(tasks))
    starts, emulator = _measured(tasks, spans)
    flits = [_flits(records, task, start, physics) for task, start in zip(tasks, starts)]
    finishes = finish_times_ns(_flit_network(records, physics), [row.transfer for row in flits])
    reference = [finish + row.after_ns - start for row, finish, start in zip(flits, finishes, starts)]
    return [Comparison(*row) for row in zip(emulator, reference, (_lone_ns(records, task) for task in tasks))]


def _measured(tasks: Sequence[Task], spans: Spans) -> tuple[list[float], list[float]]:
    """When the emulator started each task, and how long it took."""
    rows = np.array([spans[task.cores[0], task.engine][-1] for task in tasks])
    return rows[:, 0].tolist(), (rows[:, 1] - rows[:, 0]).tolist()


def _streams(tasks: Sequence[Task]) -> dict[tuple[int, Engine], list[Instruction]]:
    """Each task's engines wait for a signal of their core's vector engine, which fills memory until it is time."""
    streams: defaultdict[tuple[int, Engine], list[Instruction]] = defaultdict(list)
    elapsed_ns: defaultdict[int, int] = defaultdict(int)
    members = sorted((task.delay_ns, group, core) for group, task in enumerate(tasks) for core in task.cores)
    for semaphore, (delay_ns, group, core) in enumerate(members):
        clock = streams[core, Engine.VECTOR]
        if delay_ns > elapsed_ns[core]:
            clock.append(fill((delay_ns - elapsed_ns[core]) * CORE.vector_lanes, output=SPM_BYTES // 2))
            elapsed_ns[core] = delay_ns
        clock.append(signal(semaphore))
        streams[core, tasks[group].engine] += [wait(semaphore), *_instructions(tasks[group], group)]
    return dict(streams)


def _instructions(task: Task, group: int) -> list[Instruction]:
    """Of one of its engines."""
    if task.engine == Engine.STORE:
        return [store(task.size_bytes)]
    if task.engine == Engine.LOAD:
        return [load_multicast(group, task.size_bytes) if task.is_multicast else load(task.size_bytes)]
    if task.is_multicast:
        return send_multicast(group, task.size_bytes, *task.destinations)
    return [send(task.size_bytes, task.destinations[0])]


@dataclass(frozen=True)
class _Flits:
    """A task for the reference, and what passes after its last flit."""

    transfer: FlitTransfer
    after_ns: float


def _flit_network(records: MachineRecords, physics: Physics) -> FlitNetwork:
    bandwidths = tuple(row["bytes_per_ns"] for row in records.resources)
    return FlitNetwork(bandwidths, physics.flit_bytes, physics.spare_flits, physics.turns)


def _flits(records: MachineRecords, task: Task, start_ns: float, physics: Physics) -> _Flits:
    routes = _routes(records, task)
    paths = tuple(route.hops(hold_latency=physics.wires_hold_latency) for route in routes)
    path_ns = max(route.latency_before_ns(physics.flit_bytes) for route in routes)
    dram_ns = 0 if task.engine == Engine.NETWORK else records.machine["dram_latency_ns"]
    before_ns = start_ns + _setup_ns(records, task) + (0 if physics.wires_hold_latency else path_ns)
    after_ns = 0.0
    if task.engine == Engine.STORE and physics.stores_are_posted:
        after_ns = dram_ns
    else:
        before_ns += dram_ns
    return _Flits(FlitTransfer(before_ns, _bytes_moved(records, task), paths), after_ns)


def _lone_ns(records: MachineRecords, task: Task) -> float:
    routes = _routes(records, task)
    slowest = min(records.resources[step]["bytes_per_ns"] for route in routes for step in route.steps)
    dram_ns = 0 if task.engine == Engine.NETWORK else records.machine["dram_latency_ns"]
    latency_ns = _setup_ns(records, task) + dram_ns + max(route.latency_ns for route in routes)
    return float(latency_ns + _bytes_moved(records, task) / slowest)


def _setup_ns(records: MachineRecords, task: Task) -> float:
    core = records.cores[task.cores[0]]
    return float(core["dma_setup_cycles"] * 1000 / core["clock_mhz"])


def _bytes_moved(records: MachineRecords, task: Task) -> int:
    """DRAM moves whole bursts."""
    burst = 1 if task.engine == Engine.NETWORK else int(records.machine["burst_bytes"])
    return -(-task.size_bytes // burst) * burst


@dataclass(frozen=True)
class _Route:
    """Resources in order, the network's links among them, and the latency of all of these together."""

    steps: tuple[int, ...]
    links: frozenset[int]
    latency_ns: float
    ns_per_byte: float  # on all links, one after the other

    def latency_before_ns(self, flit_bytes: int) -> float:
        """What passes before a flit sets out, when the links themselves take a slot each of the latency."""
        return max(0.0, self.latency_ns - self.ns_per_byte * flit_bytes)

    def hops(self, *, hold_latency: bool) -> tuple[Hop, ...]:
        hop_ns = self.latency_ns / len(self.links) if hold_latency and self.links else 0
        return tuple(Hop(step, hop_ns if step in self.links else 0) for step in self.steps)


def _routes(records: MachineRecords, task: Task) -> list[_Route]:
    """One for each destination."""
    return [_route(records, task.source, destination) for destination in task.destinations]


def _route(records: MachineRecords, source: int, destination: int) -> _Route:
    path = next(row for row in records.paths if (row["source"], row["destination"]) == (source, destination))
    steps = tuple(records.path_steps[path["first_step"] : path["first_step"] + path["step_count"]])
    links = frozenset(step for step in steps if records.resources[step]["is_link"])
    ns_per_byte = sum(1 / records.resources[step]["bytes_per_ns"] for step in links)
    return _Route(steps, links, float(path["latency_ns"]), ns_per_byte)
