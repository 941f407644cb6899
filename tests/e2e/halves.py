"""A float model with every value rounded to half precision: what computing in float16 costs at least."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def with_halves(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and the result of every operator rounded once; the arithmetic itself stays in float32."""
    floats = {value.name for value in _values(model) if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    halves = {value.name: f"{value.name}.half" for value in model.graph.input if value.name in floats}
    nodes = [node for name, half in halves.items() for node in _rounding(name, half)]
    made = floats - {value.name for value in model.graph.output}
    for node in model.graph.node:
        exact = onnx.NodeProto()
        exact.CopyFrom(node)
        exact.input[:] = [halves.get(name, name) for name in node.input]
        exact.output[:] = [f"{name}.exact" if name in made else name for name in node.output]
        nodes += [exact, *(cast for name in node.output if name in made for cast in _rounding(f"{name}.exact", name))]
    weights = [_rounded(tensor) if tensor.data_type == TensorProto.FLOAT else tensor
               for tensor in model.graph.initializer]  # fmt: skip
    graph = helper.make_graph(nodes, model.graph.name, model.graph.input, model.graph.output, weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _rounded(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32), tensor.name)


def _values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return [*inferred.input, *inferred.value_info, *inferred.output]


def _rounding(name: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [name], [f"{result}.16"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{result}.16"], [result], to=TensorProto.FLOAT),
    ]
