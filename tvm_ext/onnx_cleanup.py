"""ONNX-level preparation for TVM's importer, shared by the TVM generations.

Every node gets a unique name (the origin of NPU operators in reports), QOperator forms become QDQ, constants fold, and
what ONNX Runtime's quantiser shares between consumers is given to each of them, which takes its own in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from tvm_ext.batch_norm import fold_batch_norms
from tvm_ext.onnx_branches import without_branches
from tvm_ext.onnx_codes import plain_codes
from tvm_ext.onnx_constants import Constants, fold
from tvm_ext.onnx_dynamic import expand_dynamic_quantization
from tvm_ext.onnx_functions import without_functions
from tvm_ext.onnx_fusion import View, fuse
from tvm_ext.onnx_gelu import gelu
from tvm_ext.onnx_graph import MICROSOFT, Nodes, attribute, name_nodes, skeleton
from tvm_ext.onnx_moves import move_onto_codes, saturate_inputs
from tvm_ext.onnx_normalization import normalization
from tvm_ext.onnx_opset import opset_of, raise_opset
from tvm_ext.onnx_origin import inherit
from tvm_ext.onnx_standard import to_standard
from tvm_ext.qoperator import to_qdq

# Operators whose rewriting asks for their input's shape.
_SHAPED = ("BatchNormalization", "ConvTranspose", "ReduceMean", "Shape", "Size", "Split")
_WINDOWED = ("Conv", "MaxPool", "AveragePool")

ShapeMap = Mapping[str, tuple[int, ...]]


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """An equivalent model ready for import; `model` must be valid with static input shapes (`load_model`)."""
    model = without_functions(raise_opset(model))
    opset = opset_of(model)
    constants = Constants(model.graph.initializer)

    def settle(nodes: Nodes, strict: bool) -> tuple[Nodes, ShapeMap]:
        """Folded until no shape that is known tells another."""
        while True:
            shapes = _infer_shapes(model, nodes, constants, strict=strict)
            folded = fold(nodes, constants, shapes, opset)
            if len(folded) == len(nodes):
                return folded, shapes
            nodes = folded

    nodes = without_branches(name_nodes(model.graph.node), constants, settle)
    nodes = to_standard(nodes, constants, _shapes_of(model.graph), opset)
    nodes = expand_dynamic_quantization(to_qdq(nodes, constants, opset), constants)
    nodes, shapes = settle(nodes, False) if any(map(_needs_shapes, nodes)) else (fold(nodes, constants, {}, opset), {})
    nodes = plain_codes(nodes, constants)
    pinned = _pinned_names(model, nodes)
    nodes = drop_identities(nodes, constants, pinned)
    nodes = fuse(nodes, View.of(nodes, constants, shapes), pinned, (normalization, gelu))
    nodes = explicit_pads(nodes, shapes)
    nodes = saturate_inputs(nodes, frozenset(value.name for value in model.graph.input) - pinned, constants)
    nodes = move_onto_codes(nodes, constants, pinned)
    nodes = split_to_slices(nodes, constants, shapes)
    cleaned = rebuild(model, duplicate_dequantize(nodes, pinned), constants)
    fold_batch_norms(cleaned, shapes)
    return cleaned


def drop_identities(nodes: Nodes, constants: Constants, pinned: frozenset[str]) -> Nodes:
    """Identity and inference-time Dropout removed, their consumers reading the input; graph outputs keep theirs."""
    renamed: dict[str, str] = {}
    read = {name for node in nodes for name in node.input} | pinned
    kept = []
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        is_copy = node.op_type == "Identity" or (node.op_type == "Dropout" and _is_inference(node, constants))
        if is_copy and node.output[0] not in pinned and read.isdisjoint(node.output[1:]):
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    return kept


def explicit_pads(nodes: Nodes, shapes: ShapeMap) -> Nodes:
    """auto_pad of windowed operators, and output_shape of transposed ones, as pads where the input's shape is known."""
    for node in nodes:
        if node.op_type == "ConvTranspose" and attribute(node, "output_shape", None) and node.input[0] in shapes:
            _set_transposed_pads(node, shapes)
        mode = attribute(node, "auto_pad", b"NOTSET").decode()
        if node.op_type in _WINDOWED and mode.startswith("SAME") and node.input[0] in shapes:
            _set_pads(node, mode, shapes)
    return nodes


def split_to_slices(nodes: Nodes, constants: Constants, shapes: ShapeMap) -> Nodes:
    """Split as one Slice per part, which matches and moves by itself."""
    return [part for node in nodes
            for part in (_slices(node, constants, shapes) if node.op_type == "Split" else [node])]  # fmt: skip


def duplicate_dequantize(nodes: Nodes, pinned: frozenset[str]) -> Nodes:
    """One DequantizeLinear per use, so that each consumer takes its own into a match."""
    uses = Counter(name for node in nodes for name in node.input)
    copies: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        if node.op_type == "DequantizeLinear":
            own = 0 if node.output[0] in pinned else 1
            copies[node.output[0]] = [_copy(node, k) for k in range(1, uses[node.output[0]] - own + 1)]
    result: Nodes = []
    waiting = {name: [copy.output[0] for copy in made] for name, made in copies.items()}
    for node in nodes:
        for index, name in enumerate(node.input):
            if waiting.get(name):
                node.input[index] = waiting[name].pop()
        result += [node, *(copies.get(node.output[0], ()) if node.op_type == "DequantizeLinear" else ())]
    return result


def _needs_shapes(node: onnx.NodeProto) -> bool:
    return node.op_type in _SHAPED or attribute(node, "auto_pad", b"").startswith(b"SAME")


