"""A model compiled or a package read, ready to be timed and run."""

from __future__ import annotations

import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from npu_backend.graph import Graph
from npu_backend.machine_types import Machine
from npu_backend.pipeline import STAGES, compile_graph
from npu_backend.program import Program
from npu_backend.report.document import HostOperator
from npu_backend.report.figures import TimedProgram
from npu_backend.runtime import Emulator, Library
from npu_backend.strategies import strategy_named
from tvm_ext.cli.options import Plan
from tvm_ext.cli.talk import Step
from tvm_ext.driver import FrontEnd, compile_imported, import_model
from tvm_ext.onnx_load import model_inputs
from tvm_ext.package import LIBRARY, Package, read_package, vector_ops

PACKAGE_SUFFIX = ".tar"


@dataclass(frozen=True)
class Compiled:
    """A model's NPU programs by symbol and what a report says of it.

    `package` is None when only the programs were asked for, `graphs` is empty for a package that was read.
    `io_bytes`: the model's inputs and outputs. `npu_ops` counts ONNX nodes, `vector_ops` those of them that kernels
    compute.
    """

    name: str
    machine: str
    cores: int
    strategy: str
    programs: Mapping[str, bytes]
    npu_ops: int
    vector_ops: int
    host_ops: tuple[HostOperator, ...]
    io_bytes: int
    compile_seconds: float
    package: Package | None
    graphs: tuple[Graph, ...] = ()


@dataclass
class ProgramCompiler:
    """Makes program files of graphs by the plan, tells of every pass; `check` verifies every stage thoroughly."""

    plan: Plan
    step: Step
    check: bool = False
    seconds: float = field(default=0.0, init=False)

    def __call__(self, graph: Graph) -> bytes:
        start = time.perf_counter()

        def observe(name: str, _: object) -> None:
            done = STAGES.index(name) + 1
            if done < len(STAGES):
                self.step(f"{graph.name}: {STAGES[done]}", done / len(STAGES))

        self.step(f"{graph.name}: {STAGES[0]}", 0.0)
        data = compile_graph(graph, self.plan.machine, self.plan.strategy, observe, check=self.check).to_bytes()
        self.seconds += time.perf_counter() - start
        return data


def is_package(path: Path) -> bool:
    """Whether the file is, or calls itself, a package and no ONNX model."""
    return path.suffix == PACKAGE_SUFFIX or (path.is_file() and tarfile.is_tarfile(path))


def compile_file(path: Path, plan: Plan, step: Step, *, programs_only: bool = False, check: bool = False) -> Compiled:
    """Compiles an ONNX file; `programs_only` leaves out the library that runs it, `check` verifies every stage.

    Raises what `tvm_ext.driver.compile_model` does.
    """
    step("import", None)
    front = import_model(path, plan.shapes, **plan.front_end)
    compiler = ProgramCompiler(plan, step, check)
    if programs_only:
        return _programs_only(path, front, compiler)
    compiled = compile_imported(front, machine=plan.machine.name, cores=len(plan.machine.cores),
                                strategy=plan.strategy.name, compile_graph=compiler)  # fmt: skip
    package = replace(compiled.package, metadata=replace(compiled.package.metadata, model=path.stem))
    return replace(_of_package(package), graphs=tuple(compiled.graphs.values()))


def read_compiled(path: Path) -> Compiled:
    """A package. Raises ProgramError."""
    return _of_package(read_package(path))


def _programs_only(path: Path, front: FrontEnd, compiler: ProgramCompiler) -> Compiled:
    parts, plan = front.partitioned, compiler.plan
    programs = {symbol: compiler(graph) for symbol, graph in parts.graphs.items()}
    return Compiled(
        name=path.stem,
        machine=plan.machine.name,
        cores=len(plan.machine.cores),
        strategy=plan.strategy.name,
        programs=programs,
        npu_ops=len(parts.npu_ops),
        vector_ops=vector_ops(parts.npu_ops),
        host_ops=tuple(HostOperator(op.name, op.op, op.reason) for op in parts.host_ops),
        io_bytes=_front_bytes(front),
        compile_seconds=sum(front.stage_seconds.values()) + compiler.seconds,
        package=None,
        graphs=tuple(parts.graphs.values()),
    )


def _of_package(package: Package) -> Compiled:
    metadata = package.metadata
    return Compiled(
        name=metadata.model,
        machine=metadata.machine,
        cores=metadata.cores,
        strategy=metadata.strategy,
        programs=package.programs,
        npu_ops=len(metadata.npu_ops),
        vector_ops=vector_ops(metadata.npu_ops),
        host_ops=tuple(HostOperator(op.name, op.op, op.reason) for op in metadata.host_ops),
        io_bytes=sum(_size_bytes(tensor.shape, tensor.dtype) for tensor in (*metadata.inputs, *metadata.outputs)),
        compile_seconds=metadata.compile_seconds,
        package=package,
    )


def _front_bytes(front: FrontEnd) -> int:
    inputs = [value.type.tensor_type for value in model_inputs(front.model)]
    return sum(
        _size_bytes([dim.dim_value for dim in tensor.shape.dim], tensor_dtype_to_np_dtype(tensor.elem_type).name)
        for tensor in inputs
    ) + sum(_size_bytes(shape, dtype) for shape, dtype in front.partitioned.outputs)


def _size_bytes(shape: Sequence[int], dtype: str) -> int:
    return prod(shape) * np.dtype(dtype).itemsize


def layer_records(programs: Iterable[bytes]) -> list[Mapping[str, Any]]:
    """What `npu_backend.passes.emit` records of every layer."""
    return [layer for data in programs for layer in Program.from_bytes(data).metadata["layers"]]


@contextmanager
def emulator_of(package: Package | None) -> Iterator[Library | None]:
    """The emulator inside a package, so that no compiler is needed; None, this installation's, without one."""
    if package is None or not package.programs:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="npu_emulator.") as folder:
        path = Path(folder) / LIBRARY
        path.write_bytes(package.library)
        yield Library.from_path(path)


def time_programs(programs: Iterable[bytes], library: Library | None = None) -> tuple[TimedProgram, ...]:
    """Every program replayed on the machine's clock, with spans."""
    timed = []
    for data in programs:
        with Emulator(data, library=library) as emulator:
            timed.append(TimedProgram(Program.from_bytes(data), emulator.time(spans=True)))
    return tuple(timed)


def one_core_latency_us(graphs: Sequence[Graph], machine: Machine) -> float:
    """Latency of the graphs compiled for core 0 alone."""
    alone, single = machine.take(1), strategy_named("single")
    total_ns = 0.0
    for graph in graphs:
        with Emulator(compile_graph(graph, alone, single).to_bytes()) as emulator:
            total_ns += emulator.time().total_ns
    return total_ns / 1000
