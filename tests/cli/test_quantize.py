"""``--quantize``: from a float file to figures, its error, and the comparison with ONNX Runtime."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest

from npu_backend.report.document import run_schema
from npu_backend.toolchain import CACHE_VARIABLE, cache_directory
from tests.cli.float_model import float_model, samples
from tests.cli.tiny import npuc, save
from tvm_ext.quantize import is_quantized

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(float_model(), tmp_path / "classifier.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", image=samples(6))
    return tmp_path / "data.npz"


def test_run_quantised(model: Path, data: Path, tmp_path: Path, capsys: Capture) -> None:
    report, saved = tmp_path / "run.json", tmp_path / "int8.onnx"
    result = npuc(capsys, "run", model, "--quantize", "int8", "--calibration", data, "--verify", "--json", report,
                  "--save-quantized", saved, "--no-baseline")  # fmt: skip
    assert (result.code, result.err) == (0, "")
    assert f"quantised to int8 (uint8 activations, int8 weights per channel) on 6 samples of {data}" in result.out
    assert "dB signal to noise" in result.out
    assert "on the model quantised to int8: all 5 elements equal" in result.out
    document = json.loads(report.read_text())
    jsonschema.validate(document, run_schema())
    assert document["model"] == "classifier"
    assert document["host_ops"] == []
    quantization = document["quantization"]
    assert (quantization["type"], quantization["samples"], quantization["calibration"]) == ("int8", 6, str(data))
    (output,) = quantization["outputs"]
    assert output["name"] == "scores"
    assert output["sqnr_db"] > 20
    assert 0 < output["max_abs"] < 0.2
    assert 0 <= output["top1_agreement"] <= 1
    assert is_quantized(onnx.load(saved))
    again = npuc(capsys, "run", saved, "--verify", "--no-baseline")
    assert "all 5 elements equal" in again.out
    assert "quantised to" not in again.out


def test_compile_quantised(model: Path, data: Path, tmp_path: Path, capsys: Capture) -> None:
    package, saved = tmp_path / "model.tar", tmp_path / "int8.onnx"
    result = npuc(capsys, "compile", model, "-o", package, "--quantize", "int8", "--calibration", data,
                  "--save-quantized", saved)  # fmt: skip
    assert (result.code, result.err) == (0, "")
    assert "classifier for exynos2100" in result.out
    assert "0 on the host" in result.out
    assert npuc(capsys, "run", package, "--verify", "--reference", saved, "-q").code == 0


def test_stages_of_the_quantised_model(model: Path, data: Path, capsys: Capture) -> None:
    result = npuc(capsys, "compile", model, "--quantize", "int8", "--calibration", data, "--stop-after", "import",
                  "--dump")  # fmt: skip
    assert (result.code, result.err) == (0, "")
    assert "conv2d" in result.out


def test_random_calibration_is_warned_of(model: Path, capsys: Capture) -> None:
    result = npuc(capsys, "run", model, "--quantize", "int8", "--calibration", "random", "--no-baseline")
    assert result.code == 0
    assert "on 8 random samples" in result.out
    assert result.err.count("warning: calibrating with random data") == 1


@pytest.mark.parametrize("command", ["run", "compile"])
def test_float_model_is_warned_of(model: Path, tmp_path: Path, capsys: Capture, command: str) -> None:
    output = ["-o", tmp_path / "model.tar"] if command == "compile" else []
    result = npuc(capsys, command, model, *output)
    assert result.code == 0
    assert f"warning: {model} is a float model, which runs by kernels of the vector processors" in result.err
    assert "add --quantize int8 --calibration DATA" in result.err
    assert npuc(capsys, command, model, *output, "-q").err == ""
    assert "which runs whole on the host" in npuc(capsys, command, model, *output, "--no-kernels").err


def test_symbolic_batch(tmp_path: Path, data: Path, capsys: Capture) -> None:
    model = save(float_model("batch"), tmp_path / "symbolic.onnx")
    result = npuc(capsys, "run", model, "--quantize", "int8", "--calibration", data, "--shapes", "image:[2,3,16,16]",
                  "--verify", "--no-baseline")  # fmt: skip
    assert (result.code, result.err) == (0, "")
    assert "on 3 samples" in result.out
    assert "all 10 elements equal" in result.out


def test_second_run_takes_the_cached_model(
    model: Path, data: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = ("--stop-after", "import", "--quantize", "int8", "--calibration", data)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    assert npuc(capsys, "compile", model, *stages).code == 0
    assert len(list(cache_directory().rglob("*.onnx"))) == 1

    def fail(*_: object) -> None:
        raise AssertionError("quantised twice")

    monkeypatch.setattr("tvm_ext.quantize._quantize", fail)
    assert npuc(capsys, "compile", model, *stages).code == 0


def test_cache_that_cannot_be_written_is_no_error(
    model: Path, data: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    result = npuc(capsys, "compile", model, "--stop-after", "import", "--quantize", "int8", "--calibration", data)
    assert (result.code, result.err) == (0, "")


def test_what_the_quantiser_logs_is_for_verbose_ears(
    model: Path, data: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime.quantization as ort

    quantise = ort.quantize_static

    def warn(*arguments: object, **options: object) -> None:
        logging.warning("a weight is left alone")  # noqa: LOG015
        quantise(*arguments, **options)

    monkeypatch.setattr(ort, "quantize_static", warn)
    handlers = list(logging.getLogger().handlers)
    for index, (flags, said) in enumerate([([], False), (["-v"], True)]):
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / f"cache{index}"))
        result = npuc(capsys, "compile", model, "--stop-after", "import", "--quantize", "int8", "--calibration", data,
                      *flags)  # fmt: skip
        assert ("npuc: a weight is left alone" in result.err) == said
    assert logging.getLogger().handlers == handlers


def test_half_precision_model(tmp_path: Path, capsys: Capture) -> None:
    model = save(float_model(dtype="float16"), tmp_path / "half.onnx")
    report = tmp_path / "run.json"
    result = npuc(capsys, "run", model, "--quantize", "int8", "--calibration", "random", "--verify", "--no-baseline",
                  "--json", report)  # fmt: skip
    assert result.code == 0, result.err
    assert "all 5 elements equal" in result.out
    # All but the casts at its ends.
    assert {op["op"] for op in json.loads(report.read_text())["host_ops"]} <= {"Cast"}
