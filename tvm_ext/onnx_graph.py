"""What rewriting asks of a list of ONNX nodes: attributes, who makes a value, who reads it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import onnx
from onnx import helper

Nodes = list[onnx.NodeProto]
MICROSOFT = "com.microsoft"
# Shapes and axes are smaller; the values of weights do not matter here, and take a second to copy.
PARAMETER_ELEMENTS = 1024


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute, `default` where it is left out."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def operand(node: onnx.NodeProto, index: int) -> str:
    """The name of an operand, empty where it is left out."""
    return node.input[index] if index < len(node.input) else ""


def name_nodes(nodes: Sequence[onnx.NodeProto]) -> Nodes:
    """Copies of the nodes, each under a name of its own; names that are there and unique stay."""
    taken = {node.name for node in nodes}
    seen: set[str] = set()
    named = []
    for index, node in enumerate(nodes):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if not node.name or node.name in seen:
            copy.name = _free_name(node.name or f"{node.op_type}_{index}", taken)
            taken.add(copy.name)
        seen.add(copy.name)
        named.append(copy)
    return named


def producers_of(nodes: Sequence[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    """The node that makes each value."""
    return {name: node for node in nodes for name in node.output}


def readers_of(nodes: Sequence[onnx.NodeProto]) -> dict[str, Nodes]:
    """The nodes that read each value, once for every operand."""
    readers: dict[str, Nodes] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights declared only, for shape inference."""
    # Before version 4 an initializer tells its shape only where it is an input too.
    result = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    result.opset_import.extend(model.opset_import)
    graph = result.graph
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= PARAMETER_ELEMENTS:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return result


def _free_name(stem: str, taken: set[str]) -> str:
    return next(name for i in range(len(taken) + 1) if (name := f"{stem}_{i}" if i else stem) not in taken)
