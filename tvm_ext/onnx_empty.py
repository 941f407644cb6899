"""Values without elements taken out of a model: they are known before anything runs, and TVM takes no extent of 0.

What only makes them goes, and an operator that reads nothing else (a sum over no elements) becomes a constant. The
model's own inputs and outputs without elements go too: who runs it passes none and makes the outputs by their shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tvm_ext.onnx_cleanup import rebuild
from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_graph import skeleton
from tvm_ext.onnx_opset import opset_of

Shape = tuple[int, ...]


def without_empty(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, or one of the same values without those that have no elements; shapes must be static."""
    inferred = onnx.shape_inference.infer_shapes(skeleton(model), data_prop=True).graph
    values = _static_values((*inferred.input, *inferred.value_info, *inferred.output))
    empty = {name: shape_and_type for name, shape_and_type in values.items() if 0 in shape_and_type[0]}
    if not empty:
        return model
    constants = Constants(model.graph.initializer)
    for name, (shape, dtype) in empty.items():
        constants.add(name, np.zeros(shape, dtype))
    reducer = _Reducer(constants, set(empty), opset_of(model))
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    for declared in (shell.graph.input, shell.graph.output):
        kept = [value for value in declared if value.name not in empty]
        del declared[:]
        declared.extend(kept)
    return rebuild(shell, [node for original in model.graph.node for node in reducer.rest(original)], constants)


class _Reducer:
    """Decides node by node, in order; `known` are the values that follow from there being no elements."""

    def __init__(self, constants: Constants, known: set[str], opset: int) -> None:
        self._constants, self._known, self._opset = constants, known, opset

    def rest(self, node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        """What remains of the node."""
        if self._known.issuperset(filter(None, node.output)):
            return ()
        if self._known.isdisjoint(node.input):
            return (node,)
        if all(name in self._constants for name in node.input if name):
            self._evaluate(node)
            return ()
        return (self._without_empty_parts(node) if node.op_type == "Concat" else node,)

    def _evaluate(self, node: onnx.NodeProto) -> None:
        feeds = {name: self._constants[name] for name in node.input if name}
        values = ReferenceEvaluator(node, opsets={"": self._opset}).run(None, feeds)
        for name, value in zip(node.output, values, strict=True):
            self._known.add(self._constants.add(name, np.asarray(value)))

    def _without_empty_parts(self, node: onnx.NodeProto) -> onnx.NodeProto:
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        del kept.input[:]
        kept.input.extend(
            name for name in node.input if name not in self._constants or self._constants.element_count(name)
        )
        return kept


def _static_values(values: Iterable[onnx.ValueInfoProto]) -> Mapping[str, tuple[Shape, np.dtype[Any]]]:
    """Shape and data type by name, where all extents are known."""
    tensors = {value.name: value.type.tensor_type for value in values}
    return {
        name: (tuple(dim.dim_value for dim in tensor.shape.dim), helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        for name, tensor in tensors.items()
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim)
    }
