"""Transposed convolutions that ONNX Runtime computes in integers.

ONNX Runtime has no integer ConvTranspose: it dequantises, convolves in float32 and quantises, and sums next to a tie
fall on either side of it. A 2x2 window of stride 2 writes every output once, so the same sums are those of a 1x1
convolution with four times the channels, which ONNX Runtime does in integers, and of DepthToSpace.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

WINDOW = (2, 2)


def with_integer_transposes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The QDQ model with every ConvTranspose as Conv, QuantizeLinear, DequantizeLinear and DepthToSpace.

    Output channel o of tap (i, j) is channel (2 i + j) O + o of the Conv, which is DepthToSpace's order DCR.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    graph = rewritten.graph
    producers = {node.output[0]: node for node in graph.node}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = {name: node for node in graph.node for name in node.input}
    nodes = []
    for node in graph.node:
        if node.op_type != "ConvTranspose":
            nodes.append(node)
            continue
        _check(node)
        for name in node.input[1:]:
            _repeat_channels(producers[name], constants)
        nodes += _replacement(node, readers[node.output[0]])
    del graph.node[:]
    graph.node.extend(nodes)
    # The weights' shapes in it are those before.
    del graph.value_info[:]
    return rewritten


def _check(node: onnx.NodeProto) -> None:
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert (*values["kernel_shape"],) == (*values["strides"],) == WINDOW, values
    assert values.get("group", 1) == 1, values
    assert not any(values.get("pads", ())), values
    assert not any(values.get("output_padding", ())), values


def _repeat_channels(dequantize: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> None:
    """Weights [C, O, 2, 2] become [4 O, C, 1, 1]; vectors over O, such as scales and bias, are repeated."""
    assert dequantize.op_type == "DequantizeLinear", dequantize.op_type
    taps = WINDOW[0] * WINDOW[1]
    for name in dequantize.input:
        array = numpy_helper.to_array(constants[name])
        if array.ndim == 4:
            inputs, outputs = array.shape[:2]
            array = array.transpose(2, 3, 1, 0).reshape(taps * outputs, inputs, 1, 1)
        elif array.ndim == 1 and array.size > 1:
            array = np.tile(array, taps)
        constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    for attribute in dequantize.attribute:
        if attribute.name == "axis":
            attribute.i = 0


def _replacement(node: onnx.NodeProto, quantize: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The same codes twice: once where the Conv ends, for the integer kernel, and once where the model had them."""
    assert quantize.op_type == "QuantizeLinear", quantize.op_type
    name, code = node.name, list(quantize.input[1:])
    return [
        helper.make_node("Conv", list(node.input), [f"{name}/conv"], f"{name}/conv", kernel_shape=[1, 1]),
        helper.make_node("QuantizeLinear", [f"{name}/conv", *code], [f"{name}/codes"], f"{name}/quantize"),
        helper.make_node("DequantizeLinear", [f"{name}/codes", *code], [f"{name}/deep"], f"{name}/dequantize"),
        helper.make_node(
            "DepthToSpace", [f"{name}/deep"], list(node.output), f"{name}/space", blocksize=WINDOW[0], mode="DCR"
        ),
    ]
