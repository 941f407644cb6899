"""A small builder over onnx.helper for convolutional networks with seeded weights.

Every node, weight and tensor is named after its place in the network ("block3/expand/conv"), so that reports read well.
Batch normalisation is already folded: every convolution carries a bias.

Weights are He-normal (He et al. 2015, doi 10.1109/ICCV.2015.123), drawn per tensor from a generator seeded by
(seed, name), so one layer's weights do not depend on the layers before it. Two refinements keep *random* networks as
lively as trained ones through their depth: the gain divides by the predicted power of the layer's input (residual sums
grow, ReLU shrinks), and dense filters lose half their mean (weight standardisation, arXiv 1903.10520, takes all of it).
Left whole, the mean lets ReLU's positive offset drown the image after a few layers; taken whole, quantisation noise
grows from layer to layer (InceptionV3's int8 logits: 20 dB above the noise with half the mean, 10 dB without any).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

# Pre-activations have this standard deviation: wide enough that Relu6 clips a few of them, as in a trained network.
PREACTIVATION_STD = 2.0
BIAS_STD = 0.2
# The share of a dense filter's mean that is taken away.
CENTRING = 0.5
# Variance and mean square of max(0, x) for x ~ N(0, 1).
RELU_VARIANCE = 0.5 - 0.5 / np.pi
RELU_MEAN_SQUARE = 0.5
# What averaging a whole map leaves of the variance: measured 0.43 on InceptionV3 and 0.63 on MobileNetV2.
GLOBAL_POOL_VARIANCE = 0.5
# Photographs scaled to [-1, 1].
IMAGE_MEAN_SQUARE = 0.3

Pair = tuple[int, int]


@dataclass(frozen=True)
class Feature:
    """A feature map of the network under construction: tensor name, NCHW extents (batch 1) and its predicted power."""

    name: str
    channels: int
    height: int
    width: int
    variance: float
    mean_square: float

    @property
    def centred_power(self) -> float:
        """What a filter that lost CENTRING of its mean sees of mean_square."""
        return self.variance + (1 - CENTRING) ** 2 * (self.mean_square - self.variance)


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value


def _window_extent(extent: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    return (extent + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


class NetworkBuilder:
    """Collects nodes and weights; every method returns the Feature it adds. Layout NCHW, batch 1, float32."""

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._seed = seed
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    # Boundary ------------------------------------------------------------------------------------------------------

    def input(self, size: int, channels: int = 3, name: str = "input") -> Feature:
        """The image, float32[1, channels, size, size], normalised to about [-1, 1]."""
        shape = [1, channels, size, size]
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return Feature(name, channels, size, size, IMAGE_MEAN_SQUARE, IMAGE_MEAN_SQUARE)

    def output(self, tensor: str, name: str, shape: list[int]) -> None:
        """Declare `tensor` as the model's output `name`: its producer is renamed, no Identity is added."""
        for node in self._nodes:
            node.output[:] = [name if output == tensor else output for output in node.output]
            node.input[:] = [name if value == tensor else value for value in node.input]
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def feature_output(self, x: Feature, name: str) -> None:
        """Declare a feature map as the output `name`, float32[1, channels, height, width]."""
        self.output(x.name, name, [1, x.channels, x.height, x.width])

    def model(self) -> onnx.ModelProto:
        """The finished model, checked, with every tensor's shape inferred."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, list(self._initializers.values())
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="models")
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    # Convolutions --------------------------------------------------------------------------------------------------

    def conv(
        self,
        x: Feature,
        channels: int,
        kernel: int | Pair,
        name: str,
        *,
        stride: int = 1,
        padding: int | Pair | None = None,
        dilation: int = 1,
        groups: int = 1,
        activation: str | None = None,
    ) -> Feature:
        """Convolution with bias and optional "Relu" or "Relu6"; padding defaults to half the dilated kernel."""
        kernel_h, kernel_w = _pair(kernel)
        pad_h, pad_w = _pair(padding) if padding is not None else (kernel_h // 2 * dilation, kernel_w // 2 * dilation)
        centred = groups == 1 and x.name != "input"
        power = x.centred_power if centred else x.mean_square
        shape = (channels, x.channels // groups, kernel_h, kernel_w)
        self._weight(f"{name}/weight", shape, int(np.prod(shape[1:])) * power, centred)
        self._bias(f"{name}/bias", channels)
        output = self._node(
            "Conv",
            [x.name, f"{name}/weight", f"{name}/bias"],
            name,
            kernel_shape=[kernel_h, kernel_w],
            pads=[pad_h, pad_w, pad_h, pad_w],
            strides=[stride, stride],
            dilations=[dilation, dilation],
            group=groups,
        )
        height = _window_extent(x.height, kernel_h, stride, pad_h, dilation)
        width = _window_extent(x.width, kernel_w, stride, pad_w, dilation)
        return self._activate(self._preactivation(output, channels, height, width), activation)

    def depthwise(
        self, x: Feature, name: str, *, stride: int = 1, dilation: int = 1, activation: str | None = None
    ) -> Feature:
        """3x3 depthwise convolution."""
        return self.conv(
            x, x.channels, 3, name, stride=stride, dilation=dilation, groups=x.channels, activation=activation
        )

    def conv_transpose(self, x: Feature, channels: int, name: str) -> Feature:
        """2x2 transposed convolution of stride 2: doubles height and width, one tap per channel for each pixel."""
        self._weight(f"{name}/weight", (x.channels, channels, 2, 2), x.channels * x.centred_power, True, axes=(0,))
        self._bias(f"{name}/bias", channels)
        output = self._node(
            "ConvTranspose",
            [x.name, f"{name}/weight", f"{name}/bias"],
            name,
            kernel_shape=[2, 2],
            strides=[2, 2],
        )
        return self._preactivation(output, channels, 2 * x.height, 2 * x.width)

    def fully_connected(self, x: Feature, units: int, name: str) -> str:
        """Flatten a 1x1 map and multiply: returns the name of float32[1, units]."""
        assert x.height == x.width == 1, "pool the map to 1x1 first"
        flat = self._node("Flatten", [x.name], f"{name}/flatten", axis=1)
        self._weight(f"{name}/weight", (units, x.channels), x.channels * x.centred_power, True)
        self._bias(f"{name}/bias", units)
        return self._node("Gemm", [flat, f"{name}/weight", f"{name}/bias"], name, transB=1)

    # Everything else -----------------------------------------------------------------------------------------------

    def add(self, x: Feature, y: Feature, name: str) -> Feature:
        """Sum of two maps of equal shape."""
        output = self._node("Add", [x.name, y.name], name)
        return replace(x, name=output, variance=x.variance + y.variance, mean_square=x.mean_square + y.mean_square)

    def concat(self, parts: list[Feature], name: str) -> Feature:
        """Concatenation along channels."""
        output = self._node("Concat", [part.name for part in parts], name, axis=1)
        channels = sum(part.channels for part in parts)
        variance = sum(part.variance * part.channels for part in parts) / channels
        mean_square = sum(part.mean_square * part.channels for part in parts) / channels
        return replace(parts[0], name=output, channels=channels, variance=variance, mean_square=mean_square)

    def relu(self, x: Feature) -> Feature:
        """Relu of a map that no convolution has just made: after a sum."""
        return self._activate(x, "Relu")

    def max_pool(self, x: Feature, kernel: int, stride: int, name: str, *, padding: int = 0) -> Feature:
        """Max pooling, unpadded by default."""
        pads = {"pads": [padding] * 4} if padding else {}
        output = self._node("MaxPool", [x.name], name, kernel_shape=[kernel] * 2, strides=[stride] * 2, **pads)
        height = _window_extent(x.height, kernel, stride, padding)
        return replace(x, name=output, height=height, width=_window_extent(x.width, kernel, stride, padding))

    def average_pool(self, x: Feature, name: str) -> Feature:
        """3x3 average pooling of stride 1, the padding counted as the InceptionV3 authors do."""
        output = self._node(
            "AveragePool",
            [x.name],
            name,
            kernel_shape=[3, 3],
            strides=[1, 1],
            pads=[1, 1, 1, 1],
            count_include_pad=1,
        )
        return replace(x, name=output)

    def global_average_pool(self, x: Feature, name: str) -> Feature:
        """Mean over height and width."""
        output = self._node("GlobalAveragePool", [x.name], name)
        variance = x.variance * GLOBAL_POOL_VARIANCE
        mean_square = x.mean_square - x.variance + variance
        return replace(x, name=output, height=1, width=1, variance=variance, mean_square=mean_square)

    def resize(self, x: Feature, height: int, width: int, name: str, *, coordinates: str) -> Feature:
        """Bilinear resize to height x width; `coordinates` as ONNX's coordinate_transformation_mode."""
        sizes = np.array([1, x.channels, height, width], dtype=np.int64)
        inputs = [x.name, "", "", self._constant(f"{name}/sizes", sizes)]
        output = self._node(
            "Resize", inputs, name, mode="linear", coordinate_transformation_mode=coordinates, nearest_mode="floor"
        )
        return replace(x, name=output, height=height, width=width)

    def pad_to(self, x: Feature, height: int, width: int, name: str) -> Feature:
        """Zero rows and columns at the bottom and the right, up to height x width."""
        pads = np.array([0, 0, 0, 0, 0, 0, height - x.height, width - x.width], dtype=np.int64)
        output = self._node("Pad", [x.name, self._constant(f"{name}/pads", pads)], name, mode="constant")
        return replace(x, name=output, height=height, width=width)

    def channels_last_rows(self, x: Feature, columns: int, name: str) -> str:
        """NCHW map to float32[1, rows, columns], rows in NHWC order: how detection heads list their anchors."""
        transposed = self._node("Transpose", [x.name], f"{name}/transpose", perm=[0, 2, 3, 1])
        shape = self._constant(f"{name}/shape", np.array([1, -1, columns], dtype=np.int64))
        return self._node("Reshape", [transposed, shape], f"{name}/reshape")

    def concat_rows(self, parts: list[str], name: str) -> str:
        """Concatenation of [1, rows, columns] tensors along rows."""
        return self._node("Concat", parts, name, axis=1)

    def sigmoid(self, tensor: str, name: str) -> str:
        """Element-wise logistic function."""
        return self._node("Sigmoid", [tensor], name)

    # Internals -----------------------------------------------------------------------------------------------------

    def _activate(self, x: Feature, activation: str | None) -> Feature:
        if activation is None:
            return x
        name = f"{x.name}/{activation.lower()}"
        if activation == "Relu":
            output = self._node("Relu", [x.name], name)
        else:
            assert activation == "Relu6", f"unknown activation {activation!r}"
            low = self._constant("relu6/min", np.array(0, dtype=np.float32))
            high = self._constant("relu6/max", np.array(6, dtype=np.float32))
            output = self._node("Clip", [x.name, low, high], name)
        return replace(x, name=output, variance=x.variance * RELU_VARIANCE, mean_square=x.variance * RELU_MEAN_SQUARE)

    def _preactivation(self, name: str, channels: int, height: int, width: int) -> Feature:
        variance = PREACTIVATION_STD**2
        return Feature(name, channels, height, width, variance, variance)

    def _node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self._initializers[name] = numpy_helper.from_array(value, name)
        return name

    def _generator(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, zlib.crc32(name.encode())])

    def _weight(
        self, name: str, shape: tuple[int, ...], power: float, centred: bool, axes: tuple[int, ...] | None = None
    ) -> None:
        """`power`: fan-in times the input's mean square; `axes`: those a filter is centred over, all but the first."""
        weight = self._generator(name).standard_normal(shape, dtype=np.float32)
        if centred:
            over = axes if axes is not None else tuple(range(1, len(shape)))
            weight -= np.float32(CENTRING) * weight.mean(axis=over, keepdims=True)
        self._constant(name, weight * np.float32(PREACTIVATION_STD / np.sqrt(power)))

    def _bias(self, name: str, channels: int) -> None:
        values = self._generator(name).standard_normal(channels, dtype=np.float32)
        self._constant(name, values * np.float32(BIAS_STD))
