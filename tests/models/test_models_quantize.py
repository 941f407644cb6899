"""Quantised networks run in ONNX Runtime, use their ranges, and come from the cache the second time."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from models import NETWORKS, build
from models.builder import NetworkBuilder
from models.photographs import photograph
from models.quantize import Settings, build_quantized, calibration_feeds, float_nodes, quantize
from npu_backend.errors import InputError, ModelError, OptionError
from npu_backend.toolchain import CACHE_VARIABLE
from tvm_ext.quantization_error import measure_error
from tvm_ext.quantize import PRESETS

SIZES = {
    "inception_v3": 107,
    "mobilenet_v2": 96,
    "mobilenet_v2_ssd": 96,
    "mobiledet_ssd": 96,
    "deeplab_v3_plus": 97,
    "unet": 44,
}
IMAGES = 3
# InceptionV3 and UNet have 24 and 31 million weights to quantise, one channel after the other.
CASES = [name if name == "mobilenet_v2" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for the whole run of tests, so that they neither depend on the user's nor redo each other's work."""
    folder = tmp_path_factory.getbasetemp() / "models_cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


@functools.cache
def float_network(name: str) -> onnx.ModelProto:
    return build(name, SIZES[name])


@functools.cache
def quantised_network(name: str) -> onnx.ModelProto:
    model = float_network(name)
    return quantize(model, calibration_feeds(model, IMAGES))


def small_network() -> onnx.ModelProto:
    """Every kind of layer that the settings treat differently, with few weights."""
    net = NetworkBuilder("small", seed=0)
    x = net.conv(net.input(32), 8, 3, "first", stride=2, activation="Relu6")
    x = net.add(x, net.depthwise(x, "depthwise", activation="Relu6"), "add")
    x = net.global_average_pool(x, "pool")
    net.output(net.fully_connected(x, 10, "classifier"), "logits", [1, 10])
    return net.model()


