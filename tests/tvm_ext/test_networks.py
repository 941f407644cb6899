"""Whole networks through the importer: nothing is left to the host, and every operator is named after an ONNX node."""

from __future__ import annotations

import onnx
import pytest

import models
from models.exported import with_weights
from models.quantize import build_quantized, calibration_feeds, quantize
from npu_backend.reference import evaluate
from tests.exported import EXPORTED
from tests.tvm_ext.test_import import only_graph, outputs_of
from tvm_ext.onnx_cleanup import clean
from tvm_ext.relax import partition

# Small enough for a quick test, large enough that no feature map vanishes.
SMALL = {"inception_v3": 107, "unet": 60}
# The quantiser takes seconds for each; one is enough in the fast tests.
NAMES = [pytest.param(name, marks=() if name == "mobilenet_v2" else pytest.mark.slow) for name in models.NETWORKS]


def names_in_report(model: onnx.ModelProto) -> set[str]:
    partitioned = partition(clean(model))
    assert partitioned.host_ops == ()
    assert len(partitioned.graphs) == 1
    return {op.name for op in partitioned.npu_ops}


@pytest.mark.parametrize("name", NAMES)
def test_network_runs_whole_on_the_npu(name):
    model = build_quantized(name, SMALL.get(name, 96), images=1)
    operators = {node.name for node in model.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")}
    assert operators <= names_in_report(model)


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_values_of_a_network(form):
    model = build_quantized("mobilenet_v2", 96, images=1, form=form)
    (inputs,) = calibration_feeds(model, 1)
    expected = outputs_of(model, inputs)
    actual = evaluate(only_graph(partition(clean(model))), inputs)
    for name, values in expected.items():
        assert (actual[name] == values).all()


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPORTED)
def test_exported_network_runs_whole_on_the_npu(path):
    model = with_weights(path)
    quantized = quantize(model, calibration_feeds(model, 1))
    written = {node.name for node in model.graph.node}
    assert {op for op in names_in_report(quantized) if not op.endswith(("Linear", "Linear:1"))} <= written
