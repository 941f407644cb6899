"""``npuc tune`` and --tuning-records: what is measured, what survives, what is taken."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from npu_backend.errors import CapacityError
from npu_backend.graph import Graph
from npu_backend.machine import load_machine
from npu_backend.machine_types import Machine
from npu_backend.strategies import STRATEGIES
from tests.cli.test_process import ENVIRONMENT
from tests.cli.tiny import npuc, save, tiny_model
from tvm_ext import tuning
from tvm_ext.package import read_package
from tvm_ext.tuning import Choice, Record, best_of, choices, read_records

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def records(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a file with a record of every plan."""
    path = tmp_path_factory.mktemp("records") / "tiny.jsonl"
    command = [sys.executable, "-m", "tvm_ext.cli", "tune", str(tiny), "--records", str(path), "-q"]
    subprocess.run(command, env=ENVIRONMENT, check=True)
    return path.read_bytes()


@pytest.fixture
def file(records: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.jsonl"
    path.write_bytes(records)
    return path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Choice]:
    """Choices that were timed since."""
    choices: list[Choice] = []
    timed = tuning._timed

    def noted(graphs: Sequence[Graph], model: str, machine: Machine, choice: Choice) -> Record:
        choices.append(choice)
        return timed(graphs, model, machine, choice)

    monkeypatch.setattr(tuning, "_timed", noted)
    return choices


def fastest(records: Iterable[Record]) -> Record:
    return min(records, key=lambda record: (record.latency_us, record.cores, record.strategy))


def test_choices() -> None:
    several = [name for name in STRATEGIES if name != "single"]
    assert choices(load_machine("exynos2100")) == (
        Choice("single", 1),
        *(Choice(name, cores) for name in several for cores in (2, 3)),
    )
    assert {choice.cores for choice in choices(load_machine("mesh16"))} == {1, 2, 4, 8, 16}


def test_every_choice_is_recorded_once(tiny: Path, file: Path, measured: list[Choice], capsys: Capture) -> None:
    found = read_records(file)
    assert tuple(record.choice for record in found) == choices(load_machine("exynos2100"))
    assert all(record.latency_us is not None and record.latency_us > 0 for record in found)
    result = npuc(capsys, "tune", tiny, "--records", file)
    assert (result.code, result.err, measured) == (0, "", [])
    best = fastest(found)
    first = result.out.splitlines()[1].split()
    assert first[:2] == [best.strategy, str(best.cores)]


def test_the_fastest_of_those_that_fit() -> None:
    def record(strategy: str, cores: int, latency_us: float | None, model: str = "m") -> Record:
        return Record(1, model, "n", strategy, cores, latency_us, 0.0)

    records = [record("base", 3, 5.0), record("halo", 3, 4.0), record("halo", 2, 4.0), record("base", 2, None),
               record("stratum", 3, 1.0, model="other")]  # fmt: skip
    assert best_of(records, "m", "n") == record("halo", 2, 4.0)
    assert best_of(records, "m", "n", cores=3, strategy=None) == record("halo", 3, 4.0)
    assert best_of(records, "m", "n", strategy="base") == record("base", 3, 5.0)
    assert best_of(records, "m", "n", strategy="base", cores=2) is None
    assert best_of(records, "m", "another") is None


KILLED = """
import os, signal
from tvm_ext import tuning
timed, left = tuning._timed, [2]
def until_killed(*arguments):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return timed(*arguments)
tuning._timed = until_killed
from tvm_ext.cli.app import main
main()
"""


def test_what_was_measured_survives_a_kill(tiny: Path, tmp_path: Path, measured: list[Choice], capsys: Capture) -> None:
    path = tmp_path / "killed.jsonl"
    command = [sys.executable, "-c", KILLED, "tune", str(tiny), "--records", str(path)]
    killed = subprocess.run(command, capture_output=True, env=ENVIRONMENT, check=False)
    assert killed.returncode == -signal.SIGKILL
    kept, every = path.read_bytes(), choices(load_machine("exynos2100"))
    assert tuple(record.choice for record in read_records(path)) == every[:2]
    # Killed while it wrote.
    path.write_bytes(kept + kept[: len(kept) // 4])
    assert len(read_records(path)) == 2
    assert npuc(capsys, "tune", tiny, "--records", path, "-q").code == 0
    assert path.read_bytes().startswith(kept)
    assert tuple(record.choice for record in read_records(path)) == every
    assert tuple(measured) == every[2:]


def test_other_files_are_left_alone(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    for content in (tiny.read_bytes(), b"{}", b"# notes\n"):
        path = tmp_path / "other"
        path.write_bytes(content)
        result = npuc(capsys, "tune", tiny, "--records", path)
        assert result.code == 2
        assert "no tuning record" in result.err
        assert path.read_bytes() == content


def test_one_process_writes_at_a_time(tiny: Path, file: Path, capsys: Capture) -> None:
    with file.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        result = npuc(capsys, "tune", tiny, "--records", file)
    assert result.code == 2
    assert "another process is writing there" in result.err


def test_compile_takes_the_fastest(tiny: Path, file: Path, tmp_path: Path, capsys: Capture) -> None:
    package, known = tmp_path / "tiny.tar", read_records(file)

    def compiled(*options: object) -> Choice:
        result = npuc(capsys, "compile", tiny, "-o", package, "-q", *options)
        assert result.code == 0, result.err
        metadata = read_package(package).metadata
        return Choice(metadata.strategy, metadata.cores)

    assert compiled("--tuning-records", file) == fastest(known).choice
    assert compiled("--target", f"npu -tuning-records={file}, llvm") == fastest(known).choice
    of_three = [record for record in known if record.cores == 3]
    assert compiled("--target-npu-tuning-records", file, "--cores", "3") == fastest(of_three).choice
    of_base = [record for record in known if record.strategy == "base"]
    assert compiled("--tuning-records", file, "--strategy", "base") == fastest(of_base).choice


@pytest.mark.parametrize(
    "options",
    [
        ("--machine", "mesh16"),
        ("--no-kernels",),
        ("--spm-bytes", "524288"),
        ("--shapes", "image:[1,3,16,16]"),
        ("--cores", "1", "--strategy", "halo"),
    ],
)
def test_records_of_something_else(tiny: Path, file: Path, options: tuple[str, ...], capsys: Capture) -> None:
    result = npuc(capsys, "run", tiny, "--tuning-records", file, *options)
    assert (result.code, result.out) == (2, "")
    assert f"{file} has no record of {tiny} on" in result.err


def test_records_of_another_model(file: Path, tmp_path: Path, capsys: Capture) -> None:
    other = save(tiny_model(tail="Relu"), tmp_path / "other.onnx")
    result = npuc(capsys, "run", other, "--tuning-records", file)
    assert (result.code, result.out) == (2, "")
    assert f"{file} has no record of {other} on exynos2100" in result.err
    assert "there is no such file" in npuc(capsys, "run", other, "--tuning-records", tmp_path / "none").err


def test_plans_that_do_not_fit_are_recorded(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def refuse(*_: object) -> None:
        raise CapacityError("2 bytes too many")

    monkeypatch.setattr(tuning, "compile_graph", refuse)
    path = tmp_path / "none.jsonl"
    result = npuc(capsys, "tune", tiny, "--records", path)
    assert (result.code, result.out.count("does not fit")) == (0, 11)
    assert {record.latency_us for record in read_records(path)} == {None}
    assert npuc(capsys, "run", tiny, "--tuning-records", path).code == 2


def test_interrupted(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(tuning, "compile_graph", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert npuc(capsys, "tune", tiny, "--records", tmp_path / "none.jsonl").code == 130