def run(model: onnx.ModelProto, image: NDArray[np.float32], optimise: bool = True) -> dict[str, NDArray[np.generic]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": image}), strict=False))


def integer_activations(model: onnx.ModelProto, image: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
    """Every quantised activation of a QDQ model on one image."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            exposed.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
    outputs = run(exposed, image, optimise=False)
    return {name: value for name, value in outputs.items() if value.dtype.kind in "iu"}


@pytest.mark.parametrize("name", CASES)
def test_quantised_outputs_follow_the_float_ones(name: str) -> None:
    image = photograph("grass", SIZES[name], SIZES[name])
    quantised = run(quantised_network(name), image)
    for output, expected in run(float_network(name), image).items():
        actual = quantised[output]
        assert len(np.unique(actual)) > 40, f"{output} has collapsed"
        noise = np.var(actual - expected)
        assert np.var(expected) > 10 * noise, f"{output} is {np.var(expected) / noise:.1f} times its quantisation noise"


@pytest.mark.parametrize("name", CASES)
def test_activations_use_their_ranges(name: str) -> None:
    image = photograph("astronaut", SIZES[name], SIZES[name])
    for tensor, value in integer_activations(quantised_network(name), image).items():
        steps, counts = np.unique(value, return_counts=True)
        assert len(steps) > min(30, value.size // 4), f"{tensor} takes only {len(steps)} of 256 values"
        assert counts.max() < 0.8 * value.size, f"{tensor} is almost constant"
        assert np.mean(value == np.iinfo(value.dtype).max) < 0.05, f"{tensor} is saturated"


@pytest.mark.parametrize("name", CASES)
def test_nothing_stays_in_float_and_shapes_are_inferred(name: str) -> None:
    model = quantised_network(name)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 13
    assert [node.name for node in float_nodes(model)] == []
    shaped = {value.name for value in [*model.graph.value_info, *model.graph.output]}
    assert {node.output[0] for node in model.graph.node} <= shaped


@pytest.mark.parametrize(
    "settings",
    [
        Settings("int8"),
        Settings("int8", symmetric=True),
        Settings(per_channel=False),
        Settings("uint16"),
        Settings("int16", symmetric=True),
    ],
)
def test_other_settings_run(settings: Settings) -> None:
    model = small_network()
    quantised = quantize(model, calibration_feeds(model, IMAGES), **vars(settings))
    types = {value.dtype for value in integer_activations(quantised, photograph("clock", 32, 32)).values()}
    assert types == {np.dtype(settings.activation_type)}
    kept = [node.op_type for node in quantised.graph.node if node.op_type == "Clip"]
    assert len(kept) == (2 if settings.symmetric else 0)


def test_sixteen_bits_are_closer_than_eight() -> None:
    model = small_network()
    feeds = calibration_feeds(model, IMAGES)
    errors = {
        name: measure_error(model, quantize(model, feeds, **vars(settings)), feeds)[0].sqnr_db
        for name, settings in PRESETS.items()
    }
    assert errors["int8"] is not None
    assert errors["int16"] is not None
    assert errors["int16"] > errors["int8"] + 6


def test_a_network_of_the_registry_by_name() -> None:
    model = build_quantized("mobilenet_v2", 32, images=1)
    assert [node.op_type for node in model.graph.node].count("Conv") == 52


def test_operator_form_has_the_quantised_operators() -> None:
    model = small_network()
    quantised = quantize(model, calibration_feeds(model, 1), form="qoperator")
    operators = [node.op_type for node in quantised.graph.node]
    assert operators.count("QLinearConv") == 2
    assert operators.count("QLinearAdd") == 1


def test_old_opset_is_raised_and_a_folded_row_bias_accepted() -> None:
    """A network of opset 8 that ends in MatMul and Add, as old exporters wrote fully connected layers."""
    generator = np.random.default_rng(0)
    arrays = {
        "filter": generator.standard_normal((4, 3, 3, 3)),
        "offset": generator.standard_normal((4, 1, 1)),
        "matrix": generator.standard_normal((4 * 6 * 6, 5)),
        "row": generator.standard_normal((1, 5)),
    }
    nodes = [
        onnx.helper.make_node("Conv", ["input", "filter"], ["convolved"], kernel_shape=[3, 3]),
        onnx.helper.make_node("Add", ["convolved", "offset"], ["shifted"]),
        onnx.helper.make_node("Flatten", ["shifted"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "matrix"], ["product"]),
        onnx.helper.make_node("Add", ["product", "row"], ["output"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "old",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1, 5])],
        [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 8)], ir_version=4)
    quantised = quantize(model, calibration_feeds(model, 1))
    assert quantised.opset_import[0].version >= 13
    assert [node.op_type for node in quantised.graph.node if "Linear" not in node.op_type] == [
        "Conv",
        "Flatten",
        "Gemm",
    ]


def test_the_model_given_is_not_changed() -> None:
    model = small_network()
    before = model.SerializeToString()
    quantize(model, calibration_feeds(model, 1))
    assert model.SerializeToString() == before


def test_the_cache_holds_one_file_per_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    model = small_network()
    feeds = calibration_feeds(model, 1)
    first = quantize(model, feeds)
    assert quantize(model, feeds) == first
    assert len(list(tmp_path.rglob("*"))) == 2, "the folder and one file, nothing temporary"
    quantize(model, feeds, activation_type="int8")
    assert len(list(tmp_path.rglob("*.onnx"))) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"activation_type": "int4"}, "uint8, int8"),
        ({"weight_type": "int2"}, "uint8, int8"),
        ({"form": "tflite"}, "qdq, qoperator"),
        ({"symmetric": True}, "int8, int16"),
        ({"activation_type": "int16", "form": "qoperator"}, "int16 activations come in form 'qdq' only"),
        ({"calibration": []}, "at least one"),
    ],
)
def test_unknown_settings_say_what_to_choose(settings: dict[str, object], said: str) -> None:
    model = small_network()
    arguments = {"calibration": calibration_feeds(model, 1), **settings}
    with pytest.raises(OptionError, match=said):
        quantize(model, **arguments)  # type: ignore[arg-type]


def test_feeds_that_do_not_fit() -> None:
    model = small_network()
    with pytest.raises(InputError, match="small: calibration sample 0 lacks input 'input'"):
        quantize(model, [{"picture": photograph("camera", 32, 32)}])


def test_photographs_need_a_static_image_input() -> None:
    model = small_network()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(ModelError, match="static NCHW"):
        calibration_feeds(model)
