"""Models that others made, each with the shapes it is fixed to and inputs as its users feed it.

Trained ones come from the registries (models/real.py); the light networks and their expected outputs are in the `onnx`
package itself; the exported graphs lie in a folder that the user names (models/exported.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from numpy.typing import NDArray
from onnx import numpy_helper

from models import NETWORKS, build
from models.cache import write_atomically
from models.exported import FOLDER_VARIABLE, IMAGE, exported_folder, exported_names, with_weights
from models.minilm import INPUTS, minilm, minilm_feed
from models.photographs import photograph, text_line
from models.real import real_model
from tvm_ext.onnx_load import fix_shapes, model_inputs
from tvm_ext.quantize import PRESETS, quantize

Arrays = Mapping[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
SENTENCES = ("a man is eating food", "someone is having a meal", "the girl is playing the guitar")
# Samples at 16 kHz that silero-vad takes at once: 512 new ones behind 64 of the chunk before.
VAD_RATE, VAD_SAMPLES, VAD_STATE = 16000, 576, (2, 1, 128)


Feed = Callable[[Shapes], Arrays]
Load = Callable[[], onnx.ModelProto]


FORMS = ("float16", "int8", "int16")


@dataclass(frozen=True)
class ZooModel:
    """`load` raises MissingModelError when the model is absent; `feed` makes inputs of given shapes.

    `shapes` are what `--shapes` fixes where the file leaves extents open, `small_shapes` those of quick tests. `forms`:
    how it makes sense to run it; a light network's weights are all alike, so there is nothing to quantise.
    """

    load: Load
    feed: Feed
    shapes: Shapes = field(default_factory=dict)
    small_shapes: Shapes = field(default_factory=dict)
    forms: tuple[str, ...] = FORMS


def write_model(entry: ZooModel, form: str, shapes: Shapes, path: Path) -> None:
    """Writes the model: as it is for `float16`, quantised on its own feed for `int8` and `int16`.

    Raises MissingModelError, and ModelError for a model that the quantiser refuses.
    """
    model = entry.load()
    if form != "float16":
        model = quantize(fix_shapes(model, shapes), [entry.feed(shapes)], **vars(PRESETS[form]))
    write_atomically(path, model.SerializeToString())


def light_output(name: str) -> NDArray[np.float32]:
    """What the `onnx` package says that the light network `name` gives for its input."""
    tensor = onnx.TensorProto()
    tensor.ParseFromString((LIGHT / f"{name}_output_0.pb").read_bytes())
    return numpy_helper.to_array(tensor)


def zoo_names() -> tuple[str, ...]:
    """What `zoo_model` knows: the zoo, the paper's networks, and the exported graphs if their folder is named."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return (*ZOO, *NETWORKS, *(exported_names(Path(folder)) if folder else ()))


def zoo_model(name: str) -> ZooModel:
    """By name; raises MissingModelError without the folder of the exported graphs."""
    if name in ZOO:
        return ZOO[name]
    return _network(name) if name in NETWORKS else exported(exported_folder() / f"{name}.onnx")


def exported(path: Path) -> ZooModel:
    """An exported graph with seeded weights, and a photograph."""
    return ZooModel(partial(with_weights, path), partial(_photograph_feed, "astronaut", partial(onnx.load, path)))


def _network(name: str) -> ZooModel:
    load = partial(build, name)
    return ZooModel(load, partial(_photograph_feed, "astronaut", load))


def _file(name: str) -> onnx.ModelProto:
    return onnx.load(real_model(name))


def _light(name: str) -> ZooModel:
    load = partial(onnx.load, LIGHT / f"{name}.onnx")
    return ZooModel(load, partial(_light_feed, load), forms=FORMS[:1])


def _fixed_photograph(name: str, photo: str) -> ZooModel:
    """A model of one size."""
    load = partial(_file, name)
    return ZooModel(load, partial(_photograph_feed, photo, load))


