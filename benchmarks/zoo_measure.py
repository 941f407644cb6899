"""Measures one model of others in a process of its own: `python -m benchmarks.zoo_measure`, JSON on standard output."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from models.zoo import FORMS, write_model, zoo_model
from npu_backend import compile_graph, load_machine, strategy_named
from npu_backend.errors import NpuError
from npu_backend.graph import Graph
from npu_backend.machine_types import Machine
from npu_backend.runtime import Emulator
from tvm_ext.accuracy import Accuracy
from tvm_ext.driver import CompiledModel, PackageRunner, compile_imported, import_model
from tvm_ext.onnx_runtime import import_onnx_runtime, refusals, run_session, session_of

STRATEGY = "halo"
PURPOSE = "the benchmark"
MINIMUM_ROUNDS = 3

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ZooRow:
    """One model in one form; `cosine` and `max_relative` are those of the worst output against ONNX Runtime.

    Milliseconds are medians over `rounds` on one thread, `ratio` the median of their quotients. `error` stands alone
    where the model could not be brought into the form, compiled or run.
    """

    model: str
    form: str
    error: str | None = None
    host_ops: int = 0
    programs: int = 0
    elements: int = 0
    mismatches: int = 0
    cosine: float | None = None
    max_relative: float | None = None
    compile_seconds: float = 0.0
    rounds: int = 0
    onnxruntime_ms: float = 0.0
    run_ms: float = 0.0
    ratio: float = 0.0


def measure(name: str, form: str, machine: Machine, seconds: float) -> ZooRow:
    """The row of one model on all cores of `machine`, at its full shapes, for about `seconds`."""
    entry = zoo_model(name)
    with tempfile.TemporaryDirectory(prefix="npu_zoo.") as folder:
        path = Path(folder) / "model.onnx"
        write_model(entry, form, entry.shapes, path)
        front = import_model(path, entry.shapes, computes_float=machine.computes_float)
        # Exact on every processor for the values, as fast as this one allows for the time.
        exact, fast = (session_of(path.read_bytes(), PURPOSE, saturating=saturating) for saturating in (False, True))
    start = time.perf_counter()
    compiled = compile_imported(front, machine=machine.name, cores=len(machine.cores), strategy=STRATEGY,
                                compile_graph=partial(_program, machine))  # fmt: skip
    row = ZooRow(name, form, host_ops=len(front.partitioned.host_ops), programs=len(compiled.graphs),
                 compile_seconds=time.perf_counter() - start)  # fmt: skip
    feed = entry.feed(entry.shapes)
    with _runner(compiled) as run:
        compared = _compared(run(feed), run_session(exact, feed))
        timed = _timed(partial(run, feed), partial(run_session, fast, feed), seconds)
    return replace(row, **compared, **timed)


@contextmanager
def _runner(compiled: CompiledModel) -> Iterator[Callable[[Arrays], Arrays]]:
    """The emulator itself where the NPU runs all; the package, whose library is another one each time, otherwise."""
    programs = list(compiled.package.programs.values())
    if len(programs) == 1 and not compiled.package.metadata.host_ops:
        with Emulator(programs[0]) as emulator:
            yield emulator.run
    else:
        with PackageRunner(compiled.package) as runner:
            yield runner.run


def _program(machine: Machine, graph: Graph) -> bytes:
    return compile_graph(graph, machine, strategy_named(STRATEGY)).to_bytes()


def _compared(outputs: Arrays, expected: Arrays) -> dict[str, Any]:
    accuracies = []
    for name, wanted in expected.items():
        accuracies.append(Accuracy())
        accuracies[-1].add(wanted, outputs[name])
    cosines = [each.cosine for each in accuracies if each.cosine is not None]
    errors = [each.max_relative for each in accuracies if each.max_relative is not None]
    return {
        "elements": sum(wanted.size for wanted in expected.values()),
        "mismatches": sum(int((outputs[name] != wanted).sum()) for name, wanted in expected.items()),
        "cosine": min(cosines) if len(cosines) == len(accuracies) else None,
        "max_relative": max(errors) if len(errors) == len(accuracies) else None,
    }


def _timed(emulate: Callable[[], object], reference: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Alternates the two, so that what disturbs the machine disturbs both."""
    rounds: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    while len(rounds) < MINIMUM_ROUNDS or time.perf_counter() < until:
        marks = [time.perf_counter()]
        for work in (emulate, reference):
            work()
            marks.append(time.perf_counter())
        rounds.append((marks[1] - marks[0], marks[2] - marks[1]))
    run, other = (statistics.median(column) * 1000 for column in zip(*rounds, strict=True))
    ratio = statistics.median(one / two for one, two in rounds)
    return {"rounds": len(rounds), "run_ms": run, "onnxruntime_ms": other, "ratio": ratio}


@click.command()
@click.argument("name")
@click.option("--form", type=click.Choice(FORMS), required=True)
@click.option("--machine", required=True)
@click.option("--seconds", type=float, required=True)
def main(name: str, form: str, machine: str, seconds: float) -> None:
    """Measure the model NAME in one form."""
    refused: tuple[type[Exception], ...] = (NpuError, *refusals(import_onnx_runtime(PURPOSE)))
    try:
        row = measure(name, form, load_machine(machine), seconds)
    except refused as error:
        row = ZooRow(name, form, error=f"{type(error).__name__}: {error}")
    print(json.dumps(asdict(row)))


if __name__ == "__main__":
    main()
