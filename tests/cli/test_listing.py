"""``npuc machines``, ``ops``, ``disasm`` and ``--stop-after``."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import jsonschema
import pytest

from npu_backend.machine import machine_names
from npu_backend.ops import registered_ops
from npu_backend.pipeline import STAGES
from npu_backend.report.document import ops_schema
from tests.cli.float_model import float_model
from tests.cli.tiny import npuc, save, tiny_model
from tvm_ext.coverage import host_groups, operators_markdown
from tvm_ext.package import HostOp

Capture = pytest.CaptureFixture[str]

FIRST_WORDS = {
    "import": "graph", "legalize": "graph", "fuse": "layers", "partition": "splits", "order": "splits",
    "strata": "splits", "reside": "residencies",
    "tile": "tilings", "route": "routes", "schedule": "schedule", "place": "placement",
    "synchronize": "semaphores", "emit": "input",
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


def test_operators_of_the_front_end_are_listed(capsys: Capture) -> None:
    out = npuc(capsys, "ops").out
    for text in (
        "ConvTranspose",
        "between DequantizeLinear and QuantizeLinear",
        "Only the first output of the operator",
        "QLinearConv, ",
    ):
        assert text in out


def test_ops_of_a_model(tmp_path: Path, capsys: Capture) -> None:
    model = save(tiny_model(tail="Trilu"), tmp_path / "trilu.onnx")
    result = npuc(capsys, "ops", model, "-v", "--no-kernels")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert [line.split()[:3] for line in lines if "Conv" in line] == [
        ["engine", "Conv", "c0_Conv"],
        ["engine", "Conv", "c1_Conv"],
    ]
    (host,) = (line for line in lines if line.startswith("host"))
    assert host.split()[1:3] == ["Trilu", "features_Trilu"]
    assert host.partition("# ")[2] == "the NPU has no Trilu"
    (vector,) = (line for line in npuc(capsys, "ops", model, "-v").out.splitlines() if line.startswith("vector"))
    assert vector.split() == ["vector", "Trilu", "features_Trilu", "#", "npu_0"]


def test_summary_of_a_model(tmp_path: Path, capsys: Capture) -> None:
    model, path = save(tiny_model(tail="Trilu"), tmp_path / "trilu.onnx"), tmp_path / "ops.json"
    assert npuc(capsys, "ops", model, "--json", path, "--no-kernels").out.splitlines() == [
        "engine 2 Conv, 1 QuantizeLinear, 1 DequantizeLinear",
        "host   1 Trilu  # the NPU has no such operator",
        # 8 x 8 pixels: 8 channels of 3 x 3 x 3, then 16 of 8.
        (
            f"4 of 5 operators on the NPU in 1 program, {64 * (8 * 27 + 16 * 8):,} MACs there, 0 by kernels of the"
            " vector processors; 1 on the host"
        ),
    ]
    document = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(ops_schema())
    jsonschema.validate(document, ops_schema())
    assert document["model"] == "trilu"
    assert document["host_ops"] == [{"name": "features_Trilu", "op": "Trilu", "reason": "the NPU has no Trilu"}]


def test_summary_of_a_float_model(tmp_path: Path, capsys: Capture) -> None:
    result = npuc(capsys, "ops", save(float_model(), tmp_path / "float.onnx"), "--no-kernels")
    first, last = result.out.splitlines()
    assert first.startswith(
        "host   2 Conv, 1 Relu, 1 GlobalAveragePool, 1 Flatten, 1 Gemm  # not quantised, for example "
    )
    assert first.endswith(" first: it reads float32 from the model's input 'image'")
    assert last.startswith("0 of 6 operators on the NPU in 0 programs, 0 MACs there, 0 by kernels of the vector")
    assert last.endswith("; 6 on the host")
    assert "--machine biglittle|exynos2200|mesh16|mesh64|ring4|torus16" in result.err
    kernels = npuc(capsys, "ops", tmp_path / "float.onnx").out.splitlines()
    assert kernels == [
        "vector 2 Conv, 1 Relu, 1 GlobalAveragePool, 1 Flatten, 1 Gemm",
        "6 of 6 operators on the NPU in 1 program, 0 MACs there, 6 by kernels of the vector processors; 0 on the host",
    ]
    able = npuc(capsys, "ops", tmp_path / "float.onnx", "--machine", "mesh16")
    assert able.out.splitlines()[-1].startswith("6 of 6 operators on the NPU in 1 program")
    assert able.err == ""


def test_page_of_operators(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "operators.md"
    assert npuc(capsys, "ops", "--markdown", path) == (0, "", "")
    assert path.read_text() == operators_markdown()
    shipped = Path(__file__).parents[2] / "docs" / "operators.md"
    assert shipped.read_text() == path.read_text(), "run npuc ops --markdown docs/operators.md"


@pytest.mark.parametrize("arguments", [["--json", "x.json"], ["--shapes", "x:[1]"]])
def test_ops_needs_a_model(capsys: Capture, arguments: list[str]) -> None:
    result = npuc(capsys, "ops", *arguments)
    assert (result.code, result.out) == (2, "")
    assert "go with a MODEL" in result.err


def test_page_of_one_model(tiny: Path, capsys: Capture) -> None:
    result = npuc(capsys, "ops", tiny, "--markdown", "x.md")
    assert result.code == 2
    assert "leave out the MODEL" in result.err


def test_reasons_are_grouped() -> None:
    reads = [HostOp(f"n{i}", "Relu", f"not quantised: it reads float32 from n{i - 1}") for i in range(3)]
    ranks = "The operator must work on images: tensors of rank 4"
    rule = [HostOp("c", "Conv", ranks), *(HostOp(op, op, f"the NPU has no {op}") for op in ("Sin", "Tan"))]
    groups = host_groups([*rule, *reads])
    assert [(group.reason, group.counts, group.example.name) for group in groups] == [
        ("not quantised", (("Relu", 3),), "n0"),
        ("the NPU has no such operator", (("Sin", 1), ("Tan", 1)), "Sin"),
        (ranks, (("Conv", 1),), "c"),
    ]


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
    assert npuc(capsys, "compile", tiny, "--stop-after", "tile").out == "stopped after tile; NPU graphs: 1\n"
