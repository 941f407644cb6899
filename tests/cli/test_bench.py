"""``npuc bench``: rows, tables and JSON of a small model."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import jsonschema
import pytest

from npu_backend.strategies import STRATEGIES
from tests.cli.tiny import npuc
from tvm_ext.bench.report import bench_schema

Capture = pytest.CaptureFixture[str]


def test_every_strategy_on_every_number_of_cores(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "bench.json"
    result = npuc(capsys, "bench", tiny, "--json", path, "--jobs", 1)
    assert (result.code, result.err) == (0, "")
    document = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(bench_schema())
    jsonschema.validate(document, bench_schema())
    found = {(row["strategy"], row["cores"]) for row in document["rows"]}
    assert found == {(name, cores) for name in STRATEGIES for cores in (1, 2, 3)}
    assert len(document["rows"]) == len(found)
    assert all(len(row["per_core"]) == row["cores"] for row in document["rows"])
    assert all(name in result.out for name in (*STRATEGIES, "lower bound", "geometric mean", "the paper"))


def test_a_row_is_what_run_says(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    bench, run = tmp_path / "bench.json", tmp_path / "run.json"
    assert npuc(capsys, "bench", tiny, "--strategies", "base", "--cores", "2", "--json", bench, "--jobs", 1).code == 0
    assert npuc(capsys, "run", tiny, "--strategy", "base", "--cores", "2", "--timing-only", "--json", run).code == 0
    single, row = json.loads(bench.read_text())["rows"]
    assert (single["strategy"], single["cores"], row["strategy"], row["cores"]) == ("single", 1, "base", 2)
    expected = json.loads(run.read_text())
    shared = (row.keys() & expected.keys()) - {"compile_seconds"}
    assert row.keys() - expected.keys() <= {"plan"}
    assert {name: row[name] for name in shared} == {name: expected[name] for name in shared}


def test_numbers_and_names_repeated_or_with_commas(tiny: Path, capsys: Capture) -> None:
    once = npuc(capsys, "bench", tiny, "--strategies", "base,spatial", "--cores", "3,2", "--jobs", 1)
    twice = npuc(capsys, "bench", tiny, "--strategies", "base", "--strategies", "spatial", "--cores", 2, "--cores", 3,
                 "--jobs", 1)  # fmt: skip
    assert once.code == 0
    assert once == twice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategies", "bass"], "no strategy 'bass'; there are single"),
        (["--networks", "alexnet"], "no network 'alexnet'; there are inception_v3"),
        (["--cores", "4"], "machine exynos2100 has 3 cores"),
        (["--cores", "two"], "write whole numbers, as 1,2,3"),
        (["--strategies", "base,,"], "has an empty name"),
        (["--machine", "exynos"], "did you mean exynos"),
        (["--json", "nowhere/bench.json"], "there is no directory"),
    ],
)
def test_mistakes_are_told_before_the_work(capsys: Capture, arguments: list[str], message: str) -> None:
    result = npuc(capsys, "bench", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_two_files_of_one_name(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    other = shutil.copy(tiny, tmp_path / tiny.name)
    result = npuc(capsys, "bench", tiny, other)
    assert result.code == 2
    assert "would both be called tiny" in result.err


def test_one_failure_leaves_the_other_rows(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "bench.json"
    result = npuc(capsys, "bench", tiny, tmp_path / "absent.onnx", "--strategies", "single", "--cores", 1,
                  "--jobs", 1, "--json", path)  # fmt: skip
    assert result.code == 2
    assert "Error: absent, single on 1 core of exynos2100:" in result.err
    document = json.loads(path.read_text())
    jsonschema.validate(document, bench_schema())
    assert [row["model"] for row in document["rows"]] == ["tiny"]
    assert [failure["model"] for failure in document["failures"]] == ["absent"]


def test_no_row_at_all_writes_nothing(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "bench.json"
    result = npuc(capsys, "bench", tmp_path / "absent.onnx", "--jobs", 1, "--json", path)
    assert (result.code, result.out) == (2, "")
    assert "absent.onnx" in result.err
    assert not path.exists()


def test_without_the_repository(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "models", None)
    result = npuc(capsys, "bench", "--networks", "mobilenet_v2")
    assert result.code == 2
    assert "run it in a checkout" in result.err


def test_from_an_earlier_run(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    first, second, figure = (tmp_path / name for name in ("one.json", "two.json", "bars.svg"))
    measured = npuc(capsys, "bench", tiny, "--cores", "2", "--json", first, "--jobs", 1)
    again = npuc(capsys, "bench", "--from", first, "--json", second, "--plot", figure)
    assert (again.code, again.out, again.err) == (0, measured.out, "")
    assert second.read_text() == first.read_text()
    assert figure.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}'])
def test_from_what_is_no_such_file(tmp_path: Path, capsys: Capture, text: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    result = npuc(capsys, "bench", "--from", path)
    assert (result.code, result.out) == (2, "")
    assert "not what npuc bench --json writes" in result.err


def test_from_measures_nothing(tiny: Path, capsys: Capture) -> None:
    result = npuc(capsys, "bench", tiny, "--from", "bench.json", "--cores", "1")
    assert result.code == 2
    assert "leaves nothing for models and cores" in result.err


@pytest.mark.slow
def test_networks_in_two_processes(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "bench.json"
    assert npuc(capsys, "bench", "--networks", "mobilenet_v2", "--strategies", "base", "--json", path,
                "--jobs", 2).code == 0  # fmt: skip
    rows = json.loads(path.read_text())["rows"]
    assert [(row["strategy"], row["cores"]) for row in rows] == [
        ("single", 1), ("base", 1), ("base", 2), ("base", 3)]  # fmt: skip
