"""Models of one node, made from the operands' arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def normal(*shape: int) -> np.ndarray:
    """Normal numbers, the same at every call of a shape."""
    return np.random.default_rng(sum(shape)).normal(0, 1, shape).astype(np.float32)


def one_node(op_type: str, operands: Sequence[np.ndarray | None], constants: Sequence[int] = (), *, opset: int = 18,
             outputs: int = 1, domain: str = "", **attributes: Any) -> onnx.ModelProto:  # fmt: skip
    """The checked model: operands that are None are left out, those numbered in `constants` are initializers."""
    given = {index: value for index, value in enumerate(operands) if value is not None}
    names = [f"x{index}" if index in given else "" for index in range(len(operands))]
    results = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op_type, names, results, name="node", domain=domain, **attributes)
    inputs = [helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
              for i, v in given.items() if i not in constants]  # fmt: skip
    weights = [numpy_helper.from_array(np.asarray(given[i]), f"x{i}") for i in constants]
    graph = helper.make_graph([node], op_type, inputs, [onnx.ValueInfoProto(name=name) for name in results], weights)
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return _typed(helper.make_model(graph, opset_imports=imports, ir_version=10))


def feed_of(model: onnx.ModelProto, operands: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
    """The computed operands by name."""
    given = {f"x{index}": value for index, value in enumerate(operands) if value is not None}
    return {value.name: given[value.name] for value in model.graph.input}


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """With the outputs' types, which ONNX Runtime asks for; float where ONNX does not know the operator."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in inferred.graph.output:
        if not value.type.HasField("tensor_type"):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return inferred
