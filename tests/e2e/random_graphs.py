"""Random networks: branches, joins, odd sizes, every operator that keeps an image an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from npu_backend.graph import Graph, GraphBuilder, Quantization, Tensor
from npu_backend.ops import append_op
from npu_backend.ops.attributes import (
    BinaryAttributes,
    ConcatAttributes,
    ConvAttributes,
    ConvTransposeAttributes,
    DenseAttributes,
    PadAttributes,
    PoolAttributes,
    ReduceAttributes,
    ReshapeAttributes,
    ResizeAttributes,
    SliceAttributes,
    TransposeAttributes,
    UnaryAttributes,
)

MOST_ELEMENTS = 24 * 24 * 64
MOST_CHANNELS = 90


@dataclass
class Network:
    """A network under construction; `images` are the ``[n, h, w, c]`` tensors so far."""

    rng: np.random.Generator
    dtype: str
    builder: GraphBuilder = field(default_factory=lambda: GraphBuilder("random"))
    images: list[str] = field(default_factory=list)

    def number(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, options: list[Any] | tuple[Any, ...]) -> Any:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.builder.tensors[name].shape

    def code(self) -> Quantization:
        low = 0 if self.dtype == "uint8" else -128
        return Quantization(float(np.float32(0.01 * self.number(1, 12))), low + self.number(80, 170))

    def append(self, kind: str, inputs: tuple[str, ...], attributes: Any, code: Quantization | None = None) -> str:
        """Appends an operator with a scale of its own, or `code`."""
        name = f"{kind}{len(self.builder.ops)}"
        return append_op(self.builder, kind, inputs, attributes, name=name, dtype=self.dtype,
                         quantization=code or self.code())  # fmt: skip

    def kept(self, kind: str, name: str, attributes: Any) -> str:
        """Appends an operator that keeps its input's scale."""
        return self.append(kind, (name,), attributes, self.builder.tensors[name].quantization)

    def weights(self, shape: tuple[int, ...], summed: int, outputs: int) -> tuple[str, ...]:
        """Names of a weight, its scales and maybe a bias."""
        scale = 0.6 / (73 * summed**0.5)
        values = [
            self.rng.integers(-127, 128, shape).astype(np.int8),
            (scale * self.rng.uniform(0.5, 1.5, self.pick((1, outputs)))).astype(np.float32),
            self.rng.integers(-3000, 3000, outputs).astype(np.int32),
        ]
        values = values[: self.pick((2, 3))]
        return tuple(self.builder.constant(f"constant{len(self.builder.constants)}", value) for value in values)


