"""Networks as ONNX builders with seeded weights, their quantisation, and the real models tests use.

NETWORKS are the paper's six: Jung et al., CGO 2023, doi 10.1145/3579990.3580015, at its input sizes. FURTHER_NETWORKS
are what others measure. Every builder gives float32 NCHW graphs of batch 1 with one input, `input`, of images scaled to
[-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import onnx

from models.deeplab_v3_plus import deeplab_v3_plus
from models.inception_v3 import inception_v3
from models.mobiledet_ssd import mobiledet_ssd
from models.mobilenet_v2 import mobilenet_v2
from models.mobilenet_v2_ssd import mobilenet_v2_ssd
from models.resnet50 import resnet50
from models.unet import unet
from npu_backend.errors import OptionError

Builder = Callable[[int, int], onnx.ModelProto]


class Network(NamedTuple):
    """A builder, called as builder(input_size, seed), and its own input size in pixels."""

    builder: Builder
    input_size: int


NETWORKS: dict[str, Network] = {
    "inception_v3": Network(inception_v3, 299),
    "mobilenet_v2": Network(mobilenet_v2, 224),
    "mobilenet_v2_ssd": Network(mobilenet_v2_ssd, 300),
    "mobiledet_ssd": Network(mobiledet_ssd, 320),
    "deeplab_v3_plus": Network(deeplab_v3_plus, 513),
    "unet": Network(unet, 572),
}
FURTHER_NETWORKS: dict[str, Network] = {"resnet50": Network(resnet50, 224)}
ALL_NETWORKS = NETWORKS | FURTHER_NETWORKS
# Below these, a window would be larger than its map or a map empty.
MINIMUM_INPUT_SIZE = {"inception_v3": 75, "unet": 16}
DEFAULT_MINIMUM_INPUT_SIZE = 32


def build(name: str, input_size: int | None = None, seed: int = 0) -> onnx.ModelProto:
    """The float network `name`, by default at its own input size; raises OptionError for what it cannot build."""
    network = ALL_NETWORKS.get(name)
    if network is None:
        raise OptionError(f"no network {name!r}; choose one of {', '.join(ALL_NETWORKS)}")
    size = network.input_size if input_size is None else input_size
    smallest = MINIMUM_INPUT_SIZE.get(name, DEFAULT_MINIMUM_INPUT_SIZE)
    if size < smallest:
        raise OptionError(f"{name} needs an input of {smallest} pixels or more, not {size}")
    if seed < 0:
        raise OptionError(f"the seed must be 0 or more, not {seed}")
    return network.builder(size, seed)
