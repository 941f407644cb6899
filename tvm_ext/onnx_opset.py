"""The operator set of an ONNX model: which are taken; older ones are raised to one that TVM's importer knows well."""

from __future__ import annotations

import onnx
from onnx import helper

from npu_backend.errors import ModelError

# Older operator versions carry as attributes what TVM's importer expects as operands.
OLDEST_OPSET = 11
NEWEST_OPSET = 24
# From this one on, reductions take their axes as an operand.
REDUCE_AXES_OPERAND = 18
_RAISED_OPSET = 13
# Up to this one, Resize (Upsample before) has no modes of coordinates: x / scale, rounded down.
_PLAIN_RESIZE_OPSET = 10


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def raise_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at opset 11 or later; raises ModelError for one that cannot be raised, or is newer than is known."""
    opset = opset_of(model)
    if opset > NEWEST_OPSET:
        raise ModelError(f"{model.graph.name}: opset {opset} is newer than {NEWEST_OPSET}, the newest known; export it"
                         f" with opset {NEWEST_OPSET} or earlier")  # fmt: skip
    if opset >= OLDEST_OPSET:
        return model
    raised = _converted(model, opset)
    if opset <= _PLAIN_RESIZE_OPSET:
        _mend_resizes(raised.graph)
    return raised


def _converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    try:
        return onnx.version_converter.convert_version(model, _RAISED_OPSET)
    except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{model.graph.name}: opset {opset} is older than {OLDEST_OPSET} and cannot be converted"
            f" ({reason}); export it with opset {_RAISED_OPSET} or later"
        ) from error


def _mend_resizes(graph: onnx.GraphProto) -> None:
    """ONNX's converter leaves out what the old operator meant, so that the new one's defaults would hold."""
    for node in (node for node in graph.node if node.op_type == "Resize"):
        node.attribute.extend([
            helper.make_attribute("coordinate_transformation_mode", "asymmetric"),
            helper.make_attribute("nearest_mode", "floor"),
        ])  # fmt: skip
