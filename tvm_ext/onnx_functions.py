"""Operators that are functions of others, written out: a model's own, and those of ONNX that TVM does not know.

ONNX gives such operators a body; each of its nodes stands for the operator in reports.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import inliner

from tvm_ext.onnx_graph import Nodes, name_nodes
from tvm_ext.onnx_opset import opset_of
from tvm_ext.onnx_origin import inherit

FUNCTIONS = (
    "AffineGrid", "Attention", "BlackmanWindow", "CenterCropPad", "Celu", "HammingWindow", "HannWindow",
    "NegativeLogLikelihoodLoss", "RotaryEmbedding", "SoftmaxCrossEntropyLoss",
)  # fmt: skip


def without_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or one of the same values without such operators; `model` has static input shapes."""
    if not model.functions and not any(map(_is_function, model.graph.node)):
        return model
    nodes = [_with_defaults(node, opset_of(model)) for node in name_nodes(model.graph.node)]
    inlined = inliner.inline_local_functions(_with_nodes(model, nodes))
    # The bodies of some depend on the types of their operands.
    inlined = onnx.shape_inference.infer_shapes(inlined, data_prop=True)
    inlined.graph.value_info.extend(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                                    for tensor in inlined.graph.initializer)  # fmt: skip
    chosen = [("", name) for name in FUNCTIONS]
    try:
        inlined = inliner.inline_selected_functions(inlined, chosen, inline_schema_functions=True)
    # The inliner's only error class, for a form of an operator that has no body.
    except RuntimeError:
        return model
    return _with_nodes(inlined, _with_origins(nodes, inlined.graph.node))


def _is_function(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in FUNCTIONS


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
