"""What the two detectors share: SSD's extra feature maps and SSDLite's separable prediction heads.

SSD: Liu et al. 2016, arXiv 1512.02325; SSDLite: Sandler et al. 2018, arXiv 1801.04381, section 6.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.builder import Feature, NetworkBuilder

# 90 classes of COCO and the background.
CLASSES = 91
BOX_COORDINATES = 4
# The finest map has fewer anchors per cell (the object detection API's SSD configuration).
FIRST_MAP_ANCHORS = 3
ANCHORS = 6


@dataclass(frozen=True)
class Extra:
    """An extra map: squeeze to `inner` channels, depthwise of stride 2, expand to `channels`."""

    inner: int
    channels: int


EXTRAS = (Extra(256, 512), Extra(128, 256), Extra(128, 256), Extra(64, 128))


def extra_maps(net: NetworkBuilder, x: Feature) -> list[Feature]:
    """Four maps, each half as high and wide as the one before."""
    maps: list[Feature] = []
    for index, extra in enumerate(EXTRAS, start=1):
        name = f"extra{index}"
        x = net.conv(x, extra.inner, 1, f"{name}/squeeze/conv", activation="Relu6")
        x = net.depthwise(x, f"{name}/depthwise/conv", stride=2, activation="Relu6")
        x = net.conv(x, extra.channels, 1, f"{name}/expand/conv", activation="Relu6")
        maps.append(x)
    return maps


def detection_outputs(net: NetworkBuilder, maps: list[Feature]) -> None:
    """Declare `boxes`, float32[1, anchors, 4], and `scores`, float32[1, anchors, 91], over all maps."""
    per_cell = [FIRST_MAP_ANCHORS if index == 0 else ANCHORS for index in range(len(maps))]
    rows = sum(x.height * x.width * anchors for x, anchors in zip(maps, per_cell, strict=False))
    boxes = _head(net, maps, per_cell, BOX_COORDINATES, "box")
    net.output(boxes, "boxes", [1, rows, BOX_COORDINATES])
    classes = _head(net, maps, per_cell, CLASSES, "class")
    net.output(net.sigmoid(classes, "class/sigmoid"), "scores", [1, rows, CLASSES])


def _head(net: NetworkBuilder, maps: list[Feature], per_cell: list[int], columns: int, kind: str) -> str:
    parts: list[str] = []
    for index, (x, anchors) in enumerate(zip(maps, per_cell, strict=False), start=1):
        name = f"{kind}{index}"
        x = net.depthwise(x, f"{name}/depthwise/conv", activation="Relu6")
        x = net.conv(x, anchors * columns, 1, f"{name}/predict/conv")
        parts.append(net.channels_last_rows(x, columns, name))
    return net.concat_rows(parts, f"{kind}/concat")
