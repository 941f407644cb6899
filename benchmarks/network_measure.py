"""The on-chip network's cases: machines and strategies that differ in one thing, each compiled and put on the clock.

`python -m benchmarks.network_measure MODEL` measures one case in a process of its own, JSON on standard output: its
peak of memory is then the compiler's.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from benchmarks.measure import peak_rss_bytes
from npu_backend import compile_graph, load_machine, strategy_named
from npu_backend.errors import NpuError
from npu_backend.machine_types import Machine
from npu_backend.network_types import Bus, Crossbar, Mesh
from npu_backend.program import Program
from npu_backend.report.figures import Figures, TimedProgram, figures, plan_name
from npu_backend.runtime import Emulator, Timing
from npu_backend.strategies import Strategy
from tvm_ext.bench.measure import Imported, import_file

SCALED = "mesh64"
FIXED, GROWN = "DRAM fixed", "DRAM grown"
ALL, NAIVE, THROUGH_DRAM, UNICAST = "as it is", "naive order", "through DRAM", "no multicast"
PARTS = ("scaling", "order", "links", "multicast", "compile")
# What each comparison changes in the machine or the strategy.
COMPARED: Mapping[str, str] = {"order": NAIVE, "links": THROUGH_DRAM, "multicast": UNICAST}
CORES = (1, 2, 4, 8, 16, 64)
COMPILE_CASES: Sequence[tuple[str, int]] = (
    *(("mobilenet_v2", cores) for cores in (4, 8, 16, 64)), *(("inception_v3", cores) for cores in (4, 16, 64)),
)  # fmt: skip
REPLAYS = 5


def _mesh16(change: Callable[[Machine, Mesh], Machine]) -> Machine:
    machine = load_machine("mesh16")
    assert isinstance(machine.network, Mesh)
    return change(machine, machine.network)


def _common(network: Mesh) -> dict[str, Any]:
    return {"cores_reach_each_other": True, "multicast": True, "clock_mhz": network.clock_mhz,
            "hop_latency_ns": network.hop_latency_ns}  # fmt: skip


def _bus16(machine: Machine, network: Mesh) -> Machine:
    """mesh16's cores on one medium as wide as the mesh between its halves."""
    width = network.rows * network.link_bytes_per_cycle
    return replace(machine, name="bus16", network=Bus(topology="bus", bytes_per_cycle=width, **_common(network)))


def _crossbar16(machine: Machine, network: Mesh) -> Machine:
    """mesh16's cores at one switch by links as wide as the mesh's."""
    links = Crossbar(topology="crossbar", link_bytes_per_cycle=network.link_bytes_per_cycle, **_common(network))
    return replace(machine, name="crossbar16", network=links)


TOPOLOGIES: Mapping[str, Callable[[], Machine]] = {
    "exynos2200": lambda: load_machine("exynos2200"),
    "ring4": lambda: load_machine("ring4"),
    "bus16": lambda: _mesh16(_bus16),
    "crossbar16": lambda: _mesh16(_crossbar16),
    "mesh16": lambda: load_machine("mesh16"),
    "torus16": lambda: load_machine("torus16"),
}


@dataclass(frozen=True)
class NetworkCase:
    """A network on `cores` cores of a machine, in one variant; `alone` in a process of its own."""

    model: str
    machine: str
    cores: int
    variant: str
    alone: bool = False


def cases(model: str, parts: Sequence[str], cores: Sequence[int]) -> list[NetworkCase]:
    """What the parts need of a network, each once."""
    return list(dict.fromkeys(_cases(model, parts, cores)))


def _cases(model: str, parts: Sequence[str], cores: Sequence[int]) -> Iterator[NetworkCase]:
    if "scaling" in parts:
        yield from (NetworkCase(model, SCALED, count, variant) for variant in (FIXED, GROWN) for count in cores)
    for name, make in TOPOLOGIES.items() if set(parts) & set(COMPARED) else ():
        machine = make()
        yield NetworkCase(model, name, len(machine.cores), ALL)
        for part in (part for part in COMPARED if part in parts):
            if part != "multicast" or machine.network.multicast:
                yield NetworkCase(model, name, len(machine.cores), COMPARED[part])
    if "compile" in parts:
        yield from (NetworkCase(model, SCALED, count, FIXED, alone=True)
                    for name, count in COMPILE_CASES if name == model and count in cores)  # fmt: skip


