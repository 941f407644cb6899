"""Quantised constants in forms that everything behind the clean-up knows.

Codes of four bits become the same codes in eight. Constants with a scale per block have no counterpart in a tensor's
quantisation, nor in TVM: they become the real numbers they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_graph import Nodes, attribute

_BYTE: Mapping[int, type[np.integer]] = {onnx.TensorProto.INT4: np.int8, onnx.TensorProto.UINT4: np.uint8}


def plain_codes(nodes: Sequence[onnx.NodeProto], constants: Constants) -> Nodes:
    """The nodes without blocked DequantizeLinear of constants; `constants` change their types."""
    remaining = []
    for node in nodes:
        if node.op_type != "DequantizeLinear":
            remaining.append(node)
            continue
        for name in (node.input[0], *node.input[2:]):
            _widen(name, constants)
        if attribute(node, "block_size", 0) and all(name in constants for name in node.input):
            constants.add(node.output[0], _real_numbers(node, constants))
        else:
            remaining.append(node)
    return remaining


def _widen(name: str, constants: Constants) -> None:
    if name in constants and constants.data_type(name) in _BYTE:
        constants.add(name, constants[name].astype(_BYTE[constants.data_type(name)]))


def _real_numbers(node: onnx.NodeProto, constants: Constants) -> np.ndarray:
    codes, scale, *zero_point = (constants[name] for name in node.input)
    axis, size = attribute(node, "axis", 1), attribute(node, "block_size", 0)

    def along(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, size, axis).take(range(codes.shape[axis]), axis)

    centred = codes.astype(np.int32) - (along(zero_point[0]).astype(np.int32) if zero_point else 0)
    return np.asarray(centred.astype(scale.dtype) * along(scale))
