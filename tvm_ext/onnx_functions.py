"""Operators that are functions of others, written out: a model's own, and those of ONNX that TVM does not know.

ONNX gives such operators a body; each of its nodes stands for the operator in reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx
from onnx import inliner

from tvm_ext.onnx_graph import Nodes, name_nodes
from tvm_ext.onnx_opset import opset_of
from tvm_ext.onnx_origin import inherit

FUNCTIONS = (
    "AffineGrid", "Attention", "BlackmanWindow", "CenterCropPad", "HammingWindow", "HannWindow",
    "NegativeLogLikelihoodLoss", "RotaryEmbedding", "SoftmaxCrossEntropyLoss",
)  # fmt: skip
# Of the functions that are made of bodies.
_DOMAIN = "npu.bodies"


def without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or one of the same values without such operators; `model` has static input shapes."""
    if not model.functions and not any(map(_is_function, model.graph.node)):
        return model
    nodes = [_with_defaults(node, opset_of(model)) for node in name_nodes(model.graph.node)]
    inlined = inliner.inline_local_functions(_with_nodes(model, nodes))
    try:
        while any(map(_is_function, inlined.graph.node)):
            inlined = _inlined_once(inlined)
    # A form of an operator that has no body: RuntimeError is ONNX's only error class.
    except (RuntimeError, ValueError):
        return model
    return _with_nodes(inlined, _with_origins(nodes, inlined.graph.node))


def _is_function(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in FUNCTIONS


def _inlined_once(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bodies become functions of the model: onnx before 1.19 puts in no others, and bodies may hold such operators."""
    typed = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {value.name: value.type for value in (*typed.input, *typed.value_info, *typed.output)}
    types |= {tensor.name: onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
              for tensor in model.graph.initializer}  # fmt: skip
    bodies = {index: _body(node, index, types, opset_of(model)) for index, node in enumerate(model.graph.node)
              if _is_function(node)}  # fmt: skip
    nodes = [_calling(node, bodies[index]) if index in bodies else node for index, node in enumerate(model.graph.node)]
    calling = _with_nodes(model, nodes)
    calling.functions.extend(bodies.values())
    calling.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    inlined = inliner.inline_local_functions(calling)
    kept = [each for each in inlined.opset_import if each.domain != _DOMAIN]
    del inlined.opset_import[:]
    inlined.opset_import.extend(kept)
    return inlined


def _body(node: onnx.NodeProto, index: int, types: Mapping[str, onnx.TypeProto], opset: int) -> onnx.FunctionProto:
    """What ONNX says that an operator is; that of some depends on the types of the operands.

    Raises RuntimeError or ValueError where ONNX says nothing.
    """
    # onnx's stubs know no functions of a schema.
    schema: Any = onnx.defs.get_schema(node.op_type, opset, "")
    body = onnx.FunctionProto()
    if schema.has_function:
        version = max(each for each in schema.function_opset_versions if each <= opset)
        body.ParseFromString(schema.get_function_with_opset_version(version))
    else:
        version = max(each for each in schema.context_dependent_function_opset_versions if each <= opset)
        operands = [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input]
        told = node.SerializeToString()
        body.ParseFromString(schema.get_context_dependent_function_with_opset_version(version, told, operands))
    if not body.node:
        raise RuntimeError(node.op_type)
    body.domain, body.name = _DOMAIN, f"{node.op_type}_{index}"
    del body.opset_import[:]
    body.opset_import.append(onnx.helper.make_opsetid("", opset))
    return body


def _calling(node: onnx.NodeProto, body: onnx.FunctionProto) -> onnx.NodeProto:
    call = onnx.NodeProto()
    call.CopyFrom(node)
    call.domain, call.op_type = body.domain, body.name
    return call


def _with_defaults(node: onnx.NodeProto, opset: int) -> onnx.NodeProto:
    """Attributes that are left out, given: bodies refer to them."""
    if _is_function(node):
        given = {each.name for each in node.attribute}
        for name, described in onnx.defs.get_schema(node.op_type, opset, "").attributes.items():
            if name not in given and described.default_value.type:
                node.attribute.append(described.default_value)
    return node


def _with_nodes(model: onnx.ModelProto, nodes: Nodes) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def _with_origins(originals: Nodes, nodes: Iterable[onnx.NodeProto]) -> Nodes:
    """Bodies stand in the order of their operators; one ends with the operator's last output."""
    waiting = iter(originals)
    result, left, original = [], set[str](), None
    for node in nodes:
        if not left:
            original = next(waiting, original)
            left = {name for name in original.output if name} if original is not None else set()
        left -= set(node.output)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if original is not None and node.name != original.name:
            copy.name = f"{original.name}.{node.op_type}"
            inherit(copy, [original])
        result.append(copy)
    return result