def convolution(net: Network, name: str) -> str:
    _, height, width, channels = net.shape(name)
    kernel, outputs = net.pick(((1, 1), (3, 3), (5, 5), (1, 7), (3, 1))), net.number(1, MOST_CHANNELS)
    dilation = net.pick((1, 1, 1, 2))
    reach = [dilation * (k - 1) for k in kernel]
    pads = tuple(net.number(0, r // 2 + 1) if height > r and width > r else r for r in (*reach, *reach))
    strides = (net.number(1, 2), net.number(1, 2))
    attributes = ConvAttributes(strides, pads, (dilation, dilation))  # type: ignore[arg-type]
    constants = net.weights((outputs, channels, *kernel), channels * prod(kernel), outputs)
    return net.append("conv2d", (name, *constants), attributes)


def depthwise(net: Network, name: str) -> str:
    channels = net.shape(name)[3]
    stride = net.number(1, 2)
    constants = net.weights((channels, 1, 3, 3), 9, channels)
    return net.append("conv2d", (name, *constants), ConvAttributes((stride, stride), (1, 1, 1, 1), (1, 1), channels))


def transposed(net: Network, name: str) -> str:
    channels, outputs = net.shape(name)[3], net.number(1, 40)
    kernel, stride = net.number(1, 3), net.number(1, 2)
    constants = net.weights((channels, outputs, kernel, kernel), channels * kernel**2, outputs)
    return net.append("conv_transpose2d", (name, *constants), ConvTransposeAttributes((stride, stride)))


def pooling(net: Network, name: str) -> str:
    function = net.pick(("maximum", "average_valid", "average_window"))
    attributes = PoolAttributes(function, (3, 2), (net.number(1, 2), net.number(1, 2)), (1, 0, 1, 1))
    return net.kept("pool2d", name, attributes) if function == "maximum" else net.append("pool2d", (name,), attributes)


def activation(net: Network, name: str) -> str:
    return net.append("unary", (name,), UnaryAttributes(net.pick(("relu", "sigmoid", "hard_swish", "identity"))))


def join(net: Network, name: str) -> str:
    """An element-wise function of two images of the same shape, or of one and itself."""
    same = [other for other in net.images if net.shape(other) == net.shape(name)]
    attributes = BinaryAttributes(net.pick(("add", "add", "multiply")))
    return net.append("binary", (name, net.pick(same)), attributes)


def concatenation(net: Network, name: str) -> str:
    axis = net.number(1, 3)
    others = [other for other in net.images if _outside(net.shape(other), axis) == _outside(net.shape(name), axis)]
    code = net.pick((net.builder.tensors[name].quantization, None))
    return net.append("concat", (name, net.pick(others)), ConcatAttributes(axis), code)


def _outside(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def resizing(net: Network, name: str) -> str:
    _, height, width, _ = net.shape(name)
    size = (net.number(1, 2 * height), net.number(1, 2 * width))
    scales = tuple(float(np.float32(new) / np.float32(old)) for new, old in zip(size, (height, width), strict=True))
    mode = net.pick(("half_pixel", "align_corners", "asymmetric"))
    if net.pick((True, False)):
        return net.kept("resize2d", name, ResizeAttributes("nearest", size, scales, mode))  # type: ignore[arg-type]
    return net.append("resize2d", (name,), ResizeAttributes("bilinear", size, scales, mode))  # type: ignore[arg-type]


def padding(net: Network, name: str) -> str:
    before, after = ((0, net.number(0, 3), net.number(0, 3), net.number(0, 3)) for _ in range(2))
    return net.kept("pad", name, PadAttributes(before, after, 100 if net.dtype == "uint8" else -9))


def slicing(net: Network, name: str) -> str:
    shape = net.shape(name)
    starts = (0, *(net.number(0, extent - 1) for extent in shape[1:]))
    return net.kept("slice", name, SliceAttributes(starts, shape, (1, net.number(1, 2), 1, net.number(1, 2))))


def gate(net: Network, name: str) -> str:
    """Squeeze and excite: the mean of every channel scales it."""
    mean = net.append("global_average_pool", (name,), None)
    return net.append("binary", (name, activation(net, convolution_1x1(net, mean))), BinaryAttributes("multiply"))


def convolution_1x1(net: Network, name: str) -> str:
    channels = net.shape(name)[3]
    constants = net.weights((channels, channels, 1, 1), channels, channels)
    return net.append("conv2d", (name, *constants), ConvAttributes())


PARTS = (convolution, convolution, depthwise, join, concatenation, pooling, activation, transposed, resizing, padding,
         slicing, gate)  # fmt: skip


def head(net: Network, name: str) -> str:
    """Mean, flatten and a matrix."""
    batch, _, _, channels = net.shape(name)
    kind, attributes = net.pick((("global_average_pool", None), ("reduce", ReduceAttributes("mean", (1, 2)))))
    mean = net.append(kind, (name,), attributes)
    flat = net.kept("reshape", mean, ReshapeAttributes((batch, channels)))
    outputs = net.number(2, 70)
    constants = net.weights((channels, outputs), channels, outputs)
    return net.append("dense", (flat, *constants), DenseAttributes())


def network(rng: np.random.Generator) -> Graph:
    """A graph of 5 to 15 operators whose inputs and outputs are ``[n, c, h, w]``, or a head's ``[n, k]``."""
    net = Network(rng, ("uint8", "int8")[int(rng.integers(2))])
    shape = (net.pick((1, 1, 2)), net.number(1, 40), net.number(1, 31), net.number(1, 31))
    source = net.builder.input(Tensor("x", shape, net.dtype, net.code()), "x")
    net.images.append(net.kept("transpose", source, TransposeAttributes((0, 2, 3, 1))))
    for _ in range(net.number(5, 13)):
        # Mostly the newest image, so that the network gets deep.
        name = net.images[-min(len(net.images), net.pick((1, 1, 1, 2, 3)))]
        result = net.pick(PARTS)(net, name)
        if 0 < prod(net.shape(result)) <= MOST_ELEMENTS and net.shape(result)[3] <= 2 * MOST_CHANNELS:
            net.images.append(result)
    outputs = dict.fromkeys((net.images[-1], net.pick(net.images[1:] or net.images)))
    for index, name in enumerate(outputs):
        net.builder.output(net.kept("transpose", name, TransposeAttributes((0, 3, 1, 2))), f"y{index}")
    if net.pick((True, False)):
        net.builder.output(head(net, net.images[-1]), "scores")
    return net.builder.freeze()
