"""From an ONNX file to a package, and a package run by TVM's virtual machine.

TVM is imported on first use: it takes longer than compiling a small model.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from npu_backend.errors import InputError, ModelError, ProgramError, UnsupportedError
from npu_backend.graph import Graph
from npu_backend.machine_types import Machine
from npu_backend.program import Program
from npu_backend.toolchain import emulator_object
from tvm_ext.generation import Built, front_end, host, host_name
from tvm_ext.host_only import on_host
from tvm_ext.onnx_cleanup import clean
from tvm_ext.onnx_empty import without_empty
from tvm_ext.onnx_load import Shapes, input_infos, load_model, tensor_info
from tvm_ext.onnx_refused import check_model
from tvm_ext.package import LIBRARY, SEQUENCE, Metadata, Package, TensorInfo, read_package, write_package
from tvm_ext.parts import Partitioned

Array = npt.NDArray[Any]
CompileGraph = Callable[[Graph], bytes]
THREADS_VARIABLE = "NPU_THREADS"


@dataclass(frozen=True)
class CompiledModel:
    """A package in memory, the NPU graphs it was made of by symbol, and the seconds of each stage.

    `stage_seconds` leaves importing TVM out, which is under ``import_tvm_seconds``.
    """

    package: Package
    graphs: Mapping[str, Graph]
    stage_seconds: Mapping[str, float]
    import_tvm_seconds: float

    def save(self, path: str | Path) -> None:
        """Writes the package whole or not at all; raises OutputError."""
        write_package(self.package, path)


@dataclass(frozen=True)
class FrontEnd:
    """A model imported and partitioned, before any graph is compiled.

    `inputs` and `outputs` are the model's own; what has no elements is not in `model`, nor passed to what is compiled.
    """

    model: onnx.ModelProto
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    partitioned: Partitioned
    stage_seconds: Mapping[str, float]
    import_tvm_seconds: float


def import_model(
    path: str | Path,
    shapes: Shapes | None = None,
    *,
    computes_float: bool = False,
    kernel_spm_bytes: int | None = None,
) -> FrontEnd:
    """Loads, cleans, imports and partitions a model, for a machine that computes in float16 or does not.

    `kernel_spm_bytes`: the machine's smallest scratchpad, if its vector processors are to run kernels.
    Raises ModelError for a file that is no valid model or lacks static shapes, UnsupportedError for an operator that
    TVM refuses.
    """
    return import_loaded(
        lambda: load_model(path, shapes), computes_float=computes_float, kernel_spm_bytes=kernel_spm_bytes
    )


def front_end_options(machine: Machine, *, kernels: bool = True) -> dict[str, Any]:
    """What `import_model` is to know of a machine, whose vector processors run `kernels` or do not."""
    spm_bytes = min(core.spm_bytes for core in machine.cores) if kernels else None
    return {"computes_float": machine.computes_float, "kernel_spm_bytes": spm_bytes}


def import_loaded(
    load: Callable[[], onnx.ModelProto], *, computes_float: bool = False, kernel_spm_bytes: int | None = None
) -> FrontEnd:
    """`import_model` of what `load` gives: a valid model whose input shapes are static."""
    clock = _Clock()
    with clock.stage("clean"):
        loaded = load()
        check_model(loaded)
    try:
        return _partitioned(loaded, clock, computes_float, kernel_spm_bytes)
    except (ModelError, UnsupportedError) as refusal:
        with clock.stage("partition"):
            partitioned = on_host(loaded, refusal)
        if partitioned is None:
            raise
    names = (value.name for value in loaded.graph.output)
    outputs = tuple(TensorInfo(name, *described) for name, described in zip(names, partitioned.outputs))
    tvm_seconds = clock.seconds.pop("import_tvm", 0.0)
    return FrontEnd(loaded, input_infos(loaded), outputs, partitioned, clock.seconds, tvm_seconds)


def _partitioned(
    loaded: onnx.ModelProto, clock: _Clock, computes_float: bool, kernel_spm_bytes: int | None
) -> FrontEnd:
    with clock.stage("clean"):
        cleaned = clean(loaded)
        model = without_empty(cleaned)
    with clock.stage("import_tvm"):
        partition = front_end().partition
    with clock.stage("partition"):
        partitioned = partition(model, computes_float=computes_float, kernel_spm_bytes=kernel_spm_bytes)
    tvm_seconds = clock.seconds.pop("import_tvm")
    outputs = _tensors_out(cleaned, model, partitioned.outputs)
    return FrontEnd(model, input_infos(cleaned), outputs, partitioned, clock.seconds, tvm_seconds)


def compile_model(
    path: str | Path,
    *,
    machine: str,
    cores: int,
    strategy: str,
    shapes: Shapes | None = None,
    computes_float: bool = False,
    kernel_spm_bytes: int | None = None,
    compile_graph: CompileGraph,
) -> CompiledModel:
    """Compiles a model; `compile_graph` makes a program file of each partition's graph.

    `machine`, `cores` and `strategy` are only recorded: `compile_graph` knows them. Raises what `import_model` and
    `compile_graph` raise, and ToolchainError without a compiler.
    """
    front = import_model(path, shapes, computes_float=computes_float, kernel_spm_bytes=kernel_spm_bytes)
    return compile_imported(front, machine=machine, cores=cores, strategy=strategy, compile_graph=compile_graph)


def compile_imported(
    front: FrontEnd, *, machine: str, cores: int, strategy: str, compile_graph: CompileGraph
) -> CompiledModel:
    """The second half of `compile_model`."""
    from tvm_ext.carrier import build_carrier  # noqa: PLC0415

    clock, graphs = _Clock(), front.partitioned.graphs
    with clock.stage("programs"):
        programs = {symbol: compile_graph(graph) for symbol, graph in graphs.items()}
    if programs:
        # Built once per user and version: no part of compiling a model.
        emulator_object()
    with tempfile.TemporaryDirectory(prefix="npu_package.") as name:
        folder = Path(name)
        with clock.stage("carrier"):
            carrier = build_carrier(programs, folder, kernels_in(graphs, programs)) if programs else None
        with clock.stage("host"):
            built = host().build(front.partitioned.module, carrier, list(programs), folder / LIBRARY)
            library = (folder / LIBRARY).read_bytes()
    seconds = {**front.stage_seconds, **clock.seconds}
    metadata = metadata_of(front, machine=machine, cores=cores, strategy=strategy, seconds=sum(seconds.values()))
    package = Package(metadata, library, built.executor, built.parameters, programs)
    return CompiledModel(package, graphs, seconds, front.import_tvm_seconds)


def kernels_in(graphs: Mapping[str, Graph], programs: Mapping[str, bytes]) -> tuple[str, ...]:
    """The symbols of the kernels that programs call."""
    having = (symbol for symbol, graph in graphs.items() if any(op.kind == "kernel" for op in graph.ops))
    return tuple(dict.fromkeys(name for each in having for name in Program.from_bytes(programs[each]).kernels))


def metadata_of(front: FrontEnd, *, machine: str, cores: int, strategy: str, seconds: float) -> Metadata:
    """What a package says of a model that was compiled in so many seconds."""
    return Metadata(
        model=front.model.graph.name, machine=machine, cores=cores, strategy=strategy, host=host_name(),
        inputs=front.inputs, outputs=front.outputs,
        npu_ops=front.partitioned.npu_ops, host_ops=front.partitioned.host_ops, compile_seconds=round(seconds, 6),
    )  # fmt: skip


class PackageRunner:
    """A package loaded into TVM's virtual machine; use it as a context manager."""

    def __init__(self, package: Package) -> None:
        """Raises ProgramError for a package of another processor or system."""
        if package.metadata.host != host_name():
            raise ProgramError(f"the package's library is for {package.metadata.host}, this machine is {host_name()};"
                               " compile the model here")  # fmt: skip
        self._metadata = package.metadata
        self._folder = tempfile.TemporaryDirectory(prefix="npu_run.")
        library = Path(self._folder.name) / LIBRARY
        library.write_bytes(package.library)
        self._main = host().open_library(library, Built(package.executor, package.parameters))

    def run(self, inputs: Mapping[str, Array], threads: int = 1) -> dict[str, Array]:
        """Outputs by name. Raises InputError for a wrong name, shape or data type."""
        arrays = [array for array in _check_inputs(self._metadata.inputs, inputs) if np.size(array)]
        with _threads(threads):
            results = self._main(arrays)
        if [info.dtype for info in self._metadata.outputs] == [SEQUENCE]:
            values: list[Any] = [results]
        else:
            values = results
        computed = [info for info in self._metadata.outputs if 0 not in info.shape]
        named = {info.name: value for info, value in zip(computed, values, strict=True)}
        return {
            info.name: named[info.name] if info.name in named else np.zeros(info.shape, info.dtype)
            for info in self._metadata.outputs
        }

    def __enter__(self) -> PackageRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def run_package(path: str | Path, inputs: Mapping[str, Array], threads: int = 1) -> dict[str, Array]:
    """Runs a package once; raises ProgramError for a package that is none, InputError for inputs that do not fit."""
    with PackageRunner(read_package(path)) as runner:
        return runner.run(inputs, threads)


