"""Mistakes with ``--quantize``: one message that says what to change, exit code 2, nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.float_model import float_model, samples, two_inputs
from tests.cli.tiny import npuc, save, tiny_model

Capture = pytest.CaptureFixture[str]
Mistake = Callable[..., str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(float_model(), tmp_path / "classifier.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (20, 20), (10, 200, 30)).save(images / "green.png")
    return images


@pytest.fixture
def mistake(capsys: Capture, tmp_path: Path) -> Mistake:
    """Quantises a model, which must fail; returns the message on one line."""

    def check(model: Path, calibration: object, *arguments: Any) -> str:
        before = sorted(tmp_path.rglob("*"))
        result = npuc(capsys, "run", model, "--quantize", "int8", "--calibration", calibration, "--json",
                      tmp_path / "run.json", "--save-quantized", tmp_path / "int8.onnx", *arguments)  # fmt: skip
        assert (result.code, result.out) == (2, ""), result.err
        assert result.err.count("Error: ") == 1, result.err
        assert "Traceback" not in result.err
        assert sorted(tmp_path.rglob("*")) == before
        return " ".join(result.err.split())

    return check


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"picture": samples(2)}, "has no array 'image', nor image_0, image_1; it has picture"),
        ({}, "has no array 'image', nor image_0, image_1; it has none"),
        ({"image": samples(2)[:, :, :8]}, "'image' has shape [2, 3, 8, 16]; the model takes [1, 3, 16, 16]"),
        ({"image": samples(0)}, "'image' has shape [0, 3, 16, 16]"),
        ({"image": np.float32(1)}, "'image' has shape []"),
        ({"image_0": samples(1), "image_1": samples(1)[0, 0]}, "'image' has shape [16, 16]"),
        ({"image": samples(2).astype(np.complex64)}, "'image' is complex64; the model takes float32"),
        ({"image": np.array(["cat"])}, "'image' is <U3; the model takes float32"),
    ],
)
def test_arrays_that_do_not_fit(
    mistake: Mistake, model: Path, tmp_path: Path, arrays: dict[str, Any], expected: str
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    assert expected in mistake(model, tmp_path / "data.npz")


def test_inputs_with_different_counts(mistake: Mistake, tmp_path: Path) -> None:
    model = save(two_inputs(), tmp_path / "two.onnx")
    row = np.ones((3, 4), np.float32)
    np.savez(tmp_path / "data.npz", left=row, right=row[:2])
    assert "samples in different numbers (left: 3, right: 2)" in mistake(model, tmp_path / "data.npz")
    np.savez(tmp_path / "data.npz", left=row)
    assert "has no array 'right'" in mistake(model, tmp_path / "data.npz")


def test_no_such_data(mistake: Mistake, model: Path, tmp_path: Path) -> None:
    assert "no such file or folder; name an npz file" in mistake(model, tmp_path / "none")
    (tmp_path / "text.npz").write_text("hello")
    assert "no npz file of plain arrays" in mistake(model, tmp_path / "text.npz")


def test_empty_folder(mistake: Mistake, model: Path, folder: Path) -> None:
    (folder / "green.png").rename(folder / "green.txt")
    assert f"calibration folder {folder} holds no image (.bmp, " in mistake(model, folder)


@pytest.mark.parametrize("damage", [b"", b"hello", None])
def test_unreadable_image(mistake: Mistake, model: Path, folder: Path, damage: bytes | None) -> None:
    path = folder / "green.png"
    path.write_bytes(path.read_bytes()[:60] if damage is None else damage)
    assert f"calibration image {path} cannot be read: " in mistake(model, folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("men=0.5", "'men' is an unknown key; there are mean, std, scale, layout, color, fit"),
        ("mean", "'mean' cannot be read; write \"mean=0.5;std=0.5"),
        ("mean=", "'mean=' cannot be read"),
        ("mean=a,b,c", "mean = a,b,c is no list of numbers"),
        ("mean=1,2", "mean has 2 numbers; give one, or one for each of the 3 channels of 'image'"),
        ("std=0", "std = 0 divides by zero"),
        ("scale=1/0", "scale = 1/0 is no list of numbers"),
        ("scale=1,2", "scale = 1,2; give one number"),
        ("layout=chw", "layout = chw is unknown; choose nchw, nhwc"),
        ("color=cmyk", "color = cmyk is unknown; choose rgb, bgr, gray"),
        ("color=gray", "3 channels in layout nchw, and a gray image has others"),
        ("layout=nhwc", "16 channels in layout nhwc"),
        ("none.toml", "none.toml: cannot be read: No such file"),
    ],
)
def test_wrong_preprocess(mistake: Mistake, model: Path, folder: Path, text: str, expected: str) -> None:
    assert expected in mistake(model, folder, "--preprocess", text)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.toml", "mean = [", "is not TOML"),
        ("p.json", "{", "is not JSON"),
        ("p.json", "[1]", "holds no keys"),
        ("p.toml", 'mean = [0.5, "x", 0.5]', "is no list of numbers"),
        ("p.toml", "mean = []", "mean has no number"),
        ("p.toml", "men = 1", "'men' is an unknown key"),
    ],
)
def test_wrong_preprocess_file(
    mistake: Mistake, model: Path, folder: Path, tmp_path: Path, name: str, text: str, expected: str
) -> None:
    (tmp_path / name).write_text(text)
    assert expected in mistake(model, folder, "--preprocess", tmp_path / name)


def test_images_for_what_is_no_image(mistake: Mistake, tmp_path: Path, folder: Path) -> None:
    two = save(two_inputs(), tmp_path / "two.onnx")
    assert "images calibrate a model of one input, this one has 2 (left, right)" in mistake(two, folder)
    wide = save(float_model(channels=4), tmp_path / "wide.onnx")
    assert "set layout and color by --preprocess" in mistake(wide, folder)


def test_quantised_already(mistake: Mistake, tmp_path: Path) -> None:
    model = save(tiny_model(), tmp_path / "tiny.onnx")
    assert "the model is quantised already; leave out --quantize" in mistake(model, "random")


def test_package_is_compiled_already(tmp_path: Path, capsys: Capture) -> None:
    package = tmp_path / "model.tar"
    package.touch()
    result = npuc(capsys, "run", package, "--quantize", "int8", "--calibration", "random")
    assert result.code == 2
    assert "is compiled already: leave out --quantize" in result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--quantize", "int8"], "--quantize needs --calibration"),
        (["--quantize", "int4", "--calibration", "random"], "'int4' is not one of"),
        (["--calibration", "random"], "--calibration goes with --quantize; give both"),
        (["--preprocess", "mean=1"], "--preprocess goes with --quantize; give both"),
        (["--save-quantized", "x.onnx"], "--save-quantized goes with --quantize; give both"),
        (["--quantize", "int8", "--calibration", "random", "--save-quantized", "none/x.onnx"], "there is no directory"),
    ],
)
def test_options_that_go_together(model: Path, capsys: Capture, arguments: list[str], expected: str) -> None:
    result = npuc(capsys, "run", model, *arguments)
    assert (result.code, result.out) == (2, "")
    assert expected in result.err
