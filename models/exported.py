"""Graphs that an exporter wrote without their weights, given seeded ones.

They lie in a folder that the user names, in the environment or by argument: nothing is assumed of the machine. Every
float weight stands as a further graph input; the image is `input`.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from models.real import MissingModelError

FOLDER_VARIABLE = "NPU_EXPORTED_MODELS"
IMAGE = "input"


def exported_folder() -> Path:
    """The folder that the environment names; raises MissingModelError when it names none, or one without graphs."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        raise MissingModelError(f"the exported graphs are nowhere: set {FOLDER_VARIABLE} to the folder that holds them")
    if not exported_names(Path(folder)):
        raise MissingModelError(f"{FOLDER_VARIABLE}={folder}: no *.onnx in it; name the folder of the exported graphs")
    return Path(folder)


def exported_names(folder: Path) -> list[str]:
    """Names of the graphs in a folder, none if there is no such folder."""
    return sorted(path.stem for path in folder.glob("*.onnx"))


def with_weights(path: Path) -> onnx.ModelProto:
    """The graph with an initializer for every input but the image; He-normal weights, small normal biases."""
    model = onnx.load(path)
    weights = [value for value in model.graph.input if value.name != IMAGE]
    for value in weights:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        generator = np.random.default_rng(zlib.crc32(value.name.encode()))
        deviation = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.05
        array = generator.normal(0, deviation, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        model.graph.input.remove(value)
    return model
