"""The networks quantised: photographs for calibration, and what is left in float; the quantiser is tvm_ext.quantize."""

from __future__ import annotations

from typing import Any

import onnx

from models import build
from models.count import count
from models.photographs import calibration_images
from npu_backend.errors import ModelError
from tvm_ext.calibration import Feed
from tvm_ext.onnx_load import input_infos
from tvm_ext.quantize import Settings, quantize

__all__ = ["Feed", "Settings", "build_quantized", "calibration_feeds", "float_nodes", "quantize"]

# UNet at 572 takes 239 GMAC for one image: two of them are calibrated in 20 s.
CALIBRATION_MACS = 100_000_000_000


def calibration_feeds(model: onnx.ModelProto, images: int = 8) -> list[Feed]:
    """Photographs cropped and resized to the model's only input, float32[1, 1 or 3, height, width] in [-1, 1]."""
    inputs = input_infos(model)
    if len(inputs) != 1:
        names = ", ".join(info.name for info in inputs)
        raise ModelError(f"{model.graph.name}: photographs need one image input, it has {len(inputs)} ({names})")
    shape = list(inputs[0].shape)
    if len(shape) != 4 or min(shape) < 1:
        raise ModelError(f"input {inputs[0].name!r} has shape {shape}; photographs need a static NCHW shape")
    _, channels, height, width = shape
    return [{inputs[0].name: image} for image in calibration_images(height, width, channels, images)]


def build_quantized(
    name: str, input_size: int | None = None, seed: int = 0, images: int | None = None, **settings: Any
) -> onnx.ModelProto:
    """The network `name` of models.build, quantised on `images` photographs; `settings` as quantize() takes them.

    By default 8 photographs, or as many (at least two) as CALIBRATION_MACS allows.
    """
    model = build(name, input_size, seed)
    affordable = max(2, min(8, CALIBRATION_MACS // count(model).macs))
    return quantize(model, calibration_feeds(model, affordable if images is None else images), **settings)


def float_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of a QDQ model that no DequantizeLinear and QuantizeLinear wrap on every side: they stay in float."""
    inside: set[str] = {tensor.name for tensor in model.graph.initializer} | {""}
    to_integer: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            inside.add(node.output[0])
        if node.op_type == "QuantizeLinear":
            to_integer.add(node.input[0])
    return [
        node
        for node in model.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
        and not (inside.issuperset(node.input) and to_integer.issuperset(node.output))
    ]
