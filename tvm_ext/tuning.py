"""Which strategy and how many cores are best for a model on a machine, found on the emulator's clock and written down.

Records are JSON lines, each written whole before the next plan is tried: a killed search goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from npu_backend.errors import CapacityError, InputError, OptionError, OutputError
from npu_backend.graph import Graph
from npu_backend.machine_types import Machine
from npu_backend.pipeline import compile_graph
from npu_backend.runtime import Emulator
from npu_backend.strategies import STRATEGIES, strategy_named

FORMAT_VERSION = 1
# Up to so many cores every count is tried, above it powers of two and all.
_EVERY_COUNT = 4
# Every line starts with it.
_HEAD = f'{{"version": {FORMAT_VERSION}, "model": "'.encode()


@dataclass(frozen=True, order=True)
class Choice:
    """A strategy on the first cores of a machine."""

    strategy: str
    cores: int


@dataclass(frozen=True)
class Record:
    """A choice timed: latency on the emulator's clock in us, None where its plan does not fit; seconds to compile.

    `model` is `model_key`'s, `machine` a hash of the machine's description.
    """

    version: int
    model: str
    machine: str
    strategy: str
    cores: int
    latency_us: float | None
    compile_seconds: float

    @property
    def choice(self) -> Choice:
        """What was timed."""
        return Choice(self.strategy, self.cores)


def model_key(path: Path, shapes: Mapping[str, Sequence[int]], *, kernels: bool) -> str:
    """A hash of an ONNX file and of what else decides what the NPU is given of it.

    Raises InputError where it cannot be read.
    """
    also = json.dumps([sorted((name, list(shape)) for name, shape in shapes.items()), kernels])
    try:
        return hashlib.sha256(path.read_bytes() + also.encode()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def machine_key(machine: Machine) -> str:
    """A hash of all that is known of a machine."""
    return hashlib.sha256(repr(machine).encode()).hexdigest()


def choices(machine: Machine) -> tuple[Choice, ...]:
    """Every strategy on every count of cores that is worth a try."""
    count = len(machine.cores)
    powers = {1 << power for power in range(count.bit_length())}
    counts = range(1, count + 1) if count <= _EVERY_COUNT else sorted({count, *(p for p in powers if p <= count)})
    several = (Choice(name, cores) for name in STRATEGIES if name != "single" for cores in counts if cores > 1)
    return (Choice("single", 1), *several)


def read_records(path: Path) -> list[Record]:
    """The records of a file, none of one that is not there; a last line that was cut off is left out.

    Raises InputError for lines that are no records, and for what cannot be read.
    """
    return _parsed(path)[0]


def is_records(path: Path) -> bool:
    """Whether the file starts as records do."""
    with path.open("rb") as stream:
        return stream.read(len(_HEAD)) == _HEAD


def _parsed(path: Path) -> tuple[list[Record], int]:
    """The records of a file, and how many of its bytes they are."""
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    *lines, tail = data.split(b"\n")
    if not (tail.startswith(_HEAD) or _HEAD.startswith(tail)):
        # Nothing of ours that was cut off: another file, which must not be cut.
        lines.append(tail)
    return [_record(path, number, line) for number, line in enumerate(lines, 1)], len(data) - len(tail)


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        record = Record(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}, line {number}: no tuning record; name another file") from error
    if record.version != FORMAT_VERSION:
        raise InputError(f"{path}, line {number}: a record of version {record.version}, this program reads"
                         f" {FORMAT_VERSION}: tune again into another file")  # fmt: skip
    return record


def best_of(records: Sequence[Record], model: str, machine: str, **wanted: Any) -> Record | None:
    """The fastest record of a model on a machine, of those with the `wanted` strategy and cores, if given."""
    fitting = [record for record in records if (record.model, record.machine) == (model, machine)
               and all(getattr(record, name) == value for name, value in wanted.items() if value is not None)
               and record.latency_us is not None]  # fmt: skip
    return min(fitting, key=by_latency, default=None)


def by_latency(record: Record) -> tuple[float, int, str]:
    """Sorts the fastest first, of those that take as long the one with fewer cores, and last what does not fit."""
    return float("inf") if record.latency_us is None else record.latency_us, record.cores, record.strategy


def tuned_choice(
    path: Path, model: Path, key: str, machine: Machine, strategy: str | None, cores: int | None
) -> Choice:
    """What the records say is best; raises OptionError where they say nothing of the model on the machine.

    `key` is the model's; `machine` has all its cores.
    """
    if not path.is_file():
        raise OptionError(f"{path}: there is no such file of tuning records; npuc tune writes one")
    found = best_of(read_records(path), key, machine_key(machine), strategy=strategy, cores=cores)
    if found is None:
        given = "".join(f", {name} {value}" for name, value in (("cores", cores), ("strategy", strategy)) if value)
        raise OptionError(f"{path} has no record of {model} on {machine.name}{given} that fits: run npuc tune with it"
                          " first, or leave it out")  # fmt: skip
    return found.choice


def tune(
    graphs: Sequence[Graph], model: str, machine: Machine, path: Path, step: Callable[[str, float | None], None]
) -> Iterator[Record]:
    """Times the choices that the file has no record of yet, appends each and yields all, the old ones first."""
    key = machine_key(machine)
    known = {record.choice: record for record in read_records(path) if (record.model, record.machine) == (model, key)}
    every = choices(machine)
    with _opened(path) as stream:
        for number, choice in enumerate(every):
            step(f"{choice.strategy} on {choice.cores}", number / len(every))
            if choice not in known:
                known[choice] = _timed(graphs, model, machine, choice)
                _append(stream, known[choice])
            yield known[choice]


def _timed(graphs: Sequence[Graph], model: str, machine: Machine, choice: Choice) -> Record:
    start, total_ns = time.perf_counter(), 0.0
    latency_us: float | None = None
    try:
        for graph in graphs:
            program = compile_graph(graph, machine.take(choice.cores), strategy_named(choice.strategy))
            with Emulator(program.to_bytes()) as emulator:
                total_ns += emulator.time().total_ns
        latency_us = round(total_ns / 1000, 3)
    except CapacityError:
        # This choice does not fit the scratchpads; others may.
        pass
    seconds = round(time.perf_counter() - start, 3)
    return Record(FORMAT_VERSION, model, machine_key(machine), choice.strategy, choice.cores, latency_us, seconds)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, for one process at a time, without the line at its end that was cut off."""
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(f"{path}: another process is writing there; wait, or name another file") from error
        stream.truncate(_parsed(path)[1])
        yield stream


def _append(stream: IO[bytes], record: Record) -> None:
    """On the disk before the search goes on."""
    stream.write(json.dumps(asdict(record)).encode() + b"\n")
    stream.flush()
    os.fsync(stream.fileno())
