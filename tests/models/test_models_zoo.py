"""The models that others made: they load, take the inputs made for them, and give what they are known to give."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest

from models.real import MissingModelError
from models.zoo import LIGHT, SENTENCES, ZOO, light_output
from tvm_ext.onnx_load import input_infos, load_model

QUICK = ("rapidocr_cls", "silero_vad_16k", "espcn_subpixel", "light_squeezenet")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ZOO]
READERS = ("rapidocr_rec", "ppocrv5_rec", "ppocrv6_small_rec", "ppocrv6_tiny_rec")


def loaded(name: str) -> onnx.ModelProto:
    """The model; skips, saying what to run, when it is absent."""
    try:
        return ZOO[name].load()
    except MissingModelError as error:
        pytest.skip(str(error))


def outputs(model: onnx.ModelProto, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feed))


@pytest.mark.parametrize("name", NAMES)
def test_feeds_fit(name, tmp_path):
    entry = ZOO[name]
    original = loaded(name)
    onnx.save(original, tmp_path / "model.onnx")
    for shapes in (entry.shapes, entry.small_shapes):
        model, feed = load_model(tmp_path / "model.onnx", shapes), entry.feed(shapes)
        assert {info.name: (info.shape, info.dtype) for info in input_infos(model)} == {
            key: (value.shape, value.dtype.name) for key, value in feed.items()
        }
        assert all(output.size for output in outputs(original, feed))


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in sorted(LIGHT.glob("*.onnx"))])
def test_light_networks_give_what_is_shipped_with_them(name):
    (got,) = outputs(loaded(name), ZOO[name].feed({}))
    assert abs(got - light_output(name)).max() <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_readers_read(name):
    """The same characters, whatever their numbers: repeats in the heading are repeats in what is read."""
    entry = ZOO[name]
    (scores,) = outputs(loaded(name), entry.feed(entry.shapes))
    best = scores[0].argmax(axis=1)
    read = [code for index, code in enumerate(best) if code and (index == 0 or best[index - 1] != code)]
    text = [character for character in "Region-basedsegme" if character != " "]
    spaces = len(read) - len(text)
    assert spaces in (0, 1)
    letters = read[:12] + read[12 + spaces :]
    assert [letters.index(code) for code in letters] == [text.index(character) for character in text]


@pytest.mark.slow
def test_sentences_of_one_meaning_are_close():
    (rows,) = outputs(loaded("minilm"), ZOO["minilm"].feed({"input_ids": (3, 16)}))
    assert len(rows) == len(SENTENCES)
    similar = rows @ rows.T
    assert similar.diagonal() == pytest.approx(1, abs=1e-5)
    assert similar[0, 1] > 0.5 > 0.1 > abs(similar[0, 2])