def _enlarged(name: str, size: int) -> ZooModel:
    """A fully convolutional network whose file fixes a size too small to be of use."""

    def load() -> onnx.ModelProto:
        model = _file(name)
        for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            dim.dim_value = size
        for dim in model.graph.output[0].type.tensor_type.shape.dim[2:]:
            dim.Clear()
        return model

    return ZooModel(load, partial(_photograph_feed, "chelsea", load))


def _detector(name: str) -> ZooModel:
    return ZooModel(partial(_file, name), _page_feed, {"x": (1, 3, 640, 640)}, {"x": (1, 3, 160, 224)})


def _reader(name: str, width: int = 320) -> ZooModel:
    return ZooModel(partial(_file, name), _line_feed, {"x": (1, 3, 48, width)}, {"x": (1, 3, 48, 96)})


def _vad(name: str) -> ZooModel:
    shapes = {"input": (1, VAD_SAMPLES), "state": VAD_STATE}
    return ZooModel(partial(_file, name), _vad_feed, shapes, shapes, FORMS[:1])


def _photograph_feed(photo: str, load: Load, _: Shapes) -> Arrays:
    name, shape = _image_of(load())
    return {name: photograph(photo, *shape[2:])}


def _page_feed(shapes: Shapes) -> Arrays:
    return {"x": photograph("page", *shapes["x"][2:])}


def _line_feed(shapes: Shapes) -> Arrays:
    return {"x": text_line(*shapes["x"][2:])}


def _light_feed(load: Load, _: Shapes) -> Arrays:
    """As the `onnx` package's own runner makes it: numbers that rise from 0 to 1."""
    name, shape = _image_of(load())
    count = int(np.prod(shape))
    return {name: (np.arange(count).reshape(shape) / count).astype(np.float32)}


def _sentences_feed(shapes: Shapes) -> Arrays:
    batch, length = shapes["input_ids"]
    return minilm_feed(SENTENCES[:batch], length)


def _vad_feed(_: Shapes) -> Arrays:
    """A hum that swells over noise, after silence."""
    generator, time = np.random.default_rng(0), np.arange(VAD_SAMPLES) / VAD_RATE
    sound = 0.3 * np.sin(2 * np.pi * 220 * time) * np.linspace(0, 1, VAD_SAMPLES)
    samples = (sound + generator.normal(0, 0.02, VAD_SAMPLES)).astype(np.float32)[None]
    return {"input": samples, "state": np.zeros(VAD_STATE, np.float32), "sr": np.array(VAD_RATE, np.int64)}


def _image_of(model: onnx.ModelProto) -> tuple[str, list[int]]:
    """Name and shape of the one input of rank 4 that is no weight; exported graphs call it `input`."""
    images = [value for value in model_inputs(model) if value.name == IMAGE] or model_inputs(model)
    return images[0].name, [dim.dim_value for dim in images[0].type.tensor_type.shape.dim]


def _tokens(batch: int, length: int) -> Shapes:
    return dict.fromkeys(INPUTS, (batch, length))


ZOO: Mapping[str, ZooModel] = {
    **{name: _detector(name) for name in ("rapidocr_det", "ppocrv5_det", "ppocrv6_small_det", "ppocrv6_tiny_det")},
    **{name: _reader(name) for name in ("rapidocr_rec", "ppocrv5_rec", "ppocrv6_small_rec", "ppocrv6_tiny_rec")},
    "rapidocr_cls": _reader("rapidocr_cls", 192),
    "espcn_subpixel": _fixed_photograph("espcn_subpixel", "chelsea"),
    "espcn_subpixel_128": _enlarged("espcn_subpixel", 128),
    "espcn_nn_resize": _fixed_photograph("espcn_nn_resize", "chelsea"),
    "minilm": ZooModel(minilm, _sentences_feed, _tokens(3, 64), _tokens(2, 12), FORMS[:1]),
    **{name: _vad(name) for name in ("silero_vad", "silero_vad_16k", "silero_vad_ifless")},
    **{path.stem: _light(path.stem) for path in sorted(LIGHT.glob("*.onnx"))},
}
