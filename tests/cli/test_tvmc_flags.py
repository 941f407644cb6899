"""Flags of tvmc that `npuc compile` and `npuc run` take, and those that they refuse with a reason."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_process import ROOT
from tests.cli.tiny import INPUT_SHAPE, OUTPUT_SHAPE, npuc
from tvm_ext.cli import compiling, running

Capture = pytest.CaptureFixture[str]


def test_a_command_line_of_tvmc(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    package = tmp_path / "model.tar"
    flags = ("-f", "so", "--model-format", "onnx", "--target-npu-cores", 2, "--input-shapes", "image:[1,3,16,16]")
    result = npuc(capsys, "compile", "--target", "npu, llvm", *flags, "--dump-code", "npu,asm", tiny, "-o", package)
    assert result.code == 0, result.err
    assert (tmp_path / "model.tar.npu").read_text() == (tmp_path / "model.tar.asm").read_text()
    image = np.zeros(INPUT_SHAPE, np.float32)
    np.savez(tmp_path / "in.npz", image=image)
    result = npuc(capsys, "run", package, "-i", tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--device", "cpu",
                  "--print-time", "--repeat", 2, "--number", 3, "--print-top", 2)  # fmt: skip
    assert result.code == 0, result.err
    assert re.search(r"mean \(ms\) +median \(ms\) +max \(ms\) +min \(ms\) +std \(ms\)\n( +\d+\.\d{4}){5}\n", result.out)
    features = np.load(tmp_path / "out.npz")["features"].reshape(-1)
    assert features.size == np.prod(OUTPUT_SHAPE)
    (top,) = re.findall(r"^features: (.*)$", result.out, re.MULTILINE)
    pairs = [each.split(" at ") for each in top.split(", ")]
    assert [float(value) for value, _ in pairs] == [features.max()] * 2 == [features[int(place)] for _, place in pairs]


def test_fill_mode_makes_up_what_is_not_given(package: Path, tmp_path: Path, capsys: Capture) -> None:
    np.savez(tmp_path / "none.npz")
    outputs = {}
    for name, options in (("beside", ("-i", tmp_path / "none.npz")), ("alone", ())):
        path = tmp_path / f"{name}.npz"
        assert npuc(capsys, "run", package, "-q", *options, "--fill-mode", "ones", "-o", path).code == 0
        outputs[name] = np.load(path)["features"]
    np.testing.assert_array_equal(outputs["beside"], outputs["alone"])


@pytest.mark.parametrize(("command", "names"), [("compile", compiling._REFUSED), ("run", running._REFUSED)])
def test_refused_flags_say_why(tiny: Path, command: str, names: dict[str, str], capsys: Capture) -> None:
    page = (ROOT / "docs" / "tvmc.md").read_text()
    for flag, reason in names.items():
        for arguments in ((flag.split()[-1],), (flag.split()[0], "value")):
            result = npuc(capsys, command, tiny, *arguments)
            assert result.code == 2
            assert f"{flag.split()[0]} of tvmc is not taken: {reason}" in result.err
        assert f"`{flag.split()[0]}`" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--repeat", "3"), "--repeat and --number say what --print-time measures"),
        (("run", "--device", "cuda"), "'cuda' is not 'cpu'"),
        (("run", "--timing-only", "--print-top", "1"), "it leaves nothing for --print-top"),
        (("compile", "-o", "x.tar", "--output-format", "mlf"), "'mlf' is not 'so'"),
        (("compile", "-o", "x.tar", "--dump-code", "ll"), "'ll' is none of asm, npu"),
    ],
)
def test_values_that_are_not_taken(tiny: Path, arguments: tuple[str, ...], message: str, capsys: Capture) -> None:
    command, *options = arguments
    result = npuc(capsys, command, tiny, *options)
    assert result.code == 2
    assert message in result.err
