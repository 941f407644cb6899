"""Parameters and multiply-accumulates of an ONNX model."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx

from npu_backend.errors import ModelError

FLOAT_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Count:
    """`parameters`: elements of floating-point weights; `macs`: of convolutions and matrix products, one inference."""

    parameters: int
    macs: int


def count(model: onnx.ModelProto) -> Count:
    """Count a float model; raises ModelError when a shape cannot be inferred."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = _shapes(inferred.graph)
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type in FLOAT_TYPES]
    parameters = sum(prod(tensor.dims) for tensor in weights)
    return Count(parameters, sum(_macs(node, shapes) for node in model.graph.node))


def _shapes(graph: onnx.GraphProto) -> Shapes:
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}
    shapes.update({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
    return shapes


def _macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    rule = _RULES.get(node.op_type)
    if rule is None:
        return 0
    unknown = [name for name in (node.input[0], node.input[1], node.output[0]) if not prod(shapes.get(name, (0,)))]
    if unknown:
        raise ModelError(
            f"{node.op_type} {node.name!r}: the shape of {unknown[0]!r} is not known; "
            "give the model static input shapes"
        )
    return rule(node, shapes)


def _conv(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Each output element takes one MAC per element of its filter."""
    return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])


def _conv_transpose(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Each input element meets every weight of its channel once."""
    return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])


def _matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    depth = shapes[node.input[0]][0 if transposed else -1]
    return prod(shapes[node.output[0]]) * depth


_RULES = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _matmul, "MatMul": _matmul}