def _infer_shapes(model: onnx.ModelProto, nodes: Nodes, constants: Constants, *, strict: bool) -> ShapeMap:
    outline = skeleton(rebuild(model, nodes, constants))
    return _shapes_of(onnx.shape_inference.infer_shapes(outline, strict_mode=strict, data_prop=True).graph)


def _shapes_of(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The static extents that a graph tells."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        if value.type.tensor_type.HasField("shape") and all(dims):
            shapes[value.name] = dims
    return shapes


def _pinned_names(model: onnx.ModelProto, nodes: Nodes) -> frozenset[str]:
    """Values that must keep their names: the model's outputs and what subgraphs read from outside."""
    inner = {name for node in nodes for given in node.attribute
             for graph in (given.g, *given.graphs) for name in _names_in(graph)}  # fmt: skip
    return frozenset(inner | {value.name for value in model.graph.output})


def _names_in(graph: onnx.GraphProto) -> set[str]:
    names = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for node in graph.node:
        for given in node.attribute:
            names.update(*map(_names_in, (given.g, *given.graphs)))
    return names


def _is_inference(node: onnx.NodeProto, constants: Constants) -> bool:
    training = node.input[2] if len(node.input) > 2 else ""
    return not training or (training in constants and not constants[training].any())


def _set_transposed_pads(node: onnx.NodeProto, shapes: ShapeMap) -> None:
    """What is computed beyond the extents asked for is cut off, the odd one in front unless auto_pad is SAME_UPPER;
    what is missing follows as output_padding.
    """
    extents, kernel = shapes[node.input[0]][2:], shapes[node.input[1]][2:]
    wanted = np.array(attribute(node, "output_shape", None)[-len(extents) :])
    steps, spread = (np.array(attribute(node, name, None) or [1] * len(extents)) for name in ("strides", "dilations"))
    extra = np.array(attribute(node, "output_padding", None) or [0] * len(extents))
    beyond = steps * (np.array(extents) - 1) + extra + (np.array(kernel) - 1) * spread + 1 - wanted
    extra, beyond = extra - np.minimum(beyond, 0), np.maximum(beyond, 0)
    halves, rests = (beyond // 2).tolist(), (beyond - beyond // 2).tolist()
    upper = attribute(node, "auto_pad", b"NOTSET") == b"SAME_UPPER"
    _replace_pads(node, [*halves, *rests] if upper else [*rests, *halves], "output_shape", "output_padding")
    node.attribute.append(helper.make_attribute("output_padding", extra.tolist()))


def _replace_pads(node: onnx.NodeProto, pads: Sequence[int], *dropped: str) -> None:
    kept = [given for given in node.attribute if given.name not in ("auto_pad", "pads", *dropped)]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("pads", list(pads))])


def _set_pads(node: onnx.NodeProto, mode: str, shapes: ShapeMap) -> None:
    extents = shapes[node.input[0]][2:]
    kernel = attribute(node, "kernel_shape", None) or shapes[node.input[1]][2:]
    strides = attribute(node, "strides", None) or [1] * len(extents)
    dilations = attribute(node, "dilations", None) or [1] * len(extents)
    before, after = [], []
    for extent, k, stride, dilation in zip(extents, kernel, strides, dilations, strict=True):
        total = max(0, (-(-extent // stride) - 1) * stride + (k - 1) * dilation + 1 - extent)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    _replace_pads(node, before + after)


def _slices(node: onnx.NodeProto, constants: Constants, shapes: ShapeMap) -> Nodes:
    axis = int(attribute(node, "axis", 0))
    lengths = _split_lengths(node, constants, shapes, axis)
    if lengths is None:
        return [node]
    bounds = np.cumsum([0, *lengths])
    slices = []
    for index, output in enumerate(node.output):
        name = f"{node.name}:{index}"
        values = {"starts": bounds[index], "ends": bounds[index + 1], "axes": axis}
        operands = [constants.add(f"{name}.{key}", np.array([value], np.int64)) for key, value in values.items()]
        part = helper.make_node("Slice", [node.input[0], *operands], [output], name=name)
        slices.append(inherit(part, [node]))
    return slices


def _split_lengths(node: onnx.NodeProto, constants: Constants, shapes: ShapeMap, axis: int) -> Sequence[int] | None:
    listed = attribute(node, "split", None)
    if listed:
        return list(listed)
    if len(node.input) > 1 and node.input[1]:
        return [int(length) for length in constants[node.input[1]]] if node.input[1] in constants else None
    if node.input[0] not in shapes:
        return None
    extent, parts = shapes[node.input[0]][axis], len(node.output)
    step = -(-extent // parts)
    return [min(step, extent - step * i) for i in range(parts)]


def _copy(node: onnx.NodeProto, index: int) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name, copy.output[0] = f"{node.name}:{index}", f"{node.output[0]}:{index}"
    return copy


def rebuild(model: onnx.ModelProto, nodes: Nodes, constants: Constants) -> onnx.ModelProto:
    """The model with other nodes, and the constants these and the outputs read."""
    used = {name for node in nodes for name in node.input} | _pinned_names(model, nodes)
    weights = {tensor.name for tensor in model.graph.initializer}
    graph = onnx.GraphProto(name=model.graph.name)
    graph.node.extend(nodes)
    graph.initializer.extend(constants.tensors(used))
    graph.input.extend(value for value in model.graph.input if value.name not in weights)
    graph.output.extend(model.graph.output)
    rebuilt = onnx.ModelProto(ir_version=model.ir_version)
    rebuilt.opset_import.extend(model.opset_import)
    domains = {entry.domain for entry in model.opset_import}
    if MICROSOFT not in domains and any(node.domain == MICROSOFT for node in nodes):
        rebuilt.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    rebuilt.graph.CopyFrom(graph)
    return rebuilt
