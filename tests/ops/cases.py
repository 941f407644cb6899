"""Cases of every kind of operator: the one table that the loop over machines, splits and scratchpads runs through.

A family's cases stand in a file of its own, ``cases_<family>.py``, with a tuple CASES; here they come together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from npu_backend.ops.attributes import (
    ConvAttributes,
    ConvTransposeAttributes,
    DenseAttributes,
    PoolAttributes,
    ReduceAttributes,
    ResizeAttributes,
    SoftmaxAttributes,
)
from tests.ops import cases_elementwise, cases_matmul, cases_movement
from tests.ops.case import INPUT_CODES, OUTPUT_CODE, Arrays, Case, Shape, in_forms


def matrix_constants(
    shape: Shape, summed: int, outputs: int, *, per_channel: bool = True, bias: bool = True
) -> Callable[[np.random.Generator], Arrays]:
    """Weight, scales and bias such that most outputs stay off the ends of the range."""

    def draw_constants(rng: np.random.Generator) -> Arrays:
        # Codes and weights each spread by about 73; a spread of 45 output codes is wanted.
        scale = 45 * OUTPUT_CODE[0] / INPUT_CODES[0][0] / (73 * 73 * summed**0.5)
        scales = (scale * rng.uniform(0.5, 1.5, outputs if per_channel else 1)).astype(np.float32)
        weight = rng.integers(-127, 128, shape).astype(np.int8)
        biases = rng.integers(-2000, 2000, outputs).astype(np.int32)
        return (weight, scales, biases) if bias else (weight, scales)

    return draw_constants


def conv(label: str, shape: Shape, outputs: int, kernel: tuple[int, int], *, spm_bytes: int = 4096,
         per_channel: bool = True, bias: bool = True, **attributes: Any) -> Case:  # fmt: skip
    inputs = shape[3] // attributes.get("groups", 1)
    constants = matrix_constants(
        (outputs, inputs, *kernel), inputs * prod(kernel), outputs, per_channel=per_channel, bias=bias
    )
    return Case("conv2d", label, (shape,), ConvAttributes(**attributes), constants, spm_bytes=spm_bytes)


def conv_transpose(label: str, shape: Shape, outputs: int, kernel: tuple[int, int], *, spm_bytes: int = 8192,
                   per_channel: bool = True, bias: bool = True, **attributes: Any) -> Case:  # fmt: skip
    constants = matrix_constants(
        (shape[3], outputs, *kernel), shape[3] * prod(kernel) // prod(attributes.get("strides", (1, 1))) + 1, outputs,
        per_channel=per_channel, bias=bias,
    )  # fmt: skip
    return Case(
        "conv_transpose2d", label, (shape,), ConvTransposeAttributes(**attributes), constants, spm_bytes=spm_bytes
    )


def dense(label: str, shape: Shape, outputs: int, *, bias: bool = True, per_channel: bool = True,
          clamp: tuple[int, int] | None = None) -> Case:  # fmt: skip
    constants = matrix_constants((shape[-1], outputs), shape[-1], outputs, per_channel=per_channel, bias=bias)
    return Case("dense", label, (shape,), DenseAttributes(clamp), constants, spm_bytes=4096)


def pool(label: str, shape: Shape, function: str, kernel: tuple[int, int], **attributes: Any) -> Case:
    return Case("pool2d", f"{function}-{label}", (shape,), PoolAttributes(function, kernel, **attributes),
                same_code=function == "maximum")  # fmt: skip


def reductions(label: str, shape: Shape, axes: tuple[int, ...]) -> tuple[Case, Case]:
    maximum = Case("reduce", f"maximum-{label}", (shape,), ReduceAttributes("maximum", axes), same_code=True)
    return maximum, Case("reduce", f"mean-{label}", (shape,), ReduceAttributes("mean", axes), output_code=(0.02, 113))


def resize(label: str, shape: Shape, size: tuple[int, int], function: str, mode: str = "half_pixel",
           nearest: str = "round_prefer_floor", scales: tuple[float, float] | None = None) -> Case:  # fmt: skip
    factors = scales or tuple(float(np.float32(new) / np.float32(old)) for new, old in zip(size, shape[1:3]))
    attributes = ResizeAttributes(function, size, factors, mode, nearest)  # type: ignore[arg-type]
    return Case("resize2d", f"{function}-{label}", (shape,), attributes, same_code=function == "nearest")


CONVOLUTIONS = (
    conv("3x3", (1, 13, 11, 19), 37, (3, 3), pads=(1, 1, 1, 1), spm_bytes=8192),
    conv("1x1", (1, 7, 9, 35), 50, (1, 1), bias=False, per_channel=False),
    conv("batch", (2, 9, 8, 16), 32, (3, 3), pads=(1, 1, 1, 1), strides=(2, 2), spm_bytes=8192),
    conv("stride3", (1, 17, 19, 5), 16, (3, 2), strides=(3, 3), pads=(0, 1, 2, 0), spm_bytes=2048),
    conv("5x1", (1, 11, 6, 8), 24, (5, 1), pads=(2, 0, 2, 0), strides=(1, 2), spm_bytes=2048),
    conv("dilated", (1, 15, 14, 12), 20, (3, 3), dilations=(3, 2), pads=(3, 2, 3, 2), spm_bytes=8192),
    conv("stem", (1, 23, 21, 3), 32, (3, 3), strides=(2, 2), pads=(0, 0, 1, 1), spm_bytes=2048),
    conv("clamp", (1, 14, 13, 16), 17, (3, 3), pads=(1, 1, 1, 1), clamp=(100, 180), spm_bytes=8192),
    conv("far-padding", (1, 3, 4, 6), 16, (3, 3), pads=(4, 3, 5, 4), spm_bytes=2048),
    conv("deep", (1, 3, 5, 330), 48, (3, 3), pads=(1, 1, 1, 1), spm_bytes=32768),
    conv("pixel", (1, 1, 1, 131), 70, (1, 1)),
    conv("groups", (1, 9, 7, 24), 36, (3, 3), pads=(1, 1, 1, 1), groups=3),
    conv("groups-odd", (2, 6, 5, 15), 10, (2, 2), groups=5, strides=(2, 1), per_channel=False, spm_bytes=2048),
    conv("depthwise", (1, 13, 10, 37), 37, (3, 3), pads=(1, 1, 1, 1), groups=37, spm_bytes=2048),
    conv("depthwise-stride", (2, 11, 12, 33), 33, (5, 5), pads=(2, 1, 2, 2), strides=(2, 2), groups=33, bias=False),
    conv(
        "depthwise-dilated", (1, 14, 13, 16), 16, (3, 3), pads=(2, 2, 2, 2), dilations=(2, 2), groups=16, spm_bytes=2048
    ),
    conv("multiplier", (1, 8, 7, 8), 16, (3, 3), pads=(1, 1, 1, 1), groups=8, spm_bytes=2048),
)

TRANSPOSED = (
    conv_transpose("2x2", (1, 7, 5, 24), 19, (2, 2), strides=(2, 2)),
    conv_transpose("3x3", (1, 6, 7, 10), 33, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 1)),
    conv_transpose("4x4", (2, 5, 4, 8), 16, (4, 4), strides=(2, 2), pads=(1, 1, 1, 1), bias=False, spm_bytes=4096),
    conv_transpose("kernel<stride", (1, 5, 6, 6), 16, (2, 1), strides=(3, 3), per_channel=False, spm_bytes=4096),
    conv_transpose("stride1", (1, 16, 11, 17), 20, (3, 2), pads=(0, 1, 2, 0)),
    conv_transpose(
        "stride3", (1, 4, 5, 5), 16, (5, 4), strides=(3, 2), pads=(2, 0, 1, 1), clamp=(90, 150), spm_bytes=4096
    ),
)

PRODUCTS = (
    dense("rank2", (1, 131), 77),
    dense("rows", (13, 64), 40, bias=False),
    dense("rank3", (2, 7, 33), 35, per_channel=False),
    dense("long", (1, 700), 33, clamp=(60, 200)),
    dense("narrow", (350, 9), 3),
)

POOLS = (
    pool("2x2", (1, 14, 13, 19), "maximum", (2, 2), strides=(2, 2)),
    pool("3x3", (2, 9, 11, 21), "maximum", (3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    pool("far-padding", (1, 11, 10, 23), "maximum", (4, 3), strides=(1, 3), pads=(3, 2, 2, 1)),
    pool("3x3", (1, 10, 9, 17), "average_valid", (3, 3), pads=(1, 1, 1, 1)),
    pool("stride", (2, 11, 8, 16), "average_valid", (2, 3), strides=(3, 2), pads=(0, 1, 1, 0)),
    pool("3x3", (1, 10, 9, 33), "average_window", (3, 3), pads=(1, 1, 1, 1), strides=(2, 1)),
    Case("global_average_pool", "7x7", ((1, 7, 7, 83),)),
    Case("global_average_pool", "batch", ((2, 5, 11, 32),)),
    *reductions("pixels", (2, 3, 5, 131), (1, 2)),
    *reductions("channels", (1, 13, 9, 37), (3,)),
    *reductions("rows", (2, 9, 5, 33), (1,)),
    *reductions("two-runs", (3, 6, 5, 17), (1, 3)),
    *reductions("last", (5, 9, 77), (2,)),
    *reductions("first", (19, 270), (0,)),
    *reductions("all", (3, 8, 7), (0, 1, 2)),
)

RESIZES = (
    resize("double", (1, 7, 9, 19), (14, 18), "nearest", "asymmetric", "floor"),
    resize("odd", (2, 5, 7, 8), (13, 10), "nearest"),
    resize("down", (1, 13, 11, 16), (6, 5), "nearest", "align_corners", "round_prefer_ceil"),
    resize("ceil", (1, 6, 5, 17), (11, 7), "nearest", "half_pixel", "ceil"),
    resize("double", (1, 7, 9, 19), (14, 18), "bilinear"),
    resize("align", (1, 5, 6, 33), (17, 13), "bilinear", "align_corners"),
    resize("pixel", (1, 1, 1, 40), (9, 8), "bilinear", "pytorch_half_pixel"),
    resize("down", (2, 12, 9, 10), (5, 4), "bilinear", "asymmetric"),
)

SOFTMAXES = (
    Case("softmax", "rows", ((13, 37),), SoftmaxAttributes(1), output_code=(1 / 256, 0)),
    Case("softmax", "classes", ((1, 1001),), SoftmaxAttributes(-1), output_code=(1 / 255, 0), spm_bytes=4096),
    Case("softmax", "rank3", ((2, 9, 21),), SoftmaxAttributes(2), output_code=(0.01, 5)),
    Case("softmax", "pixels", ((1, 7, 5, 21),), SoftmaxAttributes(3), output_code=(1 / 256, 0)),
)

# As they lie, with the axes of the graph's inputs stored in another order.
_TURNED = {
    ("binary", "add"), ("binary", "add-constant-channels"), ("binary", "multiply-constant-rows"), ("conv2d", "3x3"),
    ("softmax", "pixels"),
}  # fmt: skip
TURNED = tuple(
    replace(case, label=f"{case.label}-turned", channels_last=False)
    for case in (*cases_elementwise.CODED, *CONVOLUTIONS, *SOFTMAXES)
    if (case.kind, case.label) in _TURNED
)

QUANTIZED = (
    *CONVOLUTIONS,
    *TRANSPOSED,
    *PRODUCTS,
    *POOLS,
    *RESIZES,
    *SOFTMAXES,
    *TURNED,
)

CASES: tuple[Case, ...] = (
    *in_forms(QUANTIZED),
    *cases_elementwise.CASES,
    *cases_matmul.CASES,
    *cases_movement.CASES,
)
