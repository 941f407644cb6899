"""MobileNetV2, width 1.0 (Sandler et al. 2018, arXiv 1801.04381, table 2)."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from models.builder import Feature, NetworkBuilder

CLASSES = 1000
HEAD_CHANNELS = 1280


@dataclass(frozen=True)
class Stage:
    """A row of the paper's table 2: `repeats` inverted residuals, the first of them with `stride`."""

    expansion: int
    channels: int
    repeats: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


@dataclass(frozen=True)
class Backbone:
    """The maps other networks tap: each block's output, each block's expanded map, and the 1280-channel head."""

    blocks: tuple[Feature, ...]
    expanded: tuple[Feature, ...]
    head: Feature


def inverted_residual(
    net: NetworkBuilder, x: Feature, expansion: int, channels: int, name: str, *, stride: int = 1, dilation: int = 1
) -> tuple[Feature, Feature]:
    """Expand 1x1, depthwise 3x3, project 1x1 without activation, and add when shapes allow: (output, expanded map)."""
    expanded = x
    if expansion != 1:
        expanded = net.conv(x, x.channels * expansion, 1, f"{name}/expand/conv", activation="Relu6")
    spatial = net.depthwise(expanded, f"{name}/depthwise/conv", stride=stride, dilation=dilation, activation="Relu6")
    projected = net.conv(spatial, channels, 1, f"{name}/project/conv")
    if stride != 1 or channels != x.channels:
        return projected, expanded
    return net.add(x, projected, f"{name}/add"), expanded


def backbone(net: NetworkBuilder, image: Feature, *, dilated_last_stages: bool = False) -> Backbone:
    """Stem, the 17 blocks and the 1x1 head, to 1/32 of the image; or to 1/16, the last stages dilated, not strided."""
    x = net.conv(image, 32, 3, "stem/conv", stride=2, activation="Relu6")
    blocks: list[Feature] = []
    expanded_maps: list[Feature] = []
    dilation = 1
    for stage in STAGES:
        stride = stage.stride
        if dilated_last_stages and stage.channels == 160:
            stride, dilation = 1, 2
        for repeat in range(stage.repeats):
            name = f"block{len(blocks) + 1}"
            x, expanded = inverted_residual(
                net,
                x,
                stage.expansion,
                stage.channels,
                name,
                stride=stride if repeat == 0 else 1,
                dilation=dilation,
            )
            blocks.append(x)
            expanded_maps.append(expanded)
    head = net.conv(x, HEAD_CHANNELS, 1, "head/conv", activation="Relu6")
    return Backbone(tuple(blocks), tuple(expanded_maps), head)


def mobilenet_v2(input_size: int = 224, seed: int = 0) -> onnx.ModelProto:
    """float32[1, 3, input_size, input_size] `input` to float32[1, 1000] `logits`."""
    net = NetworkBuilder("mobilenet_v2", seed)
    features = backbone(net, net.input(input_size))
    pooled = net.global_average_pool(features.head, "head/pool")
    net.output(net.fully_connected(pooled, CLASSES, "classifier/gemm"), "logits", [1, CLASSES])
    return net.model()
