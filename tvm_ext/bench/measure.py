"""One model imported once; one case of it compiled and put on the emulator's clock."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from npu_backend.errors import ModelError
from npu_backend.graph import Graph
from npu_backend.machine_types import Machine
from npu_backend.ops import spec_of
from npu_backend.pipeline import compile_graph
from npu_backend.program import Program
from npu_backend.report.figures import TimedProgram, figures, plan_name
from npu_backend.runtime import Emulator
from npu_backend.strategies import Strategy
from tvm_ext.bench.rows import BenchRow
from tvm_ext.driver import import_model
from tvm_ext.package import TensorInfo


@dataclass(frozen=True)
class Imported:
    """A model's graphs for the NPU; `io_bytes` are those of its inputs and outputs, seconds leave importing TVM out."""

    graphs: tuple[Graph, ...]
    io_bytes: int
    import_seconds: float

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all graphs: what compiling and timing take grows with it."""
        return sum(spec_of(op).macs(graph, op) for graph in self.graphs for op in graph.ops)


@dataclass(frozen=True)
class Case:
    """A model to compile with a strategy for all cores of a machine."""

    model: str
    machine: Machine
    strategy: Strategy


def import_file(path: Path, *, computes_float: bool) -> Imported:
    """The graphs of an ONNX file; raises what `tvm_ext.driver.import_model` does, ModelError when there are none."""
    front = import_model(path, computes_float=computes_float)
    graphs = tuple(front.partitioned.graphs.values())
    if not graphs:
        raise ModelError(f"{path}: nothing of it runs on the NPU; npuc ops {path} says why")
    return Imported(graphs, _bytes((*front.inputs, *front.outputs)), sum(front.stage_seconds.values()))


def measure(imported: Imported, case: Case) -> BenchRow:
    """The row of a case; raises what `npu_backend.pipeline.compile_graph` does."""
    start = time.perf_counter()
    programs = [compile_graph(graph, case.machine, case.strategy) for graph in imported.graphs]
    seconds = time.perf_counter() - start
    timed = [_timed(program) for program in programs]
    found = figures(timed, len(case.machine.cores), imported.io_bytes)
    return BenchRow(
        model=case.model,
        machine=case.machine.name,
        cores=len(case.machine.cores),
        strategy=case.strategy.name,
        plan=plan_name(timed, case.strategy.name),
        cycles=found.cycles,
        latency_us=found.latency_us,
        lower_bound_us=found.lower_bound_us,
        macs=found.macs,
        macs_executed=found.macs_executed,
        dram_bytes=found.dram_bytes,
        noc_bytes=found.noc_bytes,
        spm_peak_bytes=found.spm_peak_bytes,
        energy_uj=found.energy_uj,
        compile_seconds=imported.import_seconds + seconds,
        per_core=found.per_core,
    )


def _timed(program: Program) -> TimedProgram:
    with Emulator(program.to_bytes()) as emulator:
        return TimedProgram(program, emulator.time(spans=True))


def _bytes(tensors: Iterable[TensorInfo]) -> int:
    return sum(prod(tensor.shape) * np.dtype(tensor.dtype).itemsize for tensor in tensors)
