"""Trained models that others ship, through the whole road: driver, package, TVM's virtual machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from models.quantize import quantize
from models.real import MissingModelError, mnist_calibration, mnist_feed, mnist_test_set, real_model
from npu_backend.graph import Graph
from npu_backend.machine import load_machine
from npu_backend.runtime import Emulator
from tests.e2e.networks import assert_equal, noise, program_of
from tests.e2e.onnx_runtime import outputs_of, with_outputs
from tvm_ext.accuracy import Accuracy
from tvm_ext.driver import CompiledModel, PackageRunner, compile_model, import_model

pytestmark = pytest.mark.slow

MACHINE = "exynos2100"
STRATEGY = "base"
# Of the largest output: the host's float operators are TVM's here and ONNX Runtime's there.
FLOAT_TOLERANCE = 1e-5
LEAST_COSINE = 0.99999


def real(*names: str) -> list[Path]:
    """Paths of fetched files; skips, saying what to run, when one is absent."""
    try:
        return [real_model(name) for name in names]
    except MissingModelError as error:
        pytest.skip(str(error))


def compiled(path: Path) -> CompiledModel:
    def compile_one(graph: Graph) -> bytes:
        return program_of(graph, load_machine(MACHINE), STRATEGY)

    return compile_model(path, machine=MACHINE, cores=3, strategy=STRATEGY, compile_graph=compile_one)


@pytest.fixture(scope="module")
def resnet_model():
    """efficientword_net's int8 ResNet-50: normalisation before it and the norm after it stay in float on the host."""
    return onnx.load(*real("resnet50_qint8"))


@pytest.fixture(scope="module")
def resnet(resnet_model):
    return compiled(*real("resnet50_qint8"))


def spectrogram(model, seed):
    """Smooth noise in decibels, as the model's log-mel input is."""
    ((name, values),) = noise(model).items()
    generator = np.random.default_rng(seed)
    slow = np.cumsum(generator.normal(size=values.shape), axis=2)
    return {name: (values * 10 + slow * 3 - 40).astype(np.float32)}


def backbone(resnet):
    """The program that holds the convolutions, and its graph; what is quantised among the float ends has its own."""
    return max(resnet.graphs.items(), key=lambda entry: len(entry[1].ops))


def test_resnet_backbone_is_one_program(resnet_model, resnet):
    _, graph = backbone(resnet)
    assert sum(op.kind == "conv2d" for op in graph.ops) == 53
    on_npu = {op.name for op in resnet.package.metadata.npu_ops}
    assert {node.name for node in resnet_model.graph.node if node.op_type in ("Conv", "MaxPool")} <= on_npu
    assert {op.op for op in resnet.package.metadata.host_ops} >= {"BatchNormalization", "ReduceSum", "Div"}


@pytest.mark.parametrize("seed", range(3))
def test_resnet_hands_equal_values_to_the_host(resnet_model, resnet, seed):
    """Given what ONNX Runtime's float operators hand it: every bit, on one thread and on two."""
    ports = {symbol: ([port.host_name for port in graph.inputs], [port.host_name for port in graph.outputs])
             for symbol, graph in resnet.graphs.items()}  # fmt: skip
    exposed = with_outputs(resnet_model, [name for both in ports.values() for names in both for name in names])
    (values,) = outputs_of(exposed, [spectrogram(resnet_model, seed)])
    for symbol, (enters, leaves) in ports.items():
        inputs, expected = ({name: values[name] for name in names} for names in (enters, leaves))
        with Emulator(resnet.package.programs[symbol]) as emulator:
            assert_equal(emulator.run(inputs, check=True), expected)
            assert_equal(emulator.run(inputs, threads=2), expected)


@pytest.mark.parametrize("seed", range(3))
def test_resnet_outputs(resnet_model, resnet, seed):
    feed = spectrogram(resnet_model, seed)
    (expected,) = outputs_of(resnet_model, [feed])
    with PackageRunner(resnet.package) as runner:
        got = runner.run(feed, threads=2)
    assert got.keys() == expected.keys()
    for name, wanted in expected.items():
        np.testing.assert_allclose(got[name], wanted, rtol=0, atol=FLOAT_TOLERANCE * np.abs(wanted).max())


def test_resnet_runs_whole_where_floats_are_computed(resnet_model):
    """Its float ends too: in float32 in front of the codes, in half precision behind them."""
    parts = import_model(*real("resnet50_qint8"), computes_float=True).partitioned
    assert parts.host_ops == ()
    (graph,) = parts.graphs.values()
    feed = spectrogram(resnet_model, 0)
    (expected,) = outputs_of(resnet_model, [feed])
    with Emulator(program_of(graph, load_machine("mesh16").take(4), STRATEGY)) as emulator:
        got = emulator.run(feed, check=True)
    for name, wanted in expected.items():
        accuracy = Accuracy()
        accuracy.add(wanted, got[name])
        assert accuracy.cosine is not None
        assert accuracy.cosine > LEAST_COSINE


@pytest.fixture(scope="module")
def mnist_model():
    """qonnx's trained digits network, quantised."""
    real("mnist_training_images")
    return quantize(onnx.load(*real("mnist_conv")), mnist_calibration())


@pytest.fixture(scope="module")
def digits():
    """All 10,000 test images as feeds, and their labels."""
    real("mnist_test_images", "mnist_test_labels")
    images, labels = mnist_test_set()
    return [mnist_feed(image) for image in images], labels


@pytest.fixture(scope="module")
def logits(mnist_model, digits):
    """ONNX Runtime's, float32[10000, 10]."""
    return np.concatenate([next(iter(outputs.values())) for outputs in outputs_of(mnist_model, digits[0])])


@pytest.fixture(scope="module")
def mnist(mnist_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("mnist") / "mnist.onnx"
    onnx.save(mnist_model, path)
    return compiled(path)


def accuracy(logits, labels):
    """Share of the images whose largest logit is their label's."""
    return float((logits.argmax(axis=1) == labels).mean())


def test_mnist_leaves_nothing_to_the_host(mnist):
    assert mnist.package.metadata.host_ops == ()


def test_all_digits(mnist, digits, logits):
    feeds, labels = digits
    with PackageRunner(mnist.package) as runner:
        got = np.concatenate([next(iter(runner.run(feed).values())) for feed in feeds])
    assert np.count_nonzero(got != logits) == 0
    assert accuracy(got, labels) == accuracy(logits, labels) > 0.98


def test_checked_digits(mnist, digits, logits):
    (program,) = mnist.package.programs.values()
    with Emulator(program) as emulator:
        for index in range(0, len(logits), 500):
            (got,) = emulator.run(digits[0][index], check=True).values()
            assert (got == logits[index : index + 1]).all()
