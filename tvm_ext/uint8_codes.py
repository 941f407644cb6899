"""The same quantised network with uint8 codes in place of int8: every code and zero point plus 128.

ONNX Runtime does this itself on x86 where one QuantizeLinear feeds one DequantizeLinear, and convolves in float where
it cannot. Done for the whole model, its integer kernels run everywhere; the function computed is the same.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

_SHIFT = 128
_CODING = ("QuantizeLinear", "DequantizeLinear")


def with_uint8_codes(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy of a QDQ model with uint8 activations, or None when no activation has int8 codes.

    Codes that enter or leave the model as they are keep their type, and so does everything they touch.
    """
    shifted = onnx.ModelProto()
    shifted.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in shifted.graph.initializer}
    coded = _coded_names(shifted, constants)
    if not coded:
        return None
    made: dict[str, str] = {}
    for node in shifted.graph.node:
        code = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0] if node.input else ""
        if node.op_type in _CODING and code in coded:
            node.input[2] = _shifted_constant(shifted, constants[node.input[2]], made)
    _drop_unread(shifted)
    return shifted


def _coded_names(model: onnx.ModelProto, constants: dict[str, onnx.TensorProto]) -> frozenset[str]:
    """Tensors of int8 codes that lie only between a QuantizeLinear and DequantizeLinears."""
    readers: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    outputs = {value.name for value in model.graph.output}
    return frozenset(
        node.output[0]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2] in constants
        and constants[node.input[2]].data_type == onnx.TensorProto.INT8
        and readers.get(node.output[0]) == {"DequantizeLinear"} and node.output[0] not in outputs
    )  # fmt: skip


def _shifted_constant(model: onnx.ModelProto, zero_point: onnx.TensorProto, made: dict[str, str]) -> str:
    if zero_point.name not in made:
        made[zero_point.name] = f"{zero_point.name}.uint8"
        value = (numpy_helper.to_array(zero_point).astype(np.int16) + _SHIFT).astype(np.uint8)
        model.graph.initializer.append(numpy_helper.from_array(value, made[zero_point.name]))
    return made[zero_point.name]


def _drop_unread(model: onnx.ModelProto) -> None:
    """Removes zero points nobody reads any more, and value types that no longer hold."""
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
