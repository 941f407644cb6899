"""If as a choice between values, and scalars in and out, against ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from npu_backend.errors import ModelError, UnsupportedError
from tests.cli.float_model import SHAPE, float_model, samples
from tvm_ext.driver import PackageRunner, compile_model, import_model
from tvm_ext.onnx_cleanup import clean
from tvm_ext.onnx_load import fix_shapes
from tvm_ext.onnx_origin import origins
from tvm_ext.quantize import quantize

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


def branch(name: str, nodes: Sequence[NodeProto], outputs: Sequence[str]) -> GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs])


def model_of(nodes: Sequence[NodeProto], outputs: Sequence[str], flags: Sequence[str]) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", FLOAT, [1, 4])]
    inputs += [helper.make_tensor_value_info(flag, BOOL, []) for flag in flags]
    ends = [helper.make_tensor_value_info(name, FLOAT, [1, 4]) for name in outputs]
    graph = helper.make_graph(nodes, "choice", inputs, ends, [numpy_helper.from_array(np.float32(3), "three")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def one_output() -> onnx.ModelProto:
    then = branch("then", [helper.make_node("Mul", ["r", "three"], ["t"])], ["t"])
    other = branch("else", [helper.make_node("Neg", ["r"], ["e"])], ["e"])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("If", ["flag"], ["y"], name="choice", then_branch=then, else_branch=other),
        helper.make_node("Add", ["y", "r"], ["z"], name="last"),
    ]
    return model_of(nodes, ["z"], ["flag"])


def nested() -> onnx.ModelProto:
    """Two outputs, a choice within a choice, and a branch that is a value from outside."""
    inner_then = branch("inner_then", [helper.make_node("Abs", ["x"], ["it"])], ["it"])
    inner_else = branch("inner_else", [helper.make_node("Exp", ["x"], ["ie"])], ["ie"])
    inner = helper.make_node("If", ["second"], ["i"], name="inner", then_branch=inner_then, else_branch=inner_else)
    then = branch("then", [inner, helper.make_node("Neg", ["i"], ["n"])], ["i", "n"])
    other = branch("else", [helper.make_node("Identity", ["x"], ["e"]), helper.make_node("Mul", ["x", "x"], ["m"])],
                   ["e", "m"])  # fmt: skip
    nodes = [helper.make_node("If", ["first"], ["a", "b"], name="outer", then_branch=then, else_branch=other)]
    return model_of(nodes, ["a", "b"], ["first", "second"])


def run_both(model: onnx.ModelProto, path: Path, feed: dict[str, np.ndarray]) -> None:
    onnx.save(model, path)
    compiled = compile_model(path, machine="m", cores=1, strategy="single", compile_graph=lambda graph: b"")
    with PackageRunner(compiled.package) as runner:
        outputs = runner.run(feed)
    expected = onnxruntime.InferenceSession(str(path)).run(list(outputs), feed)
    for actual, wanted in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-6)
        assert actual.shape == wanted.shape


@pytest.mark.parametrize("flag", [False, True])
def test_choice(tmp_path: Path, flag: bool) -> None:
    x = np.array([[-2, -1, 0.5, 3]], np.float32)
    run_both(one_output(), tmp_path / "model.onnx", {"x": x, "flag": np.array(flag)})


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_choice_in_a_choice(tmp_path: Path, first: bool, second: bool) -> None:
    x = np.array([[-2, -1, 0.5, 3]], np.float32)
    run_both(nested(), tmp_path / "model.onnx", {"x": x, "first": np.array(first), "second": np.array(second)})


@pytest.mark.parametrize("flag", [False, True])
def test_constant_condition_chooses(flag: bool) -> None:
    model = one_output()
    del model.graph.input[1]
    model.graph.initializer.append(numpy_helper.from_array(np.array(flag), "flag"))
    cleaned = clean(model)
    assert [node.op_type for node in cleaned.graph.node] == ["Relu", "Mul" if flag else "Neg", "Add"]
    feed = {"x": np.array([[-2, -1, 0.5, 3]], np.float32)}
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    actual = onnxruntime.InferenceSession(cleaned.SerializeToString()).run(None, feed)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("impossible", ["then_branch", "else_branch"])
def test_a_branch_that_cannot_run(impossible: str) -> None:
    """Its product needs other extents than the input has: no run that succeeds takes it."""
    model = one_output()
    (choice,) = (node for node in model.graph.node if node.op_type == "If")
    wrong = next(attribute.g for attribute in choice.attribute if attribute.name == impossible)
    wrong.node[0].CopyFrom(helper.make_node("MatMul", ["r", "r"], [wrong.output[0].name]))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.CopyFrom(helper.make_tensor_type_proto(FLOAT, ["n", "k"]))
    cleaned = clean(fix_shapes(model, {"x": [1, 4]}))
    kinds = [node.op_type for node in cleaned.graph.node]
    assert kinds == ["Relu", "Neg" if impossible == "then_branch" else "Mul", "Add"]
    feed = {"x": np.array([[-2, -1, 0.5, 3]], np.float32), "flag": np.array(impossible == "else_branch")}
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    actual = onnxruntime.InferenceSession(cleaned.SerializeToString()).run(None, feed)
    np.testing.assert_array_equal(actual, expected)


def test_names_and_origins() -> None:
    nodes = {node.name: origins(node) for node in clean(one_output()).graph.node}
    assert list(nodes) == ["relu", "choice/then/Mul_0", "choice/else/Neg_0", "choice", "last"]
    assert nodes["choice"] == (("choice", "If"),)
    assert {o for node in clean(nested()).graph.node for o in origins(node)} >= {("outer", "If")}


def test_branches_of_different_shapes(tmp_path: Path) -> None:
    model = one_output()
    del model.graph.node[2]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", FLOAT, ["n", "m"]))
    (choice,) = (node for node in model.graph.node if node.op_type == "If")
    other = next(attribute.g for attribute in choice.attribute if attribute.name == "else_branch")
    other.node[0].CopyFrom(helper.make_node("ReduceSum", ["r"], ["e"], keepdims=0))
    onnx.save(model, tmp_path / "model.onnx")
    refusal = r"If 'choice': one branch gives .*export the model with the same shape"
    with pytest.raises(UnsupportedError, match=refusal):
        clean(model)
    # TVM has control flow on the host.
    reasons = {operator.reason for operator in import_model(tmp_path / "model.onnx").partitioned.host_ops}
    assert all(re.search(refusal, reason) for reason in reasons)


def test_scalar_output(tmp_path: Path) -> None:
    model = float_model()
    model.graph.node.append(helper.make_node("ReduceMax", ["scores"], ["best"], keepdims=0))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("best", FLOAT, []))
    run_both(model, tmp_path / "model.onnx", {"image": samples(1).reshape(SHAPE)})


def test_nothing_to_quantise() -> None:
    feed = {"x": np.ones((1, 4), np.float32), "first": np.array(True), "second": np.array(True)}
    with pytest.raises(ModelError, match=r"takes none of its operators \(If\), nor what is inside an If"):
        quantize(nested(), [feed])
