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
from npu_backend.machine import Bus, Crossbar, Link, LinkList, Machine, Mesh, Network, Ring
from npu_backend.network import MachineRecords, machine_records
from npu_backend.program import DRAM_NODE
from tests.emulator.flit_reference import FlitNetwork, FlitTransfer, Hop, Turns, finish_times_ns
from tests.emulator.replay import CORE, SPM_BYTES, Spans, fill, load, replay_records, send, signal, store, wait
from tests.emulator.replay import machine as equal_cores

# In bytes a ns: links 16, a core's loads and stores together 24, each DMA direction 32, DRAM 48. So all of them limit.
_CORE = replace(CORE, dma_bytes_per_cycle=32, dma_setup_cycles=50, memory_gb_per_s=24)
_DRAM_GB_PER_S = 48
_COMMON: dict[str, Any] = {"cores_reach_each_other": True, "multicast": False, "clock_mhz": 1000, "hop_latency_ns": 5}
_NARROW: dict[str, Any] = {**_COMMON, "link_bytes_per_cycle": 16}
_PORTS: dict[str, Any] = {**_NARROW, "memory_port_gb_per_s": 25.6}

FEW_BYTES, MANY_BYTES = 256, 32768
_FEW_TRANSFERS, _MANY_TRANSFERS = 2, 16
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
    "mesh": (16, Mesh(topology="mesh", rows=4, columns=4, memory_nodes=(0, 15), **_PORTS)),
    "links": (6, LinkList(topology="links", links=_links(), **_COMMON)),
}


@dataclass(frozen=True)
class Task:
    """One transfer of a set."""

    engine: Engine  # load, store or network
    core: int
    other: int  # DRAM_NODE, or the core that is sent to
    size_bytes: int
    delay_ns: int  # for which its engine waits before it

    @property
    def ends(self) -> tuple[int, int]:
        """Source and destination."""
        return (self.other, self.core) if self.engine == Engine.LOAD else (self.core, self.other)


@dataclass(frozen=True)
class Physics:
    """What the reference assumes; by default the clock's order, in which the latency passes before the first byte."""

    turns: Turns = Turns.TRANSFERS
    spare_flits: int = 4
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
def machine_of(topology: str) -> Machine:
    """The machine of a topology of `NETWORKS`."""
    cores, network = NETWORKS[topology]
    return equal_cores(cores, network, _CORE, _DRAM_GB_PER_S)


@cache
def records_of(topology: str) -> MachineRecords:
    return machine_records(machine_of(topology))


def random_tasks(seed: int, cores: int, *, short: bool = False) -> list[Task]:
    """2 to 16 transfers, one an engine; in half of the sets all sends go to the same two cores.

    Sizes are uniform from 256 bytes to 32 KiB, or, for `short` ones, their logarithms are.
    """
    rng = random.Random(seed)
    window_ns = rng.choice(_WINDOWS_NS)
    goals = rng.sample(range(cores), 2) if rng.random() < 0.5 else range(cores)
    places = [(engine, core) for core in range(cores) for engine in (Engine.LOAD, Engine.STORE, Engine.NETWORK)]
    tasks = []
    for engine, core in rng.sample(places, rng.randint(_FEW_TRANSFERS, min(_MANY_TRANSFERS, len(places)))):
        other = rng.choice([goal for goal in goals if goal != core]) if engine == Engine.NETWORK else DRAM_NODE
        tasks.append(Task(engine, core, other, _random_size(rng, short=short), rng.randint(0, window_ns)))
    return tasks


def _random_size(rng: random.Random, *, short: bool) -> int:
    if short:
        return round(math.exp(rng.uniform(math.log(FEW_BYTES), math.log(MANY_BYTES))))
    return rng.randint(FEW_BYTES, MANY_BYTES)


def compare_sets(topology: str, seeds: Sequence[int], physics: Physics = Physics(), *,
                 short: bool = False) -> list[Comparison]:  # fmt: skip
    """All transfers of the sets of these seeds."""
    cores, _ = NETWORKS[topology]
    sets = (random_tasks(seed, cores, short=short) for seed in seeds)
    return [row for tasks in sets for row in compare(records_of(topology), tasks, physics)]


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
    rows = np.array([spans[task.core, task.engine][-1] for task in tasks])
    return rows[:, 0].tolist(), (rows[:, 1] - rows[:, 0]).tolist()


