"""``npuc machines``, ``ops``, ``disasm`` and ``--stop-after``."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from npu_backend.machine import machine_names
from npu_backend.ops import registered_ops
from npu_backend.pipeline import STAGES
from tests.cli.tiny import npuc, save, tiny_model

Capture = pytest.CaptureFixture[str]

FIRST_WORDS = {
    "import": "graph", "legalize": "graph", "fuse": "layers", "partition": "splits", "reside": "residencies",
    "tile": "tilings", "schedule": "schedule", "place": "placement", "synchronize": "semaphores", "emit": "input",
}  # fmt: skip


def test_machines(capsys: Capture) -> None:
    result = npuc(capsys, "machines")
    assert result.code == 0
    assert all(name in result.out for name in machine_names())


@pytest.mark.parametrize("name", machine_names())
def test_one_machine(capsys: Capture, name: str) -> None:
    result = npuc(capsys, "machines", name)
    assert result.code == 0
    assert result.out.startswith(f"{name}: ")
    assert "npu0" in result.out or "core" in result.out


def test_every_operator_is_listed(capsys: Capture) -> None:
    out = npuc(capsys, "ops").out
    for kind, spec in registered_ops().items():
        assert f" {kind} " in out
        assert spec.meaning.split()[0] in out


def test_ops_of_a_model(tmp_path: Path, capsys: Capture) -> None:
    result = npuc(capsys, "ops", save(tiny_model(tail="Sin"), tmp_path / "sine.onnx"))
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.split()[:3] for line in lines if "Conv" in line] == [
        ["npu", "Conv", "c0_Conv"],
        ["npu", "Conv", "c1_Conv"],
    ]
    (host,) = (line for line in lines if line.startswith("host"))
    assert host.split()[1:3] == ["Sin", "features_Sin"]
    assert len(host.partition("# ")[2]) > 10


def test_disasm_of_package_and_program(package: Path, tmp_path: Path, capsys: Capture) -> None:
    whole = npuc(capsys, "disasm", package).out
    assert "core 0 matrix" in whole
    assert "core 1 load" in whole
    with tarfile.open(package) as tar:
        (name,) = (member.name for member in tar if member.name.endswith(".npu"))
        tar.extract(name, tmp_path, filter="data")
    assert npuc(capsys, "disasm", tmp_path / name).out == whole
    part = npuc(capsys, "disasm", package, "--core", 1, "--engine", "matrix").out
    heads = [line for line in part.splitlines() if line.startswith("core ")]
    assert [head.partition(":")[0] for head in heads] == ["core 1 matrix"]
    convolutions = [line for line in part.splitlines() if " CONV " in line]
    assert {line.partition("# ")[2] for line in convolutions} == {"c0_Conv", "c1_Conv"}


@pytest.mark.parametrize("stage", ["import", *STAGES])
def test_dump(tiny: Path, capsys: Capture, stage: str) -> None:
    result = npuc(capsys, "compile", tiny, "--stop-after", stage, "--dump")
    assert (result.code, result.err) == (0, "")
    assert result.out.split()[0] == FIRST_WORDS[stage]
    assert result.out.endswith("\n")
    assert npuc(capsys, "run", tiny, "--stop-after", stage, "--dump").out == result.out


def test_stop_after_without_dump(tiny: Path, capsys: Capture) -> None:
    assert npuc(capsys, "compile", tiny, "--stop-after", "tile").out == "stopped after tile: 1 NPU graphs\n"
