"""The networks: parameters and multiply-accumulates, determinism, validity."""

from __future__ import annotations

import functools

import onnx
import pytest

from models import ALL_NETWORKS, NETWORKS, build
from models.count import count
from npu_backend.errors import ModelError, OptionError

# Input size, parameters in millions, MACs in billions: of the standard architectures as a current exporter writes them.
# DeepLabV3+ and UNet are counted at other sizes than the paper runs them at.
REFERENCE = {
    "inception_v3": (299, 23.8, 5.713),
    "mobilenet_v2": (224, 3.50, 0.301),
    "mobilenet_v2_ssd": (300, 4.50, 0.750),
    "mobiledet_ssd": (320, 7.10, 2.816),
    "deeplab_v3_plus": (512, 4.38, 6.009),
    "unet": (256, 31.0, 48.17),
    "resnet50": (224, 25.56, 4.089),
}
# Operators as a current exporter writes them, the global mean aside.
OPERATORS = {
    "inception_v3": {"Conv": 94, "Relu": 94, "Concat": 15, "AveragePool": 9, "MaxPool": 4, "Gemm": 1},
    "mobilenet_v2": {"Conv": 52, "Clip": 35, "Add": 10, "Gemm": 1},
    "mobilenet_v2_ssd": {"Conv": 88, "Clip": 59, "Add": 10, "Transpose": 12, "Reshape": 12, "Concat": 2, "Sigmoid": 1},
    "mobiledet_ssd": {"Conv": 94, "Clip": 60, "Add": 14, "Transpose": 12, "Reshape": 12, "Concat": 2, "Sigmoid": 1},
    "deeplab_v3_plus": {"Conv": 67, "Clip": 35, "Add": 10, "Relu": 9, "Resize": 3, "Concat": 2},
    "unet": {"Conv": 19, "Clip": 18, "MaxPool": 4, "ConvTranspose": 4, "Concat": 4},
    "resnet50": {"Conv": 53, "Relu": 49, "Add": 16, "MaxPool": 1, "Gemm": 1},
}
# Sizes at which building is quick, odd ones among them.
SMALL = {"inception_v3": 75, "mobilenet_v2": 32, "mobilenet_v2_ssd": 33, "deeplab_v3_plus": 65}


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


# Those with the most weights take seconds to build.
LARGE = ("unet", "inception_v3", "resnet50")
SLOW_LARGE = [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in ALL_NETWORKS]


@functools.cache
def network(name: str, size: int) -> onnx.ModelProto:
    return build(name, size)


@pytest.mark.parametrize("name", SLOW_LARGE)
def test_counts_equal_the_reference_within_one_percent(name: str) -> None:
    size, parameters_m, gmac = REFERENCE[name]
    counted = count(network(name, size))
    assert counted.parameters / 1e6 == pytest.approx(parameters_m, rel=0.01)
    assert counted.macs / 1e9 == pytest.approx(gmac, rel=0.01)


@pytest.mark.parametrize("name", SLOW_LARGE)
def test_operators_are_those_of_an_exported_network(name: str) -> None:
    model = network(name, REFERENCE[name][0])
    operators = [node.op_type for node in model.graph.node]
    assert {kind: operators.count(kind) for kind in OPERATORS[name]} == OPERATORS[name]


@pytest.mark.parametrize("name", SLOW_LARGE)
def test_paper_size_is_valid_and_every_tensor_has_a_shape(name: str) -> None:
    size = ALL_NETWORKS[name].input_size
    model = network(name, size)
    onnx.checker.check_model(model, full_check=True)
    assert shape_of(model.graph.input[0]) == [1, 3, size, size]
    shaped = {value.name for value in [*model.graph.value_info, *model.graph.output] if min(shape_of(value)) > 0}
    assert {output for node in model.graph.node for output in node.output} == shaped


@pytest.mark.parametrize("name", SLOW_LARGE)
def test_node_names_are_unique(name: str) -> None:
    names = [node.name for node in network(name, REFERENCE[name][0]).graph.node]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobiledet_ssd", "deeplab_v3_plus"])
def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(name: str) -> None:
    first, again, other = (build(name, SMALL.get(name), seed).SerializeToString() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_weights_do_not_depend_on_the_input_size() -> None:
    small, large = (build("mobilenet_v2", size).graph.initializer for size in (32, 64))
    assert [tensor.SerializeToString() for tensor in small] == [tensor.SerializeToString() for tensor in large]


def test_the_papers_networks_are_six() -> None:
    assert len(NETWORKS) == 6
    assert {*ALL_NETWORKS} - {*NETWORKS} == {"resnet50"}


def test_detectors_have_the_papers_anchors() -> None:
    assert [shape_of(output) for output in network("mobilenet_v2_ssd", 300).graph.output] == [
        [1, 1917, 4],
        [1, 1917, 91],
    ]
    assert [shape_of(output) for output in network("mobiledet_ssd", 320).graph.output] == [[1, 2034, 4], [1, 2034, 91]]


@pytest.mark.parametrize(
    ("name", "size"), [("deeplab_v3_plus", 513), pytest.param("unet", 572, marks=pytest.mark.slow)]
)
def test_segmentation_is_as_large_as_the_image(name: str, size: int) -> None:
    assert shape_of(network(name, size).graph.output[0])[2:] == [size, size]


@pytest.mark.parametrize(
    ("name", "size", "seed", "said"),
    [
        ("vgg", None, 0, "inception_v3"),
        ("inception_v3", 74, 0, "75 pixels"),
        ("unet", 0, 0, "16 pixels"),
        ("unet", 32, -1, "seed"),
    ],
)
def test_what_cannot_be_built_says_what_to_change(name: str, size: int | None, seed: int, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        build(name, size, seed)


def test_count_names_the_node_whose_shape_is_unknown() -> None:
    model = build("mobilenet_v2", 32)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    del model.graph.value_info[:]
    with pytest.raises(ModelError, match=r"stem/conv.*static input shapes"):
        count(model)
