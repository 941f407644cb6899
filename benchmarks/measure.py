"""Measures one network in a process of its own: `python -m benchmarks.measure`, JSON on standard output."""

from __future__ import annotations

import json
import re
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import CoresRow, NetworkRow, ThreadsRow
from npu_backend import compile_graph, load_machine, strategy_named
from npu_backend.graph import Graph
from npu_backend.machine_types import Machine
from npu_backend.program import Program
from npu_backend.report.figures import Figures, TimedProgram, figures
from npu_backend.runtime import Emulator
from tvm_ext.driver import import_model

Arrays = dict[str, NDArray[Any]]
MINIMUM_ROUNDS = 3
# The pipeline repeats these and reports them when they are done.
FITTED = ("reside", "tile", "schedule", "place")
FITTING = f"{FITTED[0]} to {FITTED[-1]}"


@dataclass(frozen=True)
class Compiled:
    """A network's program, and the seconds of each pass; those that are tried until all fits count as one."""

    program: Program
    data: bytes
    stage_seconds: dict[str, float]

    @property
    def seconds(self) -> float:
        return sum(self.stage_seconds.values())


def measure(
    model: Path, name: str, machine: str, strategy: str, cores: Sequence[int], threads: Sequence[int], seconds: float
) -> NetworkRow:
    """The row of one quantised network that the NPU runs whole; repeats for `seconds` at each thread count.

    The last of `cores` is what the compile time, the peak memory and the speed on the host are taken with.
    """
    front = import_model(model)
    (graph,) = front.partitioned.graphs.values()
    compiled = compile_timed(graph, load_machine(machine).take(cores[-1]), strategy)
    inputs = _inputs(graph)
    with Emulator(compiled.data) as emulator:
        outputs = emulator.run(inputs)
        emulator.time()
        peak = peak_rss_bytes()
        # Only now: ONNX Runtime's memory is not the compiler's.
        speed = [_speed(emulator, inputs, _Reference(model, count), count, seconds) for count in threads]
    expected = _Reference(model, 1, exact=True).run(inputs)
    return NetworkRow(
        model=name,
        input_size=inputs[graph.inputs[0].host_name].shape[-1],
        elements=sum(array.size for array in outputs.values()),
        mismatches=sum(int(np.count_nonzero(outputs[key] != expected[key])) for key in outputs),
        import_tvm_seconds=front.import_tvm_seconds,
        import_seconds=sum(front.stage_seconds.values()),
        compile_seconds=compiled.seconds,
        stage_seconds=compiled.stage_seconds,
        peak_rss_bytes=peak,
        threads=tuple(speed),
        cores=tuple(_scaling(graph, load_machine(machine), strategy, cores, compiled)),
    )


def compile_timed(graph: Graph, machine: Machine, strategy: str) -> Compiled:
    """Compiles with a clock on every pass; serialising the program is the last one."""
    stages: dict[str, float] = {}
    last = time.perf_counter()

    def observe(name: str, _: object) -> None:
        nonlocal last
        now = time.perf_counter()
        stage = FITTING if name in FITTED else name
        stages[stage], last = stages.get(stage, 0.0) + now - last, now

    program = compile_graph(graph, machine, strategy_named(strategy), observe)
    data = program.to_bytes()
    observe("serialize", None)
    return Compiled(program, data, stages)


def peak_rss_bytes() -> int:
    """The most memory this process has had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would count what the parent held when it started this process.
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class _Reference:
    """ONNX Runtime's integer session, with all optimisations.

    `exact` holds on processors without VNNI too, whose kernels saturate otherwise, but slows those that have it down.
    """

    def __init__(self, model: Path, threads: int, *, exact: bool = False) -> None:
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        if exact:
            options.add_session_config_entry("session.x64quantprecision", "1")
        # Its idle threads would take the emulator's processors between runs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Arrays) -> Arrays:
        return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))


def _inputs(graph: Graph) -> Arrays:
    generator = np.random.default_rng(0)
    return {
        port.host_name: generator.normal(size=port.host_shape(graph.tensors[port.tensor])).astype(np.float32)
        for port in graph.inputs
    }


def _speed(emulator: Emulator, inputs: Arrays, reference: _Reference, threads: int, seconds: float) -> ThreadsRow:
    """Alternates the three, so that what disturbs the machine disturbs all of them."""
    rounds: list[tuple[float, float, float]] = []
    until = time.perf_counter() + seconds
    while len(rounds) < MINIMUM_ROUNDS or time.perf_counter() < until:
        marks = [time.perf_counter()]
        for work in (lambda: emulator.run(inputs, threads=threads), emulator.time, lambda: reference.run(inputs)):
            work()
            marks.append(time.perf_counter())
        rounds.append((marks[1] - marks[0], marks[2] - marks[1], marks[3] - marks[2]))
    run, timing, other = (statistics.median(column) * 1000 for column in zip(*rounds, strict=True))
    return ThreadsRow(
        threads=threads,
        rounds=len(rounds),
        onnxruntime_ms=other,
        run_ms=run,
        timing_ms=timing,
        emulate_ms=statistics.median(one[0] + one[1] for one in rounds) * 1000,
        ratio=statistics.median((one[0] + one[1]) / one[2] for one in rounds),
    )


def _scaling(graph: Graph, machine: Machine, strategy: str, cores: Sequence[int], largest: Compiled) -> list[CoresRow]:
    rows: list[CoresRow] = []
    for count in cores:
        compiled = largest if count == cores[-1] else compile_timed(graph, machine.take(count), strategy)
        with Emulator(compiled.data) as emulator:
            found = figures([TimedProgram(compiled.program, emulator.time(spans=True))], count)
            instructions = emulator.instruction_count
        one_core_us = rows[0].latency_us if rows else found.latency_us
        rows.append(_cores_row(count, found, one_core_us, instructions, compiled.seconds))
    return rows


def _cores_row(cores: int, found: Figures, one_core_us: float, instructions: int, seconds: float) -> CoresRow:
    return CoresRow(
        cores=cores,
        latency_us=found.latency_us,
        speed_up=one_core_us / found.latency_us,
        utilization=found.utilization,
        lower_bound_us=found.lower_bound_us,
        dram_bytes=found.dram_bytes,
        energy_uj=found.energy_uj,
        instructions=instructions,
        compile_seconds=seconds,
    )


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--name", required=True)
@click.option("--machine", required=True)
@click.option("--strategy", required=True)
@click.option("--cores", type=int, multiple=True, required=True)
@click.option("--threads", type=int, multiple=True, required=True)
@click.option("--seconds", type=float, required=True)
def main(
    model: Path,
    name: str,
    machine: str,
    strategy: str,
    cores: tuple[int, ...],
    threads: tuple[int, ...],
    seconds: float,
) -> None:
    """Measure the quantised network in the file MODEL."""
    print(json.dumps(asdict(measure(model, name, machine, strategy, cores, threads, seconds))))


if __name__ == "__main__":
    main()
