"""ResNet-50 (He et al. 2016, arXiv 1512.03385, table 1), in its version 1.5: the 3x3 convolution has the stride.

Common implementations moved the stride from the 1x1 convolution before it; at 224 pixels that is 4089 instead of 3858
million multiply-accumulates.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from models.builder import Feature, NetworkBuilder

CLASSES = 1000
EXPANSION = 4


@dataclass(frozen=True)
class Stage:
    """A row of the paper's table 1: `blocks` bottlenecks of `channels`, the first of them with `stride`."""

    channels: int
    blocks: int
    stride: int


STAGES = (Stage(64, 3, 1), Stage(128, 4, 2), Stage(256, 6, 2), Stage(512, 3, 2))


def _bottleneck(net: NetworkBuilder, x: Feature, channels: int, stride: int, name: str) -> Feature:
    """Reduce 1x1, 3x3, expand 1x1; the input is added, projected where its shape differs."""
    shortcut = x
    if stride != 1 or x.channels != channels * EXPANSION:
        shortcut = net.conv(x, channels * EXPANSION, 1, f"{name}/shortcut/conv", stride=stride)
    y = net.conv(x, channels, 1, f"{name}/reduce/conv", activation="Relu")
    y = net.conv(y, channels, 3, f"{name}/spatial/conv", stride=stride, activation="Relu")
    y = net.conv(y, channels * EXPANSION, 1, f"{name}/expand/conv")
    return net.relu(net.add(shortcut, y, f"{name}/add"))


def resnet50(input_size: int = 224, seed: int = 0) -> onnx.ModelProto:
    """float32[1, 3, input_size, input_size] `input` to float32[1, 1000] `logits`."""
    net = NetworkBuilder("resnet50", seed)
    x = net.conv(net.input(input_size), 64, 7, "stem/conv", stride=2, activation="Relu")
    x = net.max_pool(x, 3, 2, "stem/pool", padding=1)
    for number, stage in enumerate(STAGES, start=1):
        for block in range(stage.blocks):
            stride = stage.stride if block == 0 else 1
            x = _bottleneck(net, x, stage.channels, stride, f"stage{number}/block{block + 1}")
    pooled = net.global_average_pool(x, "head/pool")
    net.output(net.fully_connected(pooled, CLASSES, "classifier/gemm"), "logits", [1, CLASSES])
    return net.model()
