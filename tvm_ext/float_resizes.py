"""Interpolating Resizes kept in float between their DequantizeLinear and QuantizeLinear, as the file says.

Older releases of ONNX Runtime drop the two where their scales are equal and interpolate on the codes, truncating (its
issue 21319, mended by pull request 28414 in 2026). Their last release for Python 3.10 is one of them. A Resize whose
result is an output of the model is left alone, and computes what the newer releases do.
"""

from __future__ import annotations

import re

import onnx
from onnx import helper

# The oldest release known to keep them.
_KEEPS_THEM = (1, 32)


def with_float_resizes(model: onnx.ModelProto, version: str) -> onnx.ModelProto | None:
    """A copy of the model with every interpolating Resize among its outputs, after its own; None where ONNX Runtime
    `version` needs none.
    """
    names = [] if release(version) >= _KEEPS_THEM else _interpolating(model)
    if not names:
        return None
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    return exposed


def _interpolating(model: onnx.ModelProto) -> list[str]:
    """Resizes by a DequantizeLinear whose result is no output of the model yet, without those of mode nearest."""
    outputs = {value.name for value in model.graph.output}
    decoded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [node.output[0] for node in model.graph.node
            if node.op_type == "Resize" and node.input[0] in decoded and _mode(node) != "nearest"
            and node.output[0] not in outputs]  # fmt: skip


def _mode(node: onnx.NodeProto) -> str:
    return next((attribute.s.decode() for attribute in node.attribute if attribute.name == "mode"), "nearest")


def release(version: str) -> tuple[int, ...]:
    """Major and minor number of a version, to compare."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
