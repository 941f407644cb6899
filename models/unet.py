"""UNet of base 64 (Ronneberger et al. 2015, arXiv 1505.04597) with padded convolutions, two classes.

The paper's own convolutions are unpadded and its skips cropped; padded ones keep the output as large as the image,
which is how the network is used today. Where a map of odd size was halved, the map that comes back up is one row and
column short and is padded at the bottom and the right.
"""

from __future__ import annotations

import onnx

from models.builder import Feature, NetworkBuilder

LEVEL_CHANNELS = (64, 128, 256, 512)
BOTTOM_CHANNELS = 1024
CLASSES = 2


def _double_conv(net: NetworkBuilder, x: Feature, channels: int, name: str) -> Feature:
    x = net.conv(x, channels, 3, f"{name}/conv1", activation="Relu6")
    return net.conv(x, channels, 3, f"{name}/conv2", activation="Relu6")


def _up(net: NetworkBuilder, x: Feature, skip: Feature, name: str) -> Feature:
    x = net.conv_transpose(x, skip.channels, f"{name}/transpose")
    if (x.height, x.width) != (skip.height, skip.width):
        x = net.pad_to(x, skip.height, skip.width, f"{name}/pad")
    return _double_conv(net, net.concat([skip, x], f"{name}/concat"), skip.channels, name)


def unet(input_size: int = 572, seed: int = 0) -> onnx.ModelProto:
    """float32[1, 3, input_size, input_size] to `logits`, float32[1, 2, input_size, input_size]."""
    net = NetworkBuilder("unet", seed)
    x = net.input(input_size)
    skips: list[Feature] = []
    for level, channels in enumerate(LEVEL_CHANNELS, start=1):
        skip = _double_conv(net, x, channels, f"down{level}")
        skips.append(skip)
        x = net.max_pool(skip, 2, 2, f"down{level}/pool")
    x = _double_conv(net, x, BOTTOM_CHANNELS, "bottom")
    for level in range(len(skips), 0, -1):
        x = _up(net, x, skips[level - 1], f"up{level}")
    net.feature_output(net.conv(x, CLASSES, 1, "classifier/conv"), "logits")
    return net.model()
