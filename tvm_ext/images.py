"""A folder of images as samples of a model: read by Pillow, fitted to the input and scaled as the model wants."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.errors import InputError, OptionError
from tvm_ext.package import TensorInfo

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Of a larger folder: more moves no range, and all of them are in memory.
MOST_IMAGES = 128
LAYOUTS = ("nchw", "nhwc")
COLORS = ("rgb", "bgr", "gray")
FITS = ("crop", "stretch")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Preprocess:
    """From pixels, 0 to 255, to what the model takes: ``(pixel * scale - mean) / std``.

    `mean` and `std`: one number, or one per channel. `layout` and `color`: None for what the input's shape says.
    `fit`: ``crop`` keeps the aspect ratio and takes the centre, ``stretch`` takes the whole image.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1 / 255
    layout: str | None = None
    color: str | None = None
    fit: str = "crop"


_CHOICES = {"layout": LAYOUTS, "color": COLORS, "fit": FITS}


def parse_preprocess(text: str) -> Preprocess:
    """From ``"mean=0.485,0.456,0.406;std=0.229,0.224,0.225"``, or a TOML or JSON file with the same keys.

    Raises OptionError.
    """
    values = _read_file(Path(text)) if text.endswith((".toml", ".json")) else dict(_split(text))
    known = [field.name for field in fields(Preprocess)]
    for key in values:
        if key not in known:
            raise OptionError(f"--preprocess: {key!r} is an unknown key; there are {', '.join(known)}")
    return Preprocess(**{key: _value(key, value) for key, value in values.items()})


def image_feeds(folder: Path, inputs: Sequence[TensorInfo], preprocess: Preprocess) -> Iterator[dict[str, Array]]:
    """One sample per image, an even choice of MOST_IMAGES where there are more; raises InputError, OptionError."""
    if len(inputs) != 1:
        names = ", ".join(info.name for info in inputs)
        raise InputError(f"images calibrate a model of one input, this one has {len(inputs)} ({names}); give an npz"
                         " file of all of them")  # fmt: skip
    target = _Target.of(inputs[0], preprocess)
    for path in _chosen(folder):
        yield {inputs[0].name: target.sample(_pixels(path, target))}


@dataclass(frozen=True)
class _Target:
    """What an image becomes."""

    info: TensorInfo
    preprocess: Preprocess
    layout: str
    color: str
    height: int
    width: int

    @classmethod
    def of(cls, info: TensorInfo, preprocess: Preprocess) -> _Target:
        shape = info.shape
        if len(shape) != 4:
            raise InputError(f"images need an input [n, c, h, w] or [n, h, w, c]; {info.name!r} is {list(shape)}; give"
                             " an npz file")  # fmt: skip
        layout = preprocess.layout or ("nchw" if shape[1] in (1, 3) else "nhwc")
        channels, height, width = shape[1:] if layout == "nchw" else (shape[3], *shape[1:3])
        color = preprocess.color or ("gray" if channels == 1 else "rgb")
        if channels != (1 if color == "gray" else 3):
            raise InputError(f"input {info.name!r} is {list(shape)}, that is {channels} channels in layout {layout},"
                             f" and a {color} image has others: set layout and color by --preprocess")  # fmt: skip
        for key, numbers in (("mean", preprocess.mean), ("std", preprocess.std)):
            if len(numbers) not in (1, channels):
                raise OptionError(f"--preprocess: {key} has {len(numbers)} numbers; give one, or one for each of the"
                                  f" {channels} channels of {info.name!r}")  # fmt: skip
        return cls(info, preprocess, layout, color, height, width)

    def sample(self, pixels: Array) -> Array:
        """uint8[h, w, c] as the model takes it, repeated over its batch."""
        p = self.preprocess
        scaled = (pixels.astype(np.float64) * p.scale - np.array(p.mean)) / np.array(p.std)
        image = scaled.transpose(2, 0, 1) if self.layout == "nchw" else scaled
        dtype = np.dtype(self.info.dtype)
        if dtype.kind != "f":
            image = np.clip(np.rint(image), np.iinfo(dtype).min, np.iinfo(dtype).max)
        return np.repeat(image[None], self.info.shape[0], axis=0).astype(dtype)


def _chosen(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"calibration folder {folder} holds no image ({', '.join(SUFFIXES)})")
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), MOST_IMAGES)).round().astype(int)
    return [paths[index] for index in chosen]


def _pixels(path: Path, target: _Target) -> Array:
    """uint8[height, width, channels]."""
    try:
        from PIL import Image, ImageOps  # noqa: PLC0415
    except ImportError as error:
        raise OptionError("calibrating with images needs Pillow: install npu-backend[models]") from error
    size = (target.width, target.height)
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("L" if target.color == "gray" else "RGB")
            bilinear = Image.Resampling.BILINEAR
            fitted = (ImageOps.fit(image, size, bilinear) if target.preprocess.fit == "crop"
                      else image.resize(size, bilinear))  # fmt: skip
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"calibration image {path} cannot be read: {error}; repair or remove it") from error
    pixels = np.asarray(fitted).reshape(target.height, target.width, -1)
    return pixels[:, :, ::-1] if target.color == "bgr" else pixels


def _split(text: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not value:
            raise OptionError(f'--preprocess: {part!r} cannot be read; write "mean=0.5;std=0.5;scale=1/255;layout=nchw;'
                              'color=rgb", or name a .toml or .json file')  # fmt: skip
        yield key, value


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text("utf-8")
        values = json.loads(text) if path.suffix == ".json" else _toml(text)
    except OSError as error:
        raise OptionError(f"--preprocess {path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise OptionError(f"--preprocess {path}: is not {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(values, dict):
        raise OptionError(f"--preprocess {path}: holds no keys; write mean, std, scale, layout, color, fit")
    return values


def _toml(text: str) -> Mapping[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415
    else:
        import tomli as tomllib  # noqa: PLC0415
    return tomllib.loads(text)


def _value(key: str, value: Any) -> Any:
    if key in _CHOICES:
        word = str(value).lower()
        if word not in _CHOICES[key]:
            raise OptionError(f"--preprocess: {key} = {value} is unknown; choose {', '.join(_CHOICES[key])}")
        return word
    numbers = _numbers(key, value)
    if key == "std" and 0 in numbers:
        raise OptionError(f"--preprocess: std = {value} divides by zero")
    if key != "scale":
        return numbers
    if len(numbers) != 1:
        raise OptionError(f"--preprocess: scale = {value}; give one number")
    return numbers[0]


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    parts = value.strip("[] ").split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        # Fraction reads 1/255 as well as 0.5 and 1e-3.
        numbers = tuple(float(Fraction(str(part).strip())) for part in parts)
    except (ValueError, ZeroDivisionError):
        raise OptionError(f"--preprocess: {key} = {value} is no list of numbers") from None
    if not numbers:
        raise OptionError(f"--preprocess: {key} has no number")
    return numbers
