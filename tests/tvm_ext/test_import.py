"""Small quantised models through the importer: the NPU graph as text, and its values against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from npu_backend.graph import Graph
from npu_backend.reference import evaluate
from tests.tvm_ext.small_models import BUILDERS, FUNCTIONS_OF_ONE, feeds, quantized_small
from tvm_ext.onnx_cleanup import clean
from tvm_ext.relax import Partitioned, partition

SETTINGS: dict[str, dict[str, Any]] = {
    "uint8": {},
    "int8": {"activation_type": "int8", "symmetric": True},
    "per_tensor": {"activation_type": "int8", "per_channel": False},
    "qoperator": {"form": "qoperator"},
}
# The quantiser's QOperator form leaves these in float, and Atan is left to the host on purpose.
FLOAT_IN_QOPERATOR = {"conv_transpose", "global_average_pool", "hard_swish", "pad"}
ON_NPU = sorted(set(BUILDERS) - {"float_middle"})
# Releases of ONNX Runtime's quantiser compute scales that differ in float32's last bit.
SCALE_DIGITS = 6
CASES = [(name, form) for form in SETTINGS for name in ON_NPU
         if form != "qoperator" or name not in FLOAT_IN_QOPERATOR]  # fmt: skip


def outputs_of(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ONNX Runtime's default session; its 8-bit products without saturation of 16-bit sums."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def only_graph(partitioned: Partitioned) -> Graph:
    assert partitioned.host_ops == ()
    (graph,) = partitioned.graphs.values()
    return graph


@pytest.mark.parametrize("name", ON_NPU)
def test_graph_text(name, golden):
    golden.check(str(only_graph(partition(clean(quantized_small(name))))), digits=SCALE_DIGITS)


def with_float_activation(name: str) -> onnx.ModelProto:
    """Convolution and activation without codes between them: the symmetric quantiser's pair is taken out."""
    model = quantized_small(name, **SETTINGS["int8"])
    producers = {output: node for node in model.graph.node for output in node.output}
    (activation,) = (node for node in model.graph.node if node.op_type in ("Relu", "Clip"))
    dequantize = producers[activation.input[0]]
    quantize = producers[dequantize.input[0]]
    activation.input[0] = quantize.input[0]
    model.graph.node.remove(dequantize)
    model.graph.node.remove(quantize)
    return model


@pytest.mark.parametrize(("name", "clamp"), [("conv_relu", (0, 127)), ("conv_clip", (-42, 127))])
def test_activation_becomes_clamp(name, clamp, golden):
    model = with_float_activation(name)
    graph = only_graph(partition(clean(model)))
    assert next(op for op in graph.ops if op.kind == "conv2d").attributes.clamp == clamp
    golden.check(str(graph), digits=SCALE_DIGITS)


@pytest.mark.parametrize(("name", "form"), CASES)
def test_values_equal_onnx_runtime(name, form):
    model = quantized_small(name, **SETTINGS[form])
    (inputs,) = feeds(model)
    expected = outputs_of(model, inputs)
    actual = evaluate(only_graph(partition(clean(model))), inputs)
    for output, values in expected.items():
        # Where ONNX Runtime computes in float between codes, one step of the output's scale.
        steps = np.unique(values)
        step = np.diff(steps).min() if len(steps) > 1 and name not in FUNCTIONS_OF_ONE else 0
        assert np.abs(actual[output] - values).max() <= step * 1.001, output


def test_origins_are_onnx_nodes():
    model = with_float_activation("conv_relu")
    graph = only_graph(partition(clean(model)))
    names = {node.name for node in model.graph.node}
    assert {name for op in graph.ops for name in op.origin} <= names
    assert next(op for op in graph.ops if op.kind == "conv2d").origin == ("conv", "relu")


def test_shared_dequantize_is_no_obstacle():
    model = quantized_small("shared_dequantize")
    readers = [name for node in model.graph.node for name in node.input]
    assert any(node.op_type == "DequantizeLinear" and readers.count(node.output[0]) > 1 for node in model.graph.node)
    kinds = [op.kind for op in only_graph(partition(clean(model))).ops]
    assert kinds.count("conv2d") == 2
    assert kinds.count("binary") == 2


def test_operator_of_the_host_splits_the_model():
    partitioned = partition(clean(quantized_small("float_middle")))
    assert [(op.name, op.op, op.reason) for op in partitioned.host_ops] == [("trilu", "Trilu", "the NPU has no Trilu")]
    assert list(partitioned.graphs) == ["npu_0", "npu_1"]
    assert {op.name: op.partition for op in partitioned.npu_ops if op.op == "Conv"} == {
        "conv": "npu_0",
        "conv1": "npu_1",
    }


def test_float_model_stays_on_the_host_with_reasons():
    partitioned = partition(clean(BUILDERS["conv_clip"]()))
    assert partitioned.graphs == {}
    assert [(op.name, op.reason) for op in partitioned.host_ops] == [
        ("conv", "not quantised: it reads float32 from the model's input 'x0'"),
        ("clip", "not quantised: it reads float32 from conv"),
    ]


def test_refused_weights_are_named():
    model = quantized_small("conv", weight_type="uint8", per_channel=False)
    reasons = {op.name: op.reason for op in partition(clean(model)).host_ops}
    assert reasons["conv"] == "Quantised weights must be 8-bit constants that fit int8 without their zero point"
    assert reasons["x0_QuantizeLinear"] == "the operators around it run on the host"


def test_uint8_weights_around_128_become_int8():
    model = quantized_small("conv", per_channel=False)
    (dequantize,) = (n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0].startswith("c0"))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    codes = onnx.numpy_helper.to_array(tensors[dequantize.input[0]]).astype(np.int16) + 128
    tensors[dequantize.input[0]].CopyFrom(onnx.numpy_helper.from_array(codes.astype(np.uint8), dequantize.input[0]))
    zero_point = onnx.numpy_helper.from_array(np.array(128, np.uint8), dequantize.input[2])
    tensors[dequantize.input[2]].CopyFrom(zero_point)
    graph = only_graph(partition(clean(model)))
    assert graph.constants["conv.weight"].dtype == np.int8
    (inputs,) = feeds(model)
    for name, values in outputs_of(model, inputs).items():
        np.testing.assert_array_equal(evaluate(graph, inputs)[name], values)
