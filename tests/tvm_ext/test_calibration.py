"""Calibration data in every form it may have, and the error of quantising by a hand-made pair of models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.cli.float_model import SHAPE, float_model, samples, two_inputs
from tvm_ext.calibration import RANDOM_SAMPLES, read_calibration
from tvm_ext.images import MOST_IMAGES, Preprocess, image_feeds, parse_preprocess
from tvm_ext.package import TensorInfo
from tvm_ext.quantization_error import measure_error

IMAGE = TensorInfo("image", SHAPE, "float32")
TOKENS = TensorInfo("tokens", (1, 7), "int64")
PLAIN = Preprocess(scale=1.0)


@pytest.mark.parametrize(
    "arrays",
    [
        {"image": samples(3)},
        {"image": samples(3)[:, None]},
        {f"image_{i}": samples(3)[i : i + 1] for i in range(3)},
        {f"image{2 * i}": samples(3)[i : i + 1] for i in range(3)},
        {f"arr_{i}": samples(3)[i : i + 1] for i in range(3)},
        {"image_10": samples(3)[2:], "image_9": samples(3)[1:2], "image_1": samples(3)[:1]},
        {"image": samples(3).astype(np.float64), "other": np.zeros(3)},
    ],
)
def test_npz(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    feeds = read_calibration(str(tmp_path / "data.npz"), [IMAGE], Preprocess())
    assert [feed["image"].dtype for feed in feeds] == [np.float32] * 3
    assert np.array_equal(np.concatenate([feed["image"] for feed in feeds]), samples(3))


def test_npz_of_several_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", image=samples(2), tokens=np.arange(14).reshape(2, 7))
    feeds = read_calibration(str(tmp_path / "data.npz"), [IMAGE, TOKENS], Preprocess())
    assert [feed["tokens"][0, 0] for feed in feeds] == [0, 7]


def test_random_is_always_the_same() -> None:
    first, second = (read_calibration("random", [IMAGE, TOKENS], Preprocess()) for _ in range(2))
    assert len(first) == RANDOM_SAMPLES
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a)
    assert not np.array_equal(first[0]["image"], first[1]["image"])
    assert set(np.concatenate([feed["tokens"] for feed in first]).ravel()) == {0, 1}


def stripes(folder: Path, name: str = "stripes.png", size: tuple[int, int] = (16, 16)) -> None:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, (200, 100, 0))
    image.paste((0, 100, 250), (size[0] // 2, 0, size[0], size[1]))
    image.save(folder / name)


def one_sample(folder: Path, info: TensorInfo, preprocess: Preprocess) -> np.ndarray:
    (feed,) = image_feeds(folder, [info], preprocess)
    array: np.ndarray = feed[info.name]
    assert (array.dtype, array.shape) == (info.dtype, info.shape)
    return array


def test_image_channels_and_normalisation(tmp_path: Path) -> None:
    stripes(tmp_path)
    plain = one_sample(tmp_path, IMAGE, PLAIN)
    assert plain[0, :, 0, 0].tolist() == [200, 100, 0]
    assert plain[0, :, 0, -1].tolist() == [0, 100, 250]
    assert np.allclose(one_sample(tmp_path, IMAGE, Preprocess()), plain / 255)
    swapped = one_sample(tmp_path, IMAGE, parse_preprocess("scale=1;color=bgr"))
    assert np.array_equal(swapped, plain[:, ::-1])
    normal = one_sample(tmp_path, IMAGE, parse_preprocess("mean=0.5,0.25,0;std=0.5,1,2; scale = 1/255"))
    assert np.allclose(normal[0, :, 0, 0], [(200 / 255 - 0.5) / 0.5, 100 / 255 - 0.25, 0])


def test_image_layouts(tmp_path: Path) -> None:
    stripes(tmp_path)
    plain = one_sample(tmp_path, IMAGE, PLAIN)
    last = one_sample(tmp_path, TensorInfo("image", (2, 16, 16, 3), "uint8"), PLAIN)
    assert np.array_equal(last[1], plain[0].transpose(1, 2, 0))
    gray = one_sample(tmp_path, TensorInfo("image", (1, 1, 16, 16), "float16"), PLAIN)
    assert gray[0, 0, 0, 0] == pytest.approx(0.299 * 200 + 0.587 * 100, abs=1)


def test_image_fit(tmp_path: Path) -> None:
    stripes(tmp_path, size=(64, 16))
    assert (one_sample(tmp_path, IMAGE, PLAIN)[0, 0] > 100).mean() == 0.5
    wide = TensorInfo("image", (1, 3, 16, 8), "float32")
    assert (one_sample(tmp_path, wide, Preprocess(fit="stretch"))[0, 0] > 0.5).mean() == 0.5


def test_images_of_subfolders_and_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    stripes(tmp_path / "a", "one.JPG")
    Image.new("LA", (5, 9)).save(tmp_path / "two.png")
    Image.new("P", (30, 30)).save(tmp_path / "three.gif")
    (tmp_path / "notes.txt").write_text("no image")
    assert len(list(image_feeds(tmp_path, [IMAGE], PLAIN))) == 3


def test_large_folder_is_chosen_from_evenly(tmp_path: Path) -> None:
    for index in range(MOST_IMAGES + 20):
        Image.new("L", (1, 1), index % 256).save(tmp_path / f"{index:03}.png")
    values = [
        feed["image"].max() for feed in image_feeds(tmp_path, [TensorInfo("image", (1, 1, 1, 1), "float32")], PLAIN)
    ]
    assert len(values) == MOST_IMAGES
    assert (values[0], values[-1]) == (0, MOST_IMAGES + 19)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.toml", 'mean = [0.1, 0.2, 0.3]\nstd = 2\nlayout = "NCHW"'),
        ("p.json", '{"mean": [0.1, 0.2, 0.3], "std": "2", "layout": "nchw"}'),
    ],
)
def test_preprocess_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert parse_preprocess(str(tmp_path / name)) == Preprocess(mean=(0.1, 0.2, 0.3), std=(2,), layout="nchw")
    assert parse_preprocess("mean=0.1,0.2,0.3; std=2; layout=nchw;") == parse_preprocess(str(tmp_path / name))


def off_by(model: onnx.ModelProto, index: int, error: float) -> onnx.ModelProto:
    """The model with an element of its last bias changed."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (bias,) = (tensor for tensor in changed.graph.initializer if tensor.name == "b2")
    array = onnx.numpy_helper.to_array(bias).copy()
    array[index] += error
    bias.CopyFrom(onnx.numpy_helper.from_array(array, "b2"))
    return changed


