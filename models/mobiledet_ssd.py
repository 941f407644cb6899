"""MobileDet-SSD, the variant searched for a DSP (Xiong et al. 2021, arXiv 2004.14525), with SSDLite heads."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from models.builder import Feature, NetworkBuilder
from models.ssd import detection_outputs, extra_maps


@dataclass(frozen=True)
class Block:
    """A searched block. Kinds, as the paper names them:

    "inverted": expand 1x1, depthwise 3x3, project 1x1. "fused": expand by a dense 3x3, project 1x1.
    "tucker": squeeze 1x1 to `compression` of the input's channels, dense 3x3 to `expansion` of the output's,
    project 1x1.
    A residual is added where stride and channels allow, unless `residual` is False.
    """

    kind: str
    channels: int
    expansion: float
    stride: int = 1
    compression: float = 1.0
    residual: bool = True


# The detector taps the last map at 1/16 and the last one at 1/32.
STAGES: tuple[tuple[Block, ...], ...] = (
    (Block("inverted", 24, 1),),
    (
        Block("fused", 32, 4, stride=2),
        Block("fused", 32, 4),
        Block("inverted", 32, 4),
        Block("tucker", 32, 0.75, compression=0.25),
    ),
    (Block("fused", 64, 8, stride=2), Block("inverted", 64, 4), Block("fused", 64, 4), Block("fused", 64, 4)),
    (
        Block("fused", 120, 8, stride=2),
        Block("inverted", 120, 4),
        Block("inverted", 120, 8),
        Block("inverted", 120, 8),
        Block("fused", 144, 8),
        Block("inverted", 144, 8),
        Block("inverted", 144, 8),
        Block("inverted", 144, 8),
    ),
    (
        Block("inverted", 160, 4, stride=2),
        Block("inverted", 160, 4),
        Block("fused", 160, 4, residual=False),
        Block("tucker", 160, 0.75, compression=0.75),
        Block("inverted", 240, 8),
    ),
)


def _inverted(net: NetworkBuilder, x: Feature, block: Block, name: str) -> Feature:
    if block.expansion != 1:
        x = net.conv(x, int(x.channels * block.expansion), 1, f"{name}/expand/conv", activation="Relu6")
    return net.depthwise(x, f"{name}/depthwise/conv", stride=block.stride, activation="Relu6")


def _fused(net: NetworkBuilder, x: Feature, block: Block, name: str) -> Feature:
    channels = int(x.channels * block.expansion)
    return net.conv(x, channels, 3, f"{name}/fused/conv", stride=block.stride, activation="Relu6")


def _tucker(net: NetworkBuilder, x: Feature, block: Block, name: str) -> Feature:
    x = net.conv(x, int(x.channels * block.compression), 1, f"{name}/squeeze/conv", activation="Relu6")
    channels = int(block.channels * block.expansion)
    return net.conv(x, channels, 3, f"{name}/core/conv", stride=block.stride, activation="Relu6")


_KINDS = {"inverted": _inverted, "fused": _fused, "tucker": _tucker}


def _block(net: NetworkBuilder, x: Feature, block: Block, name: str) -> Feature:
    inner = _KINDS[block.kind](net, x, block, name)
    projected = net.conv(inner, block.channels, 1, f"{name}/project/conv")
    if not block.residual or block.stride != 1 or block.channels != x.channels:
        return projected
    return net.add(x, projected, f"{name}/add")


def mobiledet_ssd(input_size: int = 320, seed: int = 0) -> onnx.ModelProto:
    """float32[1, 3, input_size, input_size] to `boxes` [1, anchors, 4] and `scores` [1, anchors, 91]; 2034 at 320."""
    net = NetworkBuilder("mobiledet_ssd", seed)
    x = net.conv(net.input(input_size), 32, 3, "stem/conv", stride=2, activation="Relu6")
    ends: list[Feature] = []
    for stage, blocks in enumerate(STAGES, start=1):
        for index, block in enumerate(blocks, start=1):
            x = _block(net, x, block, f"stage{stage}/block{index}")
        ends.append(x)
    detection_outputs(net, [*ends[-2:], *extra_maps(net, x)])
    return net.model()
