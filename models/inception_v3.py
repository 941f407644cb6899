"""InceptionV3 without the auxiliary classifier (Szegedy et al. 2016, arXiv 1512.00567).

Blocks bear the names of its authors' code.
"""

from __future__ import annotations

import onnx

from models.builder import Feature, NetworkBuilder, Pair

CLASSES = 1000
Layer = tuple[int, int | Pair]


def _chain(net: NetworkBuilder, x: Feature, name: str, layers: list[Layer]) -> Feature:
    """Stride-1 convolutions with Relu, (channels, kernel) each."""
    for index, (channels, kernel) in enumerate(layers, start=1):
        x = net.conv(x, channels, kernel, f"{name}/conv{index}", activation="Relu")
    return x


def _reduce(net: NetworkBuilder, x: Feature, channels: int, name: str) -> Feature:
    return net.conv(x, channels, 3, f"{name}/reduce", stride=2, padding=0, activation="Relu")


def _pool_branch(net: NetworkBuilder, x: Feature, channels: int, block: str) -> Feature:
    pooled = net.average_pool(x, f"{block}/pool/average")
    return net.conv(pooled, channels, 1, f"{block}/pool/conv", activation="Relu")


def _stem(net: NetworkBuilder, image: Feature) -> Feature:
    x = net.conv(image, 32, 3, "conv1a", stride=2, padding=0, activation="Relu")
    x = net.conv(x, 32, 3, "conv2a", padding=0, activation="Relu")
    x = net.conv(x, 64, 3, "conv2b", activation="Relu")
    x = net.max_pool(x, 3, 2, "pool2")
    x = net.conv(x, 80, 1, "conv3b", activation="Relu")
    return net.conv(x, 192, 3, "conv4a", padding=0, activation="Relu")


def _block_35(net: NetworkBuilder, x: Feature, block: str, pool_channels: int) -> Feature:
    branches = [
        _chain(net, x, f"{block}/1x1", [(64, 1)]),
        _chain(net, x, f"{block}/5x5", [(48, 1), (64, 5)]),
        _chain(net, x, f"{block}/3x3dbl", [(64, 1), (96, 3), (96, 3)]),
        _pool_branch(net, x, pool_channels, block),
    ]
    return net.concat(branches, f"{block}/concat")


def _reduction_35_to_17(net: NetworkBuilder, x: Feature, block: str) -> Feature:
    double = _chain(net, x, f"{block}/3x3dbl", [(64, 1), (96, 3)])
    branches = [
        _reduce(net, x, 384, f"{block}/3x3"),
        _reduce(net, double, 96, f"{block}/3x3dbl"),
        net.max_pool(x, 3, 2, f"{block}/pool/max"),
    ]
    return net.concat(branches, f"{block}/concat")


def _block_17(net: NetworkBuilder, x: Feature, block: str, inner: int) -> Feature:
    row, column = (1, 7), (7, 1)
    branches = [
        _chain(net, x, f"{block}/1x1", [(192, 1)]),
        _chain(net, x, f"{block}/7x7", [(inner, 1), (inner, row), (192, column)]),
        _chain(
            net,
            x,
            f"{block}/7x7dbl",
            [(inner, 1), (inner, column), (inner, row), (inner, column), (192, row)],
        ),
        _pool_branch(net, x, 192, block),
    ]
    return net.concat(branches, f"{block}/concat")


def _reduction_17_to_8(net: NetworkBuilder, x: Feature, block: str) -> Feature:
    short = _chain(net, x, f"{block}/3x3", [(192, 1)])
    long = _chain(net, x, f"{block}/7x7x3", [(192, 1), (192, (1, 7)), (192, (7, 1))])
    branches = [
        _reduce(net, short, 320, f"{block}/3x3"),
        _reduce(net, long, 192, f"{block}/7x7x3"),
        net.max_pool(x, 3, 2, f"{block}/pool/max"),
    ]
    return net.concat(branches, f"{block}/concat")


def _fork(net: NetworkBuilder, x: Feature, name: str) -> Feature:
    """A 1x3 and a 3x1 convolution side by side."""
    row = net.conv(x, 384, (1, 3), f"{name}/row", activation="Relu")
    column = net.conv(x, 384, (3, 1), f"{name}/column", activation="Relu")
    return net.concat([row, column], f"{name}/concat")


def _block_8(net: NetworkBuilder, x: Feature, block: str) -> Feature:
    branches = [
        _chain(net, x, f"{block}/1x1", [(320, 1)]),
        _fork(net, _chain(net, x, f"{block}/3x3", [(384, 1)]), f"{block}/3x3"),
        _fork(net, _chain(net, x, f"{block}/3x3dbl", [(448, 1), (384, 3)]), f"{block}/3x3dbl"),
        _pool_branch(net, x, 192, block),
    ]
    return net.concat(branches, f"{block}/concat")


def inception_v3(input_size: int = 299, seed: int = 0) -> onnx.ModelProto:
    """float32[1, 3, input_size, input_size] `input` to float32[1, 1000] `logits`; input_size 75 or more."""
    net = NetworkBuilder("inception_v3", seed)
    x = net.max_pool(_stem(net, net.input(input_size)), 3, 2, "pool4")
    for block, pool_channels in (("mixed5b", 32), ("mixed5c", 64), ("mixed5d", 64)):
        x = _block_35(net, x, block, pool_channels)
    x = _reduction_35_to_17(net, x, "mixed6a")
    for block, inner in (("mixed6b", 128), ("mixed6c", 160), ("mixed6d", 160), ("mixed6e", 192)):
        x = _block_17(net, x, block, inner)
    x = _reduction_17_to_8(net, x, "mixed7a")
    for block in ("mixed7b", "mixed7c"):
        x = _block_8(net, x, block)
    pooled = net.global_average_pool(x, "head/pool")
    net.output(net.fully_connected(pooled, CLASSES, "classifier/gemm"), "logits", [1, CLASSES])
    return net.model()


def inception_v3_stem(input_size: int = 299, seed: int = 0) -> onnx.ModelProto:
    """The first five convolutions, of which the paper has a table: to float32[1, 192, 71, 71] `features` at 299."""
    net = NetworkBuilder("inception_v3_stem", seed)
    x = _stem(net, net.input(input_size))
    net.feature_output(x, "features")
    return net.model()
