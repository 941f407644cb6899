"""DeepLabV3+ on MobileNetV2 at output stride 16 (Chen et al. 2018, arXiv 1802.02611), 21 classes of PASCAL VOC."""

from __future__ import annotations

import onnx

from models.builder import Feature, NetworkBuilder
from models.mobilenet_v2 import backbone

CLASSES = 21
PYRAMID_CHANNELS = 256
LOW_LEVEL_CHANNELS = 48
ATROUS_RATES = (12, 24, 36)
# Block 3 ends the stage at 1/4 of the image.
LOW_LEVEL_BLOCK = 3


def _separable(net: NetworkBuilder, x: Feature, name: str, dilation: int = 1) -> Feature:
    x = net.depthwise(x, f"{name}/depthwise/conv", dilation=dilation)
    return net.conv(x, PYRAMID_CHANNELS, 1, f"{name}/pointwise/conv", activation="Relu")


def _image_pooling(net: NetworkBuilder, x: Feature) -> Feature:
    pooled = net.global_average_pool(x, "aspp/image/pool")
    projected = net.conv(pooled, PYRAMID_CHANNELS, 1, "aspp/image/conv", activation="Relu")
    return net.resize(projected, x.height, x.width, "aspp/image/resize", coordinates="half_pixel")


def _spatial_pyramid(net: NetworkBuilder, x: Feature) -> Feature:
    """Atrous spatial pyramid pooling: a 1x1, three dilated separable convolutions, and the image's mean."""
    branches = [net.conv(x, PYRAMID_CHANNELS, 1, "aspp/1x1/conv", activation="Relu")]
    branches += [_separable(net, x, f"aspp/rate{rate}", rate) for rate in ATROUS_RATES]
    branches.append(_image_pooling(net, x))
    merged = net.concat(branches, "aspp/concat")
    projected = net.conv(merged, PYRAMID_CHANNELS, 1, "aspp/project/conv", activation="Relu")
    return _separable(net, projected, "aspp/refine")


def deeplab_v3_plus(input_size: int = 513, seed: int = 0) -> onnx.ModelProto:
    """float32[1, 3, input_size, input_size] to `logits`, float32[1, 21, input_size, input_size]."""
    net = NetworkBuilder("deeplab_v3_plus", seed)
    features = backbone(net, net.input(input_size), dilated_last_stages=True)
    low = features.blocks[LOW_LEVEL_BLOCK - 1]
    pyramid = _spatial_pyramid(net, features.head)
    up = net.resize(pyramid, low.height, low.width, "decoder/resize", coordinates="align_corners")
    low = net.conv(low, LOW_LEVEL_CHANNELS, 1, "decoder/low/conv", activation="Relu")
    x = _separable(net, net.concat([up, low], "decoder/concat"), "decoder/refine")
    x = net.conv(x, CLASSES, 1, "classifier/conv")
    net.feature_output(
        net.resize(x, input_size, input_size, "classifier/resize", coordinates="align_corners"), "logits"
    )
    return net.model()
