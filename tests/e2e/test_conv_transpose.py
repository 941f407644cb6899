"""The rewrite of transposed convolutions that UNet's reference rests on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models.quantize import build_quantized, calibration_feeds
from tests.e2e.conv_transpose import with_integer_transposes
from tests.e2e.onnx_runtime import outputs_of, session, with_outputs

CHANNELS, FILTERS, HEIGHT, WIDTH = 3, 5, 4, 6
UNET_SIZE = 60
# Sums next to a tie: 5 of 100,000 were seen to fall to the other side, each by one step.
LARGEST_TIE_SHARE = 5e-4


def small_model(per_channel: bool) -> onnx.ModelProto:
    """Scales are powers of two, so that float32 holds every sum exactly and the two ways must agree."""
    generator = np.random.default_rng(1)
    vector = [FILTERS] if per_channel else []
    exponents = generator.integers(-6, -3, vector)
    weight_scale = np.ldexp(np.float32(1), exponents).astype(np.float32)
    constants = {
        "weight": generator.integers(-128, 128, (CHANNELS, FILTERS, 2, 2)).astype(np.int8),
        "weight_scale": weight_scale,
        "weight_zero": np.zeros(vector, np.int8),
        "bias": generator.integers(-999, 999, FILTERS).astype(np.int32),
        "bias_scale": weight_scale / np.float32(4),
        "bias_zero": np.zeros(vector, np.int32),
        "in_scale": np.float32(0.25),
        "in_zero": np.uint8(120),
        "out_scale": np.float32(4),
        "out_zero": np.uint8(131),
    }
    axis = {"weight": {"axis": 1}, "bias": {"axis": 0}} if per_channel else {"weight": {}, "bias": {}}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "in_scale", "in_zero"], ["x_codes"]),
        helper.make_node("DequantizeLinear", ["x_codes", "in_scale", "in_zero"], ["x_real"]),
        *(
            helper.make_node("DequantizeLinear", [name, f"{name}_scale", f"{name}_zero"], [f"{name}_real"], **extra)
            for name, extra in axis.items()
        ),
        helper.make_node(
            "ConvTranspose", ["x_real", "weight_real", "bias_real"], ["sum"], "up", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("QuantizeLinear", ["sum", "out_scale", "out_zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, CHANNELS, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, [1, FILTERS, 2 * HEIGHT, 2 * WIDTH])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("per_channel", [False, True])
def test_rewrite_keeps_every_value(per_channel):
    model = small_model(per_channel)
    feeds = [{"x": np.random.default_rng(2).normal(0, 20, (1, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)}]
    (before,), (after,) = outputs_of(model, feeds), outputs_of(with_integer_transposes(model), feeds)
    assert len(np.unique(before["y"])) > 50
    assert (before["y"] == after["y"]).all()


@pytest.mark.slow
def test_onnx_runtime_runs_rewritten_unet_in_integers(tmp_path):
    rewritten = with_integer_transposes(build_quantized("unet", UNET_SIZE, images=1))
    convolutions = sum(node.op_type == "Conv" for node in rewritten.graph.node)
    session(rewritten, tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == convolutions
    assert kinds["Conv"] == kinds["FusedConv"] == kinds["ConvTranspose"] == 0


@pytest.mark.slow
def test_float_transposes_differ_in_ties_only():
    """The first of them: the later ones read what the earlier ones spread."""
    model = build_quantized("unet", UNET_SIZE, images=1)
    name = "up4/transpose_QuantizeLinear_Output"
    feeds = calibration_feeds(model, 1)
    (plain,), (integer,) = (
        outputs_of(with_outputs(each, [name]), feeds) for each in (model, with_integer_transposes(model))
    )
    steps = np.abs(plain[name].astype(int) - integer[name].astype(int))
    assert steps.max() <= 1
    assert np.count_nonzero(steps) <= max(1, LARGEST_TIE_SHARE * steps.size)
