"""Calibration data for the quantiser: arrays of an npz file, a folder of images, or noise."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from npu_backend.errors import InputError
from tvm_ext.images import Preprocess, image_feeds
from tvm_ext.npz import read_npz
from tvm_ext.onnx_load import input_infos
from tvm_ext.package import TensorInfo

Feed = Mapping[str, npt.NDArray[Any]]

RANDOM = "random"
RANDOM_SAMPLES = 8
_NUMBERED = re.compile(r"(?P<name>.+?)[._/-]?(?P<number>\d+)")


def read_calibration(source: str, inputs: Sequence[TensorInfo], preprocess: Preprocess) -> list[Feed]:
    """Samples from an npz file, a folder of images, or made up when `source` is the word ``random``.

    In an npz file each array is called like its input, the samples along the first axis, or the samples are numbered
    (``image_0``, ``image_1``; for a single input also numpy's own ``arr_0``). Raises InputError for data that are
    missing, damaged or do not fit.
    """
    if source == RANDOM:
        return [_random_feed(inputs, sample) for sample in range(RANDOM_SAMPLES)]
    path = Path(source)
    if path.is_dir():
        return list(image_feeds(path, inputs, preprocess))
    if not path.exists():
        raise InputError(f"calibration {source}: no such file or folder; name an npz file, a folder of images, or"
                         f" {RANDOM}")  # fmt: skip
    return npz_feeds(path, inputs)


def npz_feeds(path: Path, inputs: Sequence[TensorInfo]) -> list[Feed]:
    """The samples in an npz file; raises InputError."""
    arrays = read_npz(path)
    columns = {info.name: _samples(path, info, arrays, alone=len(inputs) == 1) for info in inputs}
    counts = {name: len(samples) for name, samples in columns.items()}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise InputError(f"calibration {path} has samples in different numbers ({text}); give as many of every input")
    return [dict(zip(columns, sample, strict=True)) for sample in zip(*columns.values(), strict=True)]


def check_feeds(model: onnx.ModelProto, feeds: Sequence[Feed]) -> None:
    """Raises InputError for a sample that lacks an input or holds one of another shape or type."""
    infos = input_infos(model)
    names = ", ".join(info.name for info in infos)
    for index, feed in enumerate(feeds):
        for info in infos:
            if info.name not in feed:
                raise InputError(f"{model.graph.name}: calibration sample {index} lacks input {info.name!r}; the"
                                 f" model's inputs: {names}")  # fmt: skip
            array = feed[info.name]
            if array.shape != info.shape or array.dtype != info.dtype:
                raise InputError(f"{model.graph.name}: calibration sample {index}: input {info.name!r} is {array.dtype}"
                                 f"{list(array.shape)}; the model takes {info.dtype}{list(info.shape)}")  # fmt: skip


def _samples(path: Path, info: TensorInfo, arrays: Mapping[str, Any], *, alone: bool) -> list[npt.NDArray[Any]]:
    if info.name in arrays:
        return _divided(path, info, arrays[info.name])
    numbered = _numbered(arrays, info.name) or (_numbered(arrays, "arr") if alone else [])
    if not numbered:
        raise InputError(f"calibration {path} has no array {info.name!r}, nor {info.name}_0, {info.name}_1; it has"
                         f" {', '.join(arrays) or 'none'}")  # fmt: skip
    return [sample for name in numbered for sample in _divided(path, info, arrays[name])]


def _numbered(arrays: Mapping[str, Any], name: str) -> list[str]:
    """The names that are `name` and a number, in the order of the numbers."""
    matches = [match for match in map(_NUMBERED.fullmatch, arrays) if match is not None and match["name"] == name]
    return [match[0] for match in sorted(matches, key=lambda match: int(match["number"]))]


def _divided(path: Path, info: TensorInfo, array: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """An array as samples of the input's shape: one, several stacked, or several along the batch axis."""
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, info.dtype, "same_kind"):
        raise InputError(f"calibration {path}: {info.name!r} is {array.dtype}; the model takes {info.dtype}")
    cast, shape = array.astype(info.dtype, copy=False), info.shape
    if cast.shape == shape:
        return [cast]
    if cast.ndim == len(shape) + 1 and cast.shape[1:] == shape and len(cast):
        return list(cast)
    along_batch = shape and cast.ndim == len(shape) and cast.shape[1:] == shape[1:]
    if along_batch and len(cast) and len(cast) % shape[0] == 0:
        return np.split(cast, len(cast) // shape[0])
    raise InputError(f"calibration {path}: {info.name!r} has shape {list(array.shape)}; the model takes {list(shape)},"
                     " so give samples of that shape along the first axis")  # fmt: skip


def _random_feed(inputs: Sequence[TensorInfo], sample: int) -> Feed:
    """Uniform in [-1, 1); integers are 0 or 1, which are valid as indices and as masks."""
    generator = np.random.default_rng(sample)
    return {info.name: _noise(generator, info) for info in inputs}


def _noise(generator: np.random.Generator, info: TensorInfo) -> npt.NDArray[Any]:
    if np.dtype(info.dtype).kind == "f":
        return generator.uniform(-1, 1, info.shape).astype(info.dtype)
    return generator.integers(0, 2, info.shape).astype(info.dtype)
