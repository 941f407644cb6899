"""The networks of the end-to-end tests, imported once a process: NPU graph, inputs and ONNX Runtime's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx

from models.quantize import build_quantized, calibration_feeds
from npu_backend.graph import Graph
from npu_backend.machine_types import Machine
from npu_backend.pipeline import compile_graph
from npu_backend.runtime import Emulator
from npu_backend.strategies import strategy_named
from tests.e2e.conv_transpose import with_integer_transposes
from tests.e2e.onnx_runtime import Arrays, outputs_of
from tvm_ext.onnx_cleanup import clean
from tvm_ext.relax import partition
from tvm_ext.uint8_codes import with_uint8_codes


@dataclass(frozen=True)
class Case:
    """A quantised network; `size` is the input's height and width in pixels, the paper's if None."""

    network: str
    size: int | None
    activation_type: str = "uint8"

    def model(self) -> onnx.ModelProto:
        images = None if self.size is None else 1
        return build_quantized(self.network, self.size, images=images, activation_type=self.activation_type)

    def __str__(self) -> str:
        return self.network if self.activation_type == "uint8" else f"{self.network}_{self.activation_type}"


@dataclass(frozen=True)
class Prepared:
    """A network that the NPU runs whole: what it reads and what must come out."""

    graph: Graph
    feeds: tuple[Arrays, ...]
    expected: tuple[Arrays, ...]


@lru_cache(maxsize=1)
def prepared(case: Case) -> Prepared:
    """A photograph, and noise that reaches the ends of every range; ONNX Runtime in integers throughout.

    Its integer kernels take uint8 codes; int8 ones it convolves in float here and there.
    """
    model = case.model()
    partitioned = partition(clean(model))
    assert partitioned.host_ops == ()
    (graph,) = partitioned.graphs.values()
    feeds = (*calibration_feeds(model, 1), noise(model))
    reference = with_integer_transposes(model)
    return Prepared(graph, feeds, tuple(outputs_of(with_uint8_codes(reference) or reference, feeds)))


def noise(model: onnx.ModelProto) -> Arrays:
    """Normal values in the model's only input."""
    (value,) = model.graph.input
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return {value.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}


def program_of(graph: Graph, machine: Machine, strategy: str) -> bytes:
    """The graph compiled for all cores of `machine`."""
    return compile_graph(graph, machine, strategy_named(strategy).alone).to_bytes()


def assert_exact(program: bytes, case: Prepared) -> None:
    """Every element of every output: one checked run on one thread and one plain run on two."""
    with Emulator(program) as emulator:
        for feed, expected in zip(case.feeds, case.expected, strict=True):
            assert_equal(emulator.run(feed, check=True), expected)
            assert_equal(emulator.run(feed, threads=2), expected)


def assert_equal(outputs: Arrays, expected: Arrays) -> None:
    """Same names, types, shapes and values."""
    assert outputs.keys() == expected.keys()
    for name, wanted in expected.items():
        got = outputs[name]
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), name
        different = np.count_nonzero(got != wanted)
        assert different == 0, f"{name}: {different} of {wanted.size} elements differ"
