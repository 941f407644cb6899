"""int8 codes as uint8: the same function, on which ONNX Runtime's integer kernels run everywhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from models import build
from models.photographs import photograph
from models.quantize import calibration_feeds, quantize
from npu_backend.graph import Graph
from npu_backend.reference import evaluate
from tvm_ext.onnx_cleanup import clean
from tvm_ext.onnx_runtime import run_session, session_of
from tvm_ext.relax import partition
from tvm_ext.uint8_codes import with_uint8_codes

SIZE = 64


@pytest.fixture(scope="module")
def int8_model() -> onnx.ModelProto:
    """MobileNetV2 with int8 activations, small."""
    network = build("mobilenet_v2", SIZE)
    return quantize(network, calibration_feeds(network, images=2), activation_type="int8")


def test_uint8_models_stay_as_they_are() -> None:
    network = build("mobilenet_v2", SIZE)
    assert with_uint8_codes(quantize(network, calibration_feeds(network, images=2))) is None


def test_every_activation_is_shifted(int8_model: onnx.ModelProto) -> None:
    shifted = with_uint8_codes(int8_model)
    assert shifted is not None
    onnx.checker.check_model(shifted)
    types = {tensor.name: tensor.data_type for tensor in shifted.graph.initializer}
    made = {types[node.input[2]] for node in shifted.graph.node if node.op_type == "QuantizeLinear"}
    assert made == {onnx.TensorProto.UINT8}


def test_the_npu_graph_of_the_int8_model_equals_the_shifted_one(int8_model: onnx.ModelProto) -> None:
    shifted = with_uint8_codes(int8_model)
    assert shifted is not None
    feed = {"input": photograph("grass", SIZE, SIZE)}
    expected = run_session(session_of(shifted.SerializeToString(), "the test"), feed)
    (graph,) = partition(clean(int8_model)).graphs.values()
    assert isinstance(graph, Graph)
    np.testing.assert_array_equal(evaluate(graph, feed)["logits"], expected["logits"])
