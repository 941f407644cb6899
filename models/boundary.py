"""Models that take and give codes: the paper's networks get their images as bytes, not as floats."""

from __future__ import annotations

import onnx
from onnx import numpy_helper
from onnx.helper import np_dtype_to_tensor_dtype


def with_codes_outside(model: onnx.ModelProto) -> onnx.ModelProto:
    """The quantised model without the QuantizeLinear behind its inputs and the DequantizeLinear before its outputs.

    An input with another reader and an output that no DequantizeLinear makes stay as they are.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for value in made.graph.input:
        _take_codes(made.graph, value)
    for value in made.graph.output:
        _give_codes(made.graph, value)
    onnx.checker.check_model(made)
    return made


def _take_codes(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> None:
    readers = [node for node in graph.node if value.name in node.input]
    if [node.op_type for node in readers] == ["QuantizeLinear"]:
        _rename(graph, readers[0].output[0], value.name)
        graph.node.remove(readers[0])
        _set_type(graph, readers[0], value)


def _give_codes(graph: onnx.GraphProto, value: onnx.ValueInfoProto) -> None:
    maker = next(node for node in graph.node if value.name in node.output)
    if maker.op_type == "DequantizeLinear":
        graph.node.remove(maker)
        _rename(graph, maker.input[0], value.name)
        _set_type(graph, maker, value)


def _set_type(graph: onnx.GraphProto, node: onnx.NodeProto, value: onnx.ValueInfoProto) -> None:
    """Gives the value the type of the node's zero point."""
    zero_point = next(tensor for tensor in graph.initializer if tensor.name == node.input[2])
    value.type.tensor_type.elem_type = np_dtype_to_tensor_dtype(numpy_helper.to_array(zero_point).dtype)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
