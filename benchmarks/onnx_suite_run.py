"""Cases of ONNX's suite one after the other in a process of their own, which may crash or hang without harm."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import onnx

from benchmarks.onnx_cases import Case
from npu_backend.errors import NpuError

PASSED, FAILED, UNSUPPORTED, UNAVAILABLE = "passed", "failed", "unsupported", "not available"
NPU, TVM = "npu", "tvm"
ENGINE, VECTOR, HOST, MIXED, NOWHERE = "engine", "vector", "host", "mixed", "constant"
_DETAIL_CHARACTERS = 400


@dataclass(frozen=True)
class Result:
    """How a case went; `where` its operators ran, `kind` of a failure: its exception, ``crash`` or ``time limit``."""

    case: str
    status: str
    where: str = ""
    kind: str = ""
    detail: str = ""
    seconds: float = 0.0


def run_all(cases: Sequence[Case], side: str, *, workers: int, limit_seconds: float) -> Iterator[Result]:
    """The results as they come; no case takes longer than the limit, and none takes others down."""
    waiting = list(reversed(cases))
    pool = [_Worker(side) for _ in range(min(workers, len(cases)))]
    try:
        while waiting or any(worker.case for worker in pool):
            for worker in pool:
                if worker.case is None and waiting:
                    worker.give(waiting.pop())
            ready = multiprocessing.connection.wait([worker.connection for worker in pool if worker.case], 1.0)
            for worker in pool:
                result = worker.result(limit_seconds, is_ready=worker.connection in ready)
                if result is not None:
                    yield result
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    """A process that takes cases, started anew after a crash or a hang."""

    def __init__(self, side: str) -> None:
        self._side = side
        self.case: Case | None = None
        self._start()

    def give(self, case: Case) -> None:
        """Starts a case."""
        self.case, self._since = case, time.monotonic()
        self.connection.send(case)

    def result(self, limit_seconds: float, *, is_ready: bool) -> Result | None:
        """The case's, if it has come to an end."""
        case, seconds = self.case, 0.0
        if case is None:
            return None
        seconds = round(time.monotonic() - self._since, 3)
        if is_ready:
            try:
                result: Result = self.connection.recv()
            except EOFError:
                self._process.join()
                result = Result(case.key, FAILED, kind="crash", detail=f"exit code {self._process.exitcode}",
                                seconds=seconds)  # fmt: skip
                self._start()
        elif seconds > limit_seconds:
            self.stop()
            result = Result(case.key, FAILED, kind="time limit", detail=f"{limit_seconds:g} s", seconds=seconds)
            self._start()
        else:
            return None
        self.case = None
        return result

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve, args=(theirs, self._side), daemon=True)
        self._process.start()
        # The worker holds the only other end: when it dies, reading here ends.
        theirs.close()


def _serve(connection: Connection, side: str) -> None:
    outcome = {NPU: _npu, TVM: _tvm}[side]
    while True:
        connection.send(_run(connection.recv(), outcome))


def _run(case: Case, outcome: Callable[[Case], tuple[str, str]]) -> Result:
    start = time.monotonic()
    where = kind = detail = ""
    try:
        status, where = outcome(case)
    # Whatever goes wrong is the result.
    except Exception as error:  # noqa: BLE001
        status = UNSUPPORTED if isinstance(error, NpuError | onnx.checker.ValidationError) else FAILED
        if isinstance(error, _RefusedError):
            error, status = error.reason, UNSUPPORTED
        kind, detail = type(error).__name__, _short(str(error))
    return Result(case.key, status, where, kind, detail, round(time.monotonic() - start, 3))


def _short(text: str) -> str:
    """The last lines, where TVM says what is the matter, and the first, where NumPy does."""
    lines = " ".join(text.split())
    half = _DETAIL_CHARACTERS // 2
    return lines if len(lines) <= _DETAIL_CHARACTERS else f"{lines[:half]} … {lines[-half:]}"


def _npu(case: Case) -> tuple[str, str]:
    from tvm_ext.backend import NpuBackend  # noqa: PLC0415

    model = case.model()
    rep = NpuBackend.prepare(model)
    for inputs, expected in case.data_sets(model):
        case.check(expected, rep.run(inputs))
    return PASSED, where_of(rep.places().values())


def where_of(places: Any) -> str:
    """One word for where a model's operators ran."""
    found = set(places)
    if not found:
        return NOWHERE
    if HOST in found:
        return HOST if len(found) == 1 else MIXED
    return VECTOR if VECTOR in found else ENGINE


class _RefusedError(Exception):
    """TVM's importer takes no such model."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _tvm(case: Case) -> tuple[str, str]:
    """TVM's own way: its importer, its default pipeline for the CPU, its virtual machine."""
    import tvm  # noqa: PLC0415
    from tvm import relax  # noqa: PLC0415

    model = case.model()
    machine = relax.VirtualMachine(tvm.compile(_tvm_import(model), target=tvm.target.Target("llvm")), tvm.cpu())
    for inputs, expected in case.data_sets(model):
        result = machine["main"](*map(_to_tvm, inputs))
        case.check(expected, [_from_tvm(value) for value in _results(result, len(model.graph.output))])
    return PASSED, HOST


def _tvm_import(model: onnx.ModelProto) -> Any:
    import contextlib  # noqa: PLC0415
    import io  # noqa: PLC0415

    from tvm import relax  # noqa: PLC0415
    from tvm.relax.frontend.onnx import from_onnx  # noqa: PLC0415

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            module = from_onnx(model, keep_params_in_input=False)
    # It raises anything.
    except Exception as error:
        raise _RefusedError(error) from error
    return relax.transform.DecomposeOpsForInference()(module)


def _to_tvm(value: Any) -> Any:
    import tvm  # noqa: PLC0415

    return [_to_tvm(item) for item in value] if isinstance(value, list) else tvm.runtime.tensor(np.asarray(value))


def _from_tvm(value: Any) -> Any:
    return value.numpy() if hasattr(value, "numpy") else [_from_tvm(item) for item in value]


def _results(result: Any, count: int) -> list[Any]:
    return [result] if count == 1 else list(result)
