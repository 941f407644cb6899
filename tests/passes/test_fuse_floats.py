"""Element-wise operators on halves join a convolution of halves, and the layer computes the same in tiles."""

from __future__ import annotations

import numpy as np

from npu_backend.graph import GraphBuilder, Tensor
from npu_backend.ops import append_op
from npu_backend.ops.attributes import BinaryAttributes, ConvAttributes, UnaryAttributes
from npu_backend.ops.numerics_core import to_half
from npu_backend.passes.fuse import fuse
from npu_backend.pipeline import compile_graph
from npu_backend.reference import evaluate
from npu_backend.runtime import Emulator
from npu_backend.strategies import STRATEGIES
from tests.passes.networks import machine

SHAPE = (1, 13, 11, 16)


class Halves(GraphBuilder):
    """A graph of float16 tensors under construction."""

    def add(self, kind: str, *inputs: str, attributes: object, dtype: str = "float16") -> str:
        return append_op(self, kind, inputs, attributes, name=f"{kind}{len(self.ops)}", dtype=dtype)

    def unary(self, function: str, name: str, *parameters: float) -> str:
        return self.add("unary", name, attributes=UnaryAttributes(function, parameters))

    def binary(self, function: str, left: str, right: str, dtype: str = "float16") -> str:
        return self.add("binary", left, right, attributes=BinaryAttributes(function), dtype=dtype)


def gated_residual() -> Halves:
    """x + silu(conv(x)), bounded; then what is above a mask's bound or the lowest half."""
    net, rng = Halves("floats"), np.random.default_rng(0)
    x = net.input(Tensor("x", SHAPE, "float16"), "x")
    weight = net.constant("w", (rng.normal(0, 0.1, (16, 16, 3, 3))).astype(np.float16))
    conv = net.add("conv2d", x, weight, attributes=ConvAttributes(pads=(1, 1, 1, 1)))
    total = net.binary("add", net.unary("silu", conv), x)
    bounded = net.unary("clip", total, -2.0, 2.0)
    lowest = net.constant_tensor("lowest", to_half(np.full((1, 1, 1, 1), -3.4e38)))
    kept = net.binary("greater", total, net.constant_tensor("bound", to_half(np.full((1, 1, 1, 16), 0.5))), "bool")
    net.output(net.add("select", kept, bounded, lowest, attributes=None), "y")
    return net


def test_a_chain_of_halves_joins_its_convolution() -> None:
    net = Halves("chain")
    x = net.input(Tensor("x", SHAPE, "float16"), "x")
    weight = net.constant("w", np.zeros((16, 16, 1, 1), np.float16))
    conv = net.add("conv2d", x, weight, attributes=ConvAttributes())
    net.output(net.unary("gelu", net.binary("add", net.unary("silu", conv), x)), "y")
    layers = fuse(net.freeze()).layers
    assert ["+".join(op.kind for op in layer.ops) for layer in layers] == ["conv2d+unary+binary+unary"]


def test_layers_of_halves_compute_the_same_in_tiles() -> None:
    graph = gated_residual().freeze()
    inputs = {"x": np.random.default_rng(1).normal(0, 2, SHAPE).astype(np.float16)}
    expected = evaluate(graph, inputs)["y"]
    assert (expected == -65504).any()
    for spm_bytes in (1 << 14, 1 << 18):
        program = compile_graph(graph, machine("mesh16", 3, spm_bytes), STRATEGIES["base"], check=True)
        with Emulator(program.to_bytes()) as emulator:
            np.testing.assert_array_equal(emulator.run(inputs, check=True)["y"], expected)
