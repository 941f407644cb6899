"""Where the benchmark's models come from: the repository's networks, quantised as the paper has them, or ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx

from npu_backend.errors import OptionError
from tvm_ext.bench.paper import ACTIVATION_TYPES

STEM = "inception_v3_stem"
STEM_SIZE = 299
# Clocks do not depend on values, so calibrating may be short.
CALIBRATION_IMAGES = 1


@dataclass(frozen=True)
class Source:
    """A model by name: a network of the repository, or the ONNX file `path`."""

    name: str
    path: Path | None = None

    def __str__(self) -> str:
        return f"the network {self.name}" if self.path is None else str(self.path)

    def write(self, folder: Path) -> Path:
        """The ONNX file, built in `folder` where there is none; raises OptionError without the repository's networks.

        Raises what the quantiser does.
        """
        if self.path is not None:
            return self.path
        path = folder / f"{self.name}.onnx"
        onnx.save(_module("models.boundary").with_codes_outside(_built(self.name)), path)
        return path


def network_names() -> tuple[str, ...]:
    """The networks of the repository. Raises OptionError where there is no checkout."""
    return tuple(_module("models").NETWORKS)


def networks(names: Sequence[str]) -> list[Source]:
    """The networks of these names, all of the repository's for none.

    Raises OptionError for a name that is none.
    """
    known = network_names()
    for name in names:
        if name not in known:
            raise OptionError(f"no network {name!r}; there are {', '.join(known)}")
    return [Source(name) for name in names or known]


def distinct(sources: Sequence[Source]) -> tuple[Source, ...]:
    """The sources, each once. Raises OptionError for two of one name, as rows are told apart by it."""
    known: dict[str, Source] = {}
    for source in sources:
        if known.setdefault(source.name, source) != source:
            raise OptionError(f"{known[source.name]} and {source} would both be called {source.name}; rename a file")
    return tuple(known.values())


def _built(name: str) -> onnx.ModelProto:
    quantize = _module("models.quantize")
    settings = {"activation_type": ACTIVATION_TYPES[name]} if name in ACTIVATION_TYPES else {}
    model: onnx.ModelProto
    if name == STEM:
        stem = _module("models.inception_v3").inception_v3_stem(STEM_SIZE)
        model = quantize.quantize(stem, quantize.calibration_feeds(stem, CALIBRATION_IMAGES), **settings)
    else:
        model = quantize.build_quantized(name, images=CALIBRATION_IMAGES, **settings)
    return model


def _module(name: str) -> ModuleType | Any:
    """A module of the repository that is no part of an installed package."""
    import importlib  # noqa: PLC0415

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "models":
            raise
        raise OptionError(
            "npuc bench takes its networks from the folder models of the project's repository: run it in a checkout"
            " (python -m tvm_ext.cli bench), or name ONNX files to measure"
        ) from error
