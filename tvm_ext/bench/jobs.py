"""The cases of a benchmark in processes of their own: every model imported once, then one case after the other."""

from __future__ import annotations

import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from npu_backend.errors import NpuError, OptionError
from npu_backend.runtime import default_library
from tvm_ext.bench.measure import Case, Imported, import_file, measure
from tvm_ext.bench.rows import BenchRow, Failure, Rows
from tvm_ext.bench.sources import Source

# Told how much is done, of how much, and what is done.
Progress = Callable[[int, int, str], None]
Key = TypeVar("Key")
Result = TypeVar("Result")


def measure_all(sources: Sequence[Source], cases: Sequence[Case], jobs: int, progress: Progress) -> Rows:
    """The rows of `cases`, whose models `sources` are, in their order; what the user can mend becomes a failure.

    Raises the first failure when there is no row at all, OptionError when a process was killed.
    """
    default_library()  # Built here once, not by every process.
    with _pool(jobs) as pool, tempfile.TemporaryDirectory(prefix="npu_bench.") as name:
        folder, total = Path(name), len(sources) + len(cases)
        floats = {case.model for case in cases if case.machine.computes_float}
        importing = {pool.submit(_import, source, folder, source.name in floats): source.name for source in sources}
        imports = _outcomes(importing, lambda done, what: progress(done, total, f"import {what}"))
        macs = dict(imports)
        order = _longest_first(cases, macs)
        timing = {pool.submit(_measure, folder, cases[index]): index for index in order}
        left, total = len(sources), len(sources) + len(order)
        timings = _outcomes(timing, lambda done, index: progress(left + done, total, _title(cases[index])))
        found = dict(timings)
    return _rows(cases, macs, found)


def _rows(cases: Sequence[Case], macs: Mapping[str, int | NpuError], found: Mapping[int, BenchRow | NpuError]) -> Rows:
    rows: list[BenchRow] = []
    failures: list[Failure] = []
    for index, case in enumerate(cases):
        imported = macs[case.model]
        outcome = imported if isinstance(imported, NpuError) else found[index]
        if isinstance(outcome, BenchRow):
            rows.append(outcome)
        else:
            failures.append(Failure(case.model, case.machine.name, case.strategy.name, len(case.machine.cores),
                                    str(outcome)))  # fmt: skip
    if not rows:
        raise next(outcome for outcome in (*macs.values(), *found.values()) if isinstance(outcome, NpuError))
    return Rows(tuple(rows), tuple(failures))


def _outcomes(
    jobs: Mapping[Future[Result], Key], tell: Callable[[int, Key], None]
) -> Iterator[tuple[Key, Result | NpuError]]:
    for done, job in enumerate(as_completed(jobs), start=1):
        tell(done, jobs[job])
        try:
            yield jobs[job], job.result()
        except NpuError as error:
            yield jobs[job], error


def _longest_first(cases: Sequence[Case], macs: Mapping[str, int | NpuError]) -> list[int]:
    """The cases of models that were imported; long ones at the end would leave processes without work."""
    sizes = {model: size for model, size in macs.items() if isinstance(size, int)}
    able = [index for index, case in enumerate(cases) if case.model in sizes]
    return sorted(able, key=lambda index: -sizes[cases[index].model])


def _title(case: Case) -> str:
    cores = len(case.machine.cores)
    return f"{case.model}, {case.strategy.name}, {cores} core{'s' * (cores > 1)}"


@contextmanager
def _pool(jobs: int) -> Iterator[Executor]:
    """Processes, or this one for a single job."""
    pool: Executor
    if jobs == 1:
        pool = ThreadPoolExecutor(1)
    else:
        # TVM has threads, which a fork would not survive. Ctrl-C ends a process at once and without a traceback.
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_DFL))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise OptionError(f"one of {jobs} processes was ended from outside, for lack of memory perhaps;"
                          " use fewer --jobs") from error  # fmt: skip
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _import(source: Source, folder: Path, computes_float: bool) -> int:
    """Leaves the model's graphs in the folder; its multiply-accumulates."""
    imported = import_file(source.write(folder), computes_float=computes_float)
    _place(folder, source.name).write_bytes(pickle.dumps(imported))
    return imported.macs


def _measure(folder: Path, case: Case) -> BenchRow:
    return measure(_imported(_place(folder, case.model)), case)


# The cases come model by model.
@lru_cache(maxsize=1)
def _imported(path: Path) -> Imported:
    imported: Imported = pickle.loads(path.read_bytes())
    return imported


def _place(folder: Path, model: str) -> Path:
    return folder / f"{model}.pickle"