def _check_inputs(infos: tuple[TensorInfo, ...], inputs: Mapping[str, Array]) -> Iterator[Array]:
    names = ", ".join(info.name for info in infos)
    for name in inputs:
        if name not in {info.name for info in infos}:
            raise InputError(f"the model has no input {name!r}; its inputs: {names}")
    for info in infos:
        if info.name not in inputs:
            raise InputError(f"input {info.name!r} is missing; the model's inputs: {names}")
        if info.dtype == SEQUENCE:
            yield inputs[info.name]
            continue
        array = np.asarray(inputs[info.name])
        if array.dtype != info.dtype or array.shape != info.shape:
            raise InputError(f"input {info.name!r} is {array.dtype}{list(array.shape)}; the model takes"
                             f" {info.dtype}{list(info.shape)}")  # fmt: skip
        yield np.asarray(array, order="C")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """The library reads its thread count from the environment, as it does in a plain script."""
    before = os.environ.get(THREADS_VARIABLE)
    os.environ[THREADS_VARIABLE] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS_VARIABLE]
        else:
            os.environ[THREADS_VARIABLE] = before


def _tensors_out(
    cleaned: onnx.ModelProto, model: onnx.ModelProto, described: Sequence[tuple[tuple[int, ...], str]]
) -> tuple[TensorInfo, ...]:
    """The outputs of `cleaned`: what TVM says of those in `model`, and those without elements as they are declared."""
    names = (value.name for value in model.graph.output)
    known = {name: TensorInfo(name, shape, dtype) for name, (shape, dtype) in zip(names, described, strict=True)}
    return tuple(known.get(value.name) or tensor_info(value) for value in cleaned.graph.output)


class _Clock:
    """Seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds up what the block takes."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
