"""Operators that are functions of others: written out, named after the operator, equal to ONNX's reference."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tvm_ext.onnx_cleanup import clean
from tvm_ext.onnx_functions import without_functions
from tvm_ext.onnx_origin import origins

OPSET = 23


def attention() -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4, 8]) for name in ("q", "k", "v", "y")]
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], name="look")
    graph = helper.make_graph([node], "attention", values[:3], values[3:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=11)


def with_own_function() -> onnx.ModelProto:
    body = [helper.make_node("Add", ["a", "a"], ["t"]), helper.make_node("Neg", ["t"], ["b"])]
    function = helper.make_function("own", "MinusTwice", ["a"], ["b"], body, [helper.make_opsetid("", OPSET)])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in "xy"]
    node = helper.make_node("MinusTwice", ["x"], ["y"], name="look", domain="own")
    graph = helper.make_graph([node], "own", values[:1], values[1:])
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=11, functions=[function])


@pytest.mark.parametrize("model", [attention(), with_own_function()], ids=["Attention", "MinusTwice"])
def test_a_body_is_equal_and_named_after_the_operator(model: onnx.ModelProto) -> None:
    written = without_functions(model)
    assert model.graph.node[0].op_type not in {node.op_type for node in written.graph.node}
    assert {origin for node in written.graph.node for origin in origins(node)} == {
        ("look", model.graph.node[0].op_type)
    }
    generator = np.random.default_rng(0)
    feeds = {value.name: generator.standard_normal([dim.dim_value for dim in value.type.tensor_type.shape.dim],
                                                   np.float32) for value in model.graph.input}  # fmt: skip
    expected, found = (ReferenceEvaluator(each).run(None, feeds)[0] for each in (model, clean(model)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_model_without_functions_is_left_alone() -> None:
    plain = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) {y=Neg(x)}'
    )
    assert without_functions(plain) is plain
