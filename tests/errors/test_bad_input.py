"""Every user's mistake: one message that says what to change, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from npu_backend import machine
from tests.cli.tiny import INPUT_SHAPE, save, tiny_model

Folder = Path
Mistake = Callable[..., str]


# The model file


def test_missing_file(mistake: Mistake, tmp_path: Folder) -> None:
    assert f"{tmp_path / 'none.onnx'}: no such file" in mistake("run", tmp_path / "none.onnx")
    assert f"{tmp_path / 'none.tar'}: no such file" in mistake("run", tmp_path / "none.tar")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_model(mistake: Mistake, tiny: Path, tmp_path: Folder, share: float) -> None:
    path, data = tmp_path / "cut.onnx", tiny.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    message = mistake("compile", path, "-o", tmp_path / "out.tar")
    assert f"{path}: no ONNX model, or a truncated one" in message


@pytest.mark.parametrize("data", [b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), b"{}", os.urandom(5000)])
def test_not_onnx(mistake: Mistake, tmp_path: Folder, data: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(data)
    assert f"{path}: no" in mistake("run", path, "--json", tmp_path / "run.json")


def test_directory_as_model(mistake: Mistake, tmp_path: Folder) -> None:
    assert f"{tmp_path}: cannot be read" in mistake("run", tmp_path)


def test_invalid_model(mistake: Mistake, tmp_path: Folder) -> None:
    model = tiny_model()
    model.graph.node[0].input[0] = "nowhere"
    path = save(model, tmp_path / "invalid.onnx")
    message = mistake("run", path)
    assert f"{path}: not a valid ONNX model" in message
    assert model.graph.node[0].name in message


def test_unknown_operator(mistake: Mistake, tmp_path: Folder) -> None:
    path = save(_one_node("Frobnicate", [4, 4]), tmp_path / "unknown.onnx")
    message = mistake("run", path)
    assert "Name: the_node OpType: Frobnicate" in message
    assert "mend that node or export the model again" in message


def test_operator_that_tvm_lacks(mistake: Mistake, tmp_path: Folder) -> None:
    path = save(_one_node("Det", []), tmp_path / "det.onnx")
    message = mistake("compile", path, "-o", tmp_path / "out.tar")
    assert "Det 'the_node'" in message
    assert "replace the operator or cut the model before it" in message


def _one_node(op: str, out_shape: list[int]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, out_shape)
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], name="the_node")], "one", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_dynamic_shape(mistake: Mistake, tmp_path: Folder) -> None:
    path = save(tiny_model("batch"), tmp_path / "dynamic.onnx")
    message = mistake("run", path)
    assert "input 'image' has dynamic extents (batch)" in message
    assert "--shapes image:[1,3,16,16]" in message


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ("image:[1,3,0,16]", "but the model says [batch, 3, 16, 16]"),
        ("image:[1,4,16,16]", "but the model says [batch, 3, 16, 16]"),
        ("picture:[1,3,16,16]", "'picture', which is no input of the model; its inputs: image"),
        ("image=[1,3]", 'write "name:[1,3,224,224]"'),
        ("image:[1,-3]", "cannot be read"),
        ("image:[1,a]", "cannot be read"),
    ],
)
def test_wrong_shapes(mistake: Mistake, tmp_path: Folder, shapes: str, expected: str) -> None:
    path = save(tiny_model("batch"), tmp_path / "dynamic.onnx")
    assert expected in mistake("run", path, "--shapes", shapes)


# Inputs


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"picture": np.zeros(INPUT_SHAPE, np.float32)}, "no input 'picture'; its inputs: image"),
        ({}, "input 'image' is missing"),
        (
            {"image": np.zeros((1, 3, 8, 8), np.float32)},
            "is float32[1, 3, 8, 8]; the model takes float32[1, 3, 16, 16]",
        ),
        (
            {"image": np.zeros(INPUT_SHAPE, np.float64)},
            "is float64[1, 3, 16, 16]; the model takes float32[1, 3, 16, 16]",
        ),
    ],
)
def test_wrong_input(
    mistake: Mistake, package: Path, tmp_path: Folder, arrays: Mapping[str, np.ndarray], expected: str
) -> None:
    path = tmp_path / "in.npz"
    np.savez(path, **arrays)
    assert expected in mistake("run", package, "--inputs", path, "--outputs", tmp_path / "out.npz")


def test_inputs_that_are_no_npz(mistake: Mistake, package: Path, tmp_path: Folder) -> None:
    good, path = io.BytesIO(), tmp_path / "in.npz"
    np.savez(good, image=np.zeros(INPUT_SHAPE, np.float32))
    assert "no such file" in mistake("run", package, "--inputs", path)
    for data in (b"", b"text", good.getvalue()[:100], good.getvalue()[:-30]):
        path.write_bytes(data)
        assert "no npz file of plain arrays, or a damaged one" in mistake("run", package, "--inputs", path)
    np.savez(path, image=np.array([object()]))
    assert "no npz file of plain arrays" in mistake("run", package, "--inputs", path)
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert "one array without a name" in mistake("run", package, "--inputs", path)


# The machine


def test_unknown_machine(mistake: Mistake, tiny: Path) -> None:
    message = mistake("run", tiny, "--machine", "exynos2101")
    assert "no machine 'exynos2101': did you mean exynos2100? shipped are biglittle, " in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("spm_banks = ", "spm_bankz = 1\nspm_banks = ", "spm_bankz = 1 is an unknown key; did you mean spm_banks?"),
        ("clock_mhz = ", "clock_mhz = -", "clock_mhz = -"),
        ("vector_lanes = ", 'vector_lanes = "many" #', 'vector_lanes = "many"'),
        ("[core_defaults]", "[core_defaults", "is not TOML"),
    ],
)
def test_wrong_machine_file(mistake: Mistake, tiny: Path, tmp_path: Folder, old: str, new: str, expected: str) -> None:
    shipped = Path(machine.__file__).parent / "machines" / "exynos2100.toml"
    text = shipped.read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1))
    message = mistake("run", tiny, "--machine", path)
    assert f"machine file {path}" in message
    assert expected in message


def test_missing_machine_file(mistake: Mistake, tiny: Path, tmp_path: Folder) -> None:
    assert "cannot be read" in mistake("run", tiny, "--machine", tmp_path / "none.toml")


@pytest.mark.parametrize("cores", [0, -1, 4, 1000])
def test_number_of_cores(mistake: Mistake, tiny: Path, cores: int) -> None:
    assert f"machine exynos2100 has 3 cores, --cores {cores} asked; use 1..3" in mistake("run", tiny, "--cores", cores)


@pytest.mark.parametrize("spm_bytes", [0, -1024, 1000, 1 << 40])
def test_scratchpad_that_cannot_be(mistake: Mistake, tiny: Path, spm_bytes: int) -> None:
    message = mistake("run", tiny, "--spm-bytes", spm_bytes)
    assert f"{spm_bytes} bytes of scratchpad" in message
    assert "use a multiple of its 16 banks" in message


def test_scratchpad_too_small_for_any_tile(mistake: Mistake, tiny: Path, tmp_path: Folder) -> None:
    message = mistake("compile", tiny, "-o", tmp_path / "out.tar", "--spm-bytes", 64)
    assert "the smallest tile needs" in message
    assert "spm_bytes" in message


# Options


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--strategy", "best"], "no strategy 'best'; there are single, spatial, channel, base"),
        (["--target", "npu -cores=2, llvm", "--cores", 3], "--target says -cores=2, --cores says 3"),
        (
            ["--target", "npu -machine=ring4", "--machine", "mesh16"],
            "--target says -machine=ring4, --machine says mesh16",
        ),
        (["--target", "npu -colour=red, llvm"], "'-colour=red' is no option of npu"),
        (["--target", "npu -cores=two, llvm"], "it must be a whole number"),
        (["--target", "npu -cores"], "'-cores' is no option of npu"),
        (["--target", "npu, cuda"], "the host's part is 'cuda'; use llvm"),
        (["--target", "llvm"], "must start with npu"),
        (["--target", ""], "must start with npu"),
        (["--threads", 0], "--threads 0: use 1 to 1024"),
        (["--dump"], "--dump prints the stage that --stop-after names"),
        (["--stop-after", "tiling"], "no such stage; there are import, legalize"),
        (["--timing-only", "--verify"], "nothing for --verify"),
        (["--reference", "x.onnx"], "--reference is what --verify compares with"),
        (["--fill-mode", "noise"], "'noise' is not one of"),
        (["--frobnicate"], "No such option"),
    ],
)
def test_wrong_options(mistake: Mistake, tiny: Path, arguments: list[object], expected: str) -> None:
    assert expected in mistake("run", tiny, *arguments)


def test_compile_needs_an_output(mistake: Mistake, tiny: Path) -> None:
    assert "name the package to write with -o" in mistake("compile", tiny)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--cores", 2, "--machine", "ring4"], "is compiled already: leave out --machine, --cores"),
        (["--verify"], "name the ONNX file it was made of with --reference"),
        (["--baseline"], "--baseline compiles a second time"),
    ],
)
def test_options_a_package_does_not_take(
    mistake: Mistake, package: Path, arguments: list[object], expected: str
) -> None:
    assert expected in mistake("run", package, *arguments)


def test_core_that_the_program_lacks(mistake: Mistake, package: Path) -> None:
    assert "--core 3: the program has cores 0 to 2" in mistake("disasm", package, "--core", 3)


# Outputs


OUTPUTS = [("compile", "-o", "out.tar"), ("run", "--json", "run.json"), ("run", "--outputs", "out.npz")]


@pytest.mark.parametrize(("command", "flag", "name"), OUTPUTS)
def test_output_in_no_directory(
    mistake: Mistake, tiny: Path, tmp_path: Folder, command: str, flag: str, name: str
) -> None:
    message = mistake(command, tiny, flag, tmp_path / "missing" / name)
    assert f"there is no directory {tmp_path / 'missing'}" in message


@pytest.mark.parametrize(("command", "flag", "name"), OUTPUTS)
def test_output_is_a_directory(
    mistake: Mistake, tiny: Path, tmp_path: Folder, command: str, flag: str, name: str
) -> None:
    del name
    assert "it is a directory" in mistake(command, tiny, flag, tmp_path)


@pytest.mark.parametrize(("command", "flag", "name"), OUTPUTS)
def test_output_without_permission(
    mistake: Mistake, tiny: Path, tmp_path: Folder, command: str, flag: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The superuser may write anywhere, so the system's answer is made up.
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)
    assert "no permission to write" in mistake(command, tiny, flag, tmp_path / name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("command", "flag", "name"), OUTPUTS)
def test_full_output(mistake: Mistake, tiny: Path, command: str, flag: str, name: str) -> None:
    del name
    message = mistake(command, tiny, flag, "/dev/full", "-q")
    assert "cannot write /dev/full: No space left on device" in message
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(("command", "flag", "name"), OUTPUTS)
def test_disk_that_fills_up_keeps_what_was_there(
    mistake: Mistake, tiny: Path, tmp_path: Folder, command: str, flag: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"what was there")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert "No space left on device" in mistake(command, tiny, flag, tmp_path / name, "-q")
