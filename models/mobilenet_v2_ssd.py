"""MobileNetV2-SSD: MobileNetV2 with SSDLite heads (Sandler et al. 2018, arXiv 1801.04381, section 6.2)."""

from __future__ import annotations

import onnx

from models.builder import NetworkBuilder
from models.mobilenet_v2 import backbone
from models.ssd import detection_outputs, extra_maps

# Block 14 is the first at 1/32 of the image; its expanded map is the last one at 1/16.
FIRST_MAP_BLOCK = 14


def mobilenet_v2_ssd(input_size: int = 300, seed: int = 0) -> onnx.ModelProto:
    """float32[1, 3, input_size, input_size] to `boxes` [1, anchors, 4] and `scores` [1, anchors, 91]; 1917 at 300."""
    net = NetworkBuilder("mobilenet_v2_ssd", seed)
    features = backbone(net, net.input(input_size))
    first = features.expanded[FIRST_MAP_BLOCK - 1]
    detection_outputs(net, [first, features.head, *extra_maps(net, features.head)])
    return net.model()
