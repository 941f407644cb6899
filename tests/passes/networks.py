"""Small networks, and the stages of their compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npu_backend.graph import Graph, GraphBuilder, Quantization, Tensor
from npu_backend.machine import Machine, load_machine
from npu_backend.ops import append_op
from npu_backend.ops.attributes import (
    BinaryAttributes,
    ConvAttributes,
    DenseAttributes,
    MatMulAttributes,
    PoolAttributes,
    ReshapeAttributes,
    SoftmaxAttributes,
    TransposeAttributes,
    UnaryAttributes,
)
from npu_backend.passes.fuse import fuse
from npu_backend.pipeline import compile_graph
from npu_backend.reference import evaluate
from npu_backend.stages import Fused
from npu_backend.strategies import STRATEGIES

CODE = Quantization(float(np.float32(0.05)), 120)
OTHER = Quantization(float(np.float32(0.08)), 90)
TO_LAST, TO_FIRST = TransposeAttributes((0, 2, 3, 1)), TransposeAttributes((0, 3, 1, 2))


class Network(GraphBuilder):
    """A graph under construction in uint8; every method returns the name of a tensor."""

    def source(self, shape: tuple[int, ...], name: str = "x") -> str:
        return self.input(Tensor(name, shape, "uint8", CODE), name)

    def add(
        self, kind: str, *inputs: str, attributes: Any = None, name: str = "", code: Quantization | None = CODE
    ) -> str:
        return append_op(self, kind, inputs, attributes, name=name or f"{kind}{len(self.ops)}", dtype="uint8",
                         quantization=code)  # fmt: skip

    def conv(self, name: str, outputs: int, kernel: tuple[int, int] = (1, 1), *, groups: int = 1, stride: int = 1,
             label: str = "") -> str:  # fmt: skip
        """A convolution of ``[n, h, w, c]`` that keeps rows and columns at stride 1."""
        rng = np.random.default_rng(len(self.ops))
        inputs = self.tensors[name].shape[3] // groups
        weight = self.constant("w", rng.integers(-127, 128, (outputs, inputs, *kernel)).astype(np.int8))
        scale = self.constant("s", np.full(outputs, 0.004 / (inputs * kernel[0] * kernel[1]) ** 0.5, np.float32))
        bias = self.constant("b", rng.integers(-900, 900, outputs).astype(np.int32))
        before = [(extent - 1) // 2 for extent in kernel]
        after = [extent // 2 for extent in kernel]
        attributes = ConvAttributes((stride, stride), (*before, *after), (1, 1), groups)
        return self.add("conv2d", name, weight, scale, bias, attributes=attributes, name=label)

    def conv_channels_first(self, name: str, outputs: int, kernel: tuple[int, int] = (3, 3)) -> str:
        """A convolution of ``[n, c, h, w]`` as an importer writes it: between two transposes."""
        inside = self.add("transpose", name, attributes=TO_LAST, code=self.tensors[name].quantization)
        return self.add("transpose", self.conv(inside, outputs, kernel), attributes=TO_FIRST)

    def dense(self, name: str, outputs: int, label: str = "") -> str:
        rng = np.random.default_rng(len(self.ops))
        inputs = self.tensors[name].shape[-1]
        weight = self.constant("w", rng.integers(-127, 128, (inputs, outputs)).astype(np.int8))
        scale = self.constant("s", np.array([0.004 / inputs**0.5], np.float32))
        return self.add("dense", name, weight, scale, attributes=DenseAttributes(), name=label)

    def relu(self, name: str) -> str:
        return self.add("unary", name, attributes=UnaryAttributes("relu"))

    def sum(self, left: str, right: str) -> str:
        return self.add("binary", left, right, attributes=BinaryAttributes("add"), code=OTHER)


def block() -> Graph:
    """A stem, an inverted residual, a pooling and a classifier: every pass has something to do."""
    net = Network("block")
    image = net.add("transpose", net.source((1, 3, 17, 15)), attributes=TO_LAST, name="turn")
    stem = net.conv(image, 24, (3, 3), stride=2, label="stem")
    wide = net.relu(net.conv(stem, 40, label="expand"))
    deep = net.conv(wide, 40, (3, 3), groups=40, label="depthwise")
    total = net.sum(net.conv(deep, 24, label="project"), stem)
    pooled = net.add("pool2d", total, attributes=PoolAttributes("maximum", (2, 2), (2, 2)), name="pool", code=OTHER)
    mean = net.add("global_average_pool", pooled, name="mean")
    flat = net.add("reshape", mean, attributes=ReshapeAttributes((1, 24)), name="flatten")
    net.output(net.dense(flat, 33, "classes"), "y")
    return net.freeze()


def attention(rows: int = 6, heads: int = 3, width: int = 4) -> Graph:
    """Attention of several heads as exporters write it: between reshapes and transposes."""
    net = Network("attention")
    x = net.source((1, rows, heads * width))

    def split(order: tuple[int, ...]) -> str:
        parts = net.add("reshape", net.dense(x, heads * width), attributes=ReshapeAttributes((1, rows, heads, width)))
        return net.add("transpose", parts, attributes=TransposeAttributes(order))

    scores = net.add("matmul", split((0, 2, 1, 3)), split((0, 2, 3, 1)), attributes=MatMulAttributes())
    weights = net.add("softmax", scores, attributes=SoftmaxAttributes(3), code=Quantization(1 / 256, 0))
    context = net.add("matmul", weights, split((0, 2, 1, 3)), attributes=MatMulAttributes())
    joined = net.add("transpose", context, attributes=TransposeAttributes((0, 2, 1, 3)))
    net.output(net.dense(net.add("reshape", joined, attributes=ReshapeAttributes((1, rows, heads * width))), 7), "y")
    return net.freeze()


def one_layer(make: Callable[[Network], str]) -> Fused:
    """The layers of a network that is never laid out anew: its tensors are stored as they are."""
    net = Network("one")
    net.output(make(net), "y")
    return fuse(net.freeze())


def machine(name: str = "exynos2100", cores: int = 2, spm_bytes: int = 1 << 16) -> Machine:
    return load_machine(name).take(cores).with_spm_bytes(spm_bytes)


def stages(graph: Graph, target: Machine, strategy: str = "halo") -> dict[str, Any]:
    """What every pass made, by the pass's name."""
    made: dict[str, Any] = {}
    compile_graph(graph, target, STRATEGIES[strategy].alone, made.__setitem__, check=True)
    return made


def same(one: Graph, other: Graph) -> None:
    """Fails unless both graphs compute the same."""
    rng = np.random.default_rng(5)
    shapes = {port.host_name: port.host_shape(one.tensor(port.tensor)) for port in one.inputs}
    inputs = {name: rng.integers(0, 256, shape).astype(np.uint8) for name, shape in shapes.items()}
    expected, actual = evaluate(one, inputs), evaluate(other, inputs)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, name)
