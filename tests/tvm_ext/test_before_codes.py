"""Float operators that end in codes: in float32 on the NPU, of every machine where they begin at codes too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from npu_backend.reference import evaluate
from tests.tvm_ext.by_runtime import by_onnx_runtime
from tests.tvm_ext.small_models import Model, by_hand, feeds
from tvm_ext.onnx_cleanup import clean
from tvm_ext.relax import partition


def norm(*, escapes: bool) -> onnx.ModelProto:
    """x / sqrt(mean(x * x)), coded at its ends alone; with `escapes` the mean leaves the model as a float."""
    m = Model("norm")
    x = m.input(2, 5, 12)
    mean = m.op("ReduceMean", m.op("Pow", x, m.constant(2.0)), axes=[-1])
    y = m.op("Div", x, m.op("Sqrt", m.op("Add", mean, m.constant(1e-5))))
    model = by_hand(m.build(y), inside=False)
    if escapes:
        model.graph.output.append(onnx.helper.make_tensor_value_info(mean, onnx.TensorProto.FLOAT, [2, 5, 1]))
    return model


@pytest.mark.parametrize("computes_float", [False, True])
def test_enclosed_floats_equal_onnx_runtime(computes_float: bool) -> None:
    model = norm(escapes=False)
    parts = partition(clean(model), computes_float=computes_float)
    assert parts.host_ops == ()
    (graph,) = parts.graphs.values()
    assert {tensor.dtype for tensor in graph.tensors.values()} == {"uint8", "float32"}
    (feed,) = feeds(model)
    (expected,) = by_onnx_runtime(model, feed)
    np.testing.assert_array_equal(next(iter(evaluate(graph, feed).values())), expected)


def test_floats_that_leave_stay_on_a_host_beside_integers() -> None:
    hosted = {op.op for op in partition(clean(norm(escapes=True))).host_ops}
    assert hosted >= {"Pow", "ReduceMean", "Div"}


def test_movement_at_the_end_is_of_codes() -> None:
    m = Model("depth")
    model = by_hand(m.build(m.op("DepthToSpace", m.op("Relu", m.input(1, 8, 3, 5)), blocksize=2)))
    # The pair behind the movement is taken out: it reads codes and leaves floats.
    last = next(node for node in model.graph.node if node.op_type == "DepthToSpace")
    last.output[0] = model.graph.output[0].name
    kept = [node for node in model.graph.node if node is last or model.graph.output[0].name not in "".join(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    assert partition(clean(model)).host_ops == ()


def headed() -> onnx.ModelProto:
    """A float head that spreads the input over the codes' range, and a quantised operator behind it."""
    m = Model("head")
    x = m.input(2, 5, 12)
    low, high = (m.op(op, x, axes=[-1]) for op in ("ReduceMin", "ReduceMax"))
    y = m.op("Relu", m.op("Div", m.op("Sub", x, low), m.op("Sub", high, low)))
    return by_hand(m.build(y), inside=False)


def test_a_head_in_front_of_codes_is_exact_where_floats_are_computed() -> None:
    model = headed()
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "x0")
    for node in model.graph.node:
        # The input reaches the head as it is.
        node.input[:] = ["x0" if name == "x0.decoded" else name for name in node.input]
    model.graph.node.remove(first)
    model.graph.node.remove(next(node for node in model.graph.node if node.input[0] == "x0.codes"))
    parts = partition(clean(model), computes_float=True)
    assert parts.host_ops == ()
    (graph,) = parts.graphs.values()
    assert "float16" not in {tensor.dtype for tensor in graph.tensors.values()}
    (feed,) = feeds(model)
    (expected,) = by_onnx_runtime(model, feed)
    np.testing.assert_array_equal(next(iter(evaluate(graph, feed).values())), expected)