def test_error_by_hand() -> None:
    model = float_model()
    feeds = [{"image": sample[None]} for sample in samples(4)]
    (same,) = measure_error(model, model, feeds)
    assert (same.sqnr_db, same.max_abs, same.top1_agreement) == (None, 0, 1)
    (little,) = measure_error(model, off_by(model, 2, 0.125), feeds)
    assert little.max_abs == pytest.approx(0.125, abs=1e-5)
    (large,) = measure_error(model, off_by(model, 2, 1e3), feeds)
    assert large.top1_agreement == 0
    assert little.sqnr_db is not None
    assert large.sqnr_db is not None
    assert little.sqnr_db - large.sqnr_db == pytest.approx(20 * math.log10(1e3 / 0.125), abs=1e-2)


def test_error_of_what_is_no_classifier() -> None:
    feeds = [{"left": np.ones((1, 4), np.float32), "right": np.full((1, 4), -1, np.float32)}]
    model = two_inputs()
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("left"))
    model.graph.node.append(onnx.helper.make_node("Identity", ["sum"], ["copy"]))
    model.graph.output[1].name = "copy"
    outputs = measure_error(model, model, feeds)
    assert [(output.name, output.sqnr_db, output.top1_agreement) for output in outputs] == [
        ("sum", None, None),
        ("copy", None, None),
    ]
