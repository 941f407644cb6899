"""The bench of the front end: one small model measured, its JSON, and a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from click.testing import CliRunner

from benchmarks import front_end
from tests.tvm_ext.small_models import quantized_small
from tvm_ext.generation import generation


def test_measures_a_model(tmp_path: Path):
    onnx.save(quantized_small("conv"), tmp_path / "conv.onnx")
    page, section = tmp_path / "page.md", f"front_end_{generation()}"
    page.write_text(f"<!-- begin {section} -->\n<!-- end {section} -->\n")
    arguments = [str(tmp_path / "conv.onnx"), "--rounds", "2", "--json", str(tmp_path / "figures.json"),
                 "--markdown", str(page)]  # fmt: skip
    result = CliRunner().invoke(front_end.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "From ONNX to NPU graphs" in result.output
    assert "| conv |" in page.read_text()
    (row,) = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert (row["model"], row["generation"], row["rounds"]) == ("conv", generation(), 2)
    assert 0 < row["partition_seconds"] < 60
    assert row["own_seconds"] > 0
    assert row["npu_ops"] > 0
    assert row["host_ops"] == 0


def test_no_model_is_a_mistake(tmp_path: Path):
    (tmp_path / "text.onnx").write_text("no model")
    result = CliRunner().invoke(front_end.main, [str(tmp_path / "text.onnx")])
    assert result.exit_code == 2
    assert "text.onnx" in result.output