def machine_of(case: NetworkCase) -> Machine:
    """The machine of a case.

    Grown DRAM has the share of mesh64's bandwidth that the cores have of its number; the memory ports stay, because the
    first cores share fewer of them.
    """
    if case.machine == SCALED:
        machine = load_machine(SCALED)
        share = case.cores / len(machine.cores) if case.variant == GROWN else 1.0
        dram = replace(machine.dram, bandwidth_gb_per_s=machine.dram.bandwidth_gb_per_s * share)
        return replace(machine, dram=dram).take(case.cores)
    machine = TOPOLOGIES[case.machine]()
    network = machine.network
    if case.variant == THROUGH_DRAM:
        network = replace(network, cores_reach_each_other=False)
    if case.variant == UNICAST:
        network = replace(network, multicast=False)
    return replace(machine, network=network)


def strategy_of(case: NetworkCase, name: str) -> Strategy:
    """The named strategy, transfers in the program's order for that variant."""
    changed: dict[str, Any] = {"scheduled": False} if case.variant == NAIVE else {}
    return replace(strategy_named(name), **changed)


@dataclass(frozen=True)
class NetworkRow:
    """What a case took; `error` where it could not be compiled, the figures are then 0.

    `cores_reason` says why cores are idle. `compile_seconds` leave the front end out; `peak_rss_bytes` is that of a
    process that does nothing else, and `event_ns` the host's time an event of the emulator's replay: 0 in cases that
    do not run alone.
    """

    model: str
    machine: str
    cores: int
    variant: str
    alone: bool
    strategy: str
    plan: str = ""
    latency_us: float = 0.0
    lower_bound_us: float = 0.0
    dram_bytes: int = 0
    noc_bytes: int = 0
    cores_used: int = 0
    cores_reason: str = ""
    compile_seconds: float = 0.0
    peak_rss_bytes: int = 0
    instructions: int = 0
    events: int = 0
    event_ns: float = 0.0
    error: str = ""

    @property
    def case(self) -> NetworkCase:
        """The case it is the row of."""
        return NetworkCase(self.model, self.machine, self.cores, self.variant, self.alone)


def measure(imported: Imported, case: NetworkCase, strategy: str) -> NetworkRow:
    """The row of a case; what the compiler refuses is told in the row."""
    row, machine = NetworkRow(**asdict(case), strategy=strategy), machine_of(case)
    try:
        start = time.perf_counter()
        programs = [compile_graph(graph, machine, strategy_of(case, strategy)) for graph in imported.graphs]
        seconds = time.perf_counter() - start
    except NpuError as error:
        return replace(row, error=str(error))
    peak = peak_rss_bytes() if case.alone else 0
    timings, event_ns, instructions = _replays(programs, REPLAYS if case.alone else 0)
    timed = [TimedProgram(program, timing) for program, timing in zip(programs, timings)]
    found = figures(timed, case.cores, imported.io_bytes)
    return replace(
        _with_figures(row, found), plan=plan_name(timed, strategy), compile_seconds=seconds, peak_rss_bytes=peak,
        instructions=instructions, events=sum(timing.events for timing in timings), event_ns=event_ns,
    )  # fmt: skip


def _with_figures(row: NetworkRow, found: Figures) -> NetworkRow:
    return replace(row, latency_us=found.latency_us, lower_bound_us=found.lower_bound_us, dram_bytes=found.dram_bytes,
                   noc_bytes=found.noc_bytes, cores_used=found.cores_used, cores_reason=found.cores_reason)  # fmt: skip


def _replays(programs: Sequence[Program], repeats: int) -> tuple[list[Timing], float, int]:
    """Each program's timing, the median host time an event over further replays without spans, and instructions."""
    timings, nanoseconds, instructions = [], 0.0, 0
    for program in programs:
        with Emulator(program.to_bytes()) as emulator:
            timings.append(emulator.time(spans=True))
            instructions += emulator.instruction_count
            nanoseconds += statistics.median([_seconds(emulator) for _ in range(repeats)] or [0.0]) * 1e9
    return timings, nanoseconds / max(1, sum(timing.events for timing in timings)), instructions


def _seconds(emulator: Emulator) -> float:
    start = time.perf_counter()
    emulator.time()
    return time.perf_counter() - start


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--case", "case_json", required=True)
@click.option("--strategy", required=True)
def main(model: Path, case_json: str, strategy: str) -> None:
    """Measure a case of the ONNX file MODEL."""
    imported = import_file(model, computes_float=False)
    print(json.dumps(asdict(measure(imported, NetworkCase(**json.loads(case_json)), strategy))))


if __name__ == "__main__":
    main()