def _streams(tasks: Sequence[Task]) -> dict[tuple[int, Engine], list[Instruction]]:
    """Each task's engine waits for a signal of its core's vector engine, which fills memory until it is time."""
    streams: defaultdict[tuple[int, Engine], list[Instruction]] = defaultdict(list)
    elapsed_ns: defaultdict[int, int] = defaultdict(int)
    for number, task in sorted(enumerate(tasks), key=lambda row: row[1].delay_ns):
        clock = streams[task.core, Engine.VECTOR]
        pause_ns = task.delay_ns - elapsed_ns[task.core]
        if pause_ns > 0:
            clock.append(fill(pause_ns * CORE.vector_lanes, output=SPM_BYTES // 2))
            elapsed_ns[task.core] = task.delay_ns
        clock.append(signal(number))
        streams[task.core, task.engine] += [wait(number), _instruction(task)]
    return dict(streams)


def _instruction(task: Task) -> Instruction:
    if task.engine == Engine.NETWORK:
        return send(task.size_bytes, task.other)
    return (load if task.engine == Engine.LOAD else store)(task.size_bytes)


@dataclass(frozen=True)
class _Flits:
    """A task for the reference, and what passes after its last flit."""

    transfer: FlitTransfer
    after_ns: float


def _flit_network(records: MachineRecords, physics: Physics) -> FlitNetwork:
    bandwidths = tuple(row["bytes_per_ns"] for row in records.resources)
    return FlitNetwork(bandwidths, spare_flits=physics.spare_flits, turns=physics.turns)


def _flits(records: MachineRecords, task: Task, start_ns: float, physics: Physics) -> _Flits:
    steps, path_ns = _route(records, task)
    links = [step for step in steps if _is_link(records.resources[step]["name"])]
    hop_ns = path_ns / len(links) if physics.wires_hold_latency else 0
    path = tuple(Hop(step, hop_ns if step in links else 0) for step in steps)
    before_ns, after_ns = _setup_ns(records, task) + (0 if physics.wires_hold_latency else path_ns), 0.0
    if task.engine != Engine.NETWORK:
        dram_ns = records.machine["dram_latency_ns"]
        late = task.engine == Engine.STORE and physics.stores_are_posted
        before_ns, after_ns = (before_ns, dram_ns) if late else (before_ns + dram_ns, after_ns)
    return _Flits(FlitTransfer(start_ns + before_ns, _bytes_moved(records, task), (path,)), after_ns)


def _lone_ns(records: MachineRecords, task: Task) -> float:
    steps, path_ns = _route(records, task)
    slowest = min(records.resources[step]["bytes_per_ns"] for step in steps)
    dram_ns = 0 if task.engine == Engine.NETWORK else records.machine["dram_latency_ns"]
    return float(_setup_ns(records, task) + path_ns + dram_ns + _bytes_moved(records, task) / slowest)


def _setup_ns(records: MachineRecords, task: Task) -> float:
    core = records.cores[task.core]
    return float(core["dma_setup_cycles"] * 1000 / core["clock_mhz"])


def _bytes_moved(records: MachineRecords, task: Task) -> int:
    """DRAM moves whole bursts."""
    burst = 1 if task.engine == Engine.NETWORK else int(records.machine["burst_bytes"])
    return -(-task.size_bytes // burst) * burst


def _route(records: MachineRecords, task: Task) -> tuple[Sequence[int], float]:
    """Resources in order, and the latency of all links together."""
    path = next(row for row in records.paths if (row["source"], row["destination"]) == task.ends)
    return records.path_steps[path["first_step"] : path["first_step"] + path["step_count"]], float(path["latency_ns"])


def _is_link(name: str) -> bool:
    """Everything but DRAM, its ports and the cores' own."""
    own = (".memory", ".load", ".store", ".send", ".receive")
    return name != "dram" and not name.endswith(own) and not name.startswith("memory")
