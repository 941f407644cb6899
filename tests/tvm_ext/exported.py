"""The weightless graphs that torch exported, given seeded weights: what real exporters emit."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

FOLDER = Path(__file__).parents[3] / "shared" / "models"


def exported_names() -> list[str]:
    """Names of the graphs that are there."""
    return sorted(path.stem for path in FOLDER.glob("*.onnx"))


def with_weights(name: str) -> onnx.ModelProto:
    """The graph with an initializer for every input but the image; He-normal weights, small normal biases."""
    model = onnx.load(FOLDER / f"{name}.onnx")
    weights = [value for value in model.graph.input if value.name != "input"]
    for value in weights:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        generator = np.random.default_rng(zlib.crc32(value.name.encode()))
        deviation = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.05
        array = generator.normal(0, deviation, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        model.graph.input.remove(value)
    return model
