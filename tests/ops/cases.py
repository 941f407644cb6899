"""Cases of every kind of operator: the one table that the loop over machines, splits and scratchpads runs through.

A family's cases stand in a file of its own, ``cases_<family>.py``, with a tuple CASES; here they come together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from npu_backend.ops.attributes import (
    PoolAttributes,
    ReduceAttributes,
    SoftmaxAttributes,
)
from tests.ops import cases_elementwise, cases_matmul, cases_matrix, cases_movement, cases_resize
from tests.ops.case import Case, Shape, in_forms


def pool(label: str, shape: Shape, function: str, kernel: tuple[int, int], **attributes: Any) -> Case:
    return Case("pool2d", f"{function}-{label}", (shape,), PoolAttributes(function, kernel, **attributes),
                same_code=function == "maximum")  # fmt: skip


def reductions(label: str, shape: Shape, axes: tuple[int, ...]) -> tuple[Case, Case]:
    maximum = Case("reduce", f"maximum-{label}", (shape,), ReduceAttributes("maximum", axes), same_code=True)
    return maximum, Case("reduce", f"mean-{label}", (shape,), ReduceAttributes("mean", axes), output_code=(0.02, 113))


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

SOFTMAXES = (
    Case("softmax", "rows", ((13, 37),), SoftmaxAttributes(1), output_code=(1 / 256, 0)),
    Case("softmax", "classes", ((1, 1001),), SoftmaxAttributes(-1), output_code=(1 / 255, 0), spm_bytes=4096),
    Case("softmax", "rank3", ((2, 9, 21),), SoftmaxAttributes(2), output_code=(0.01, 5)),
    Case("softmax", "pixels", ((1, 7, 5, 21),), SoftmaxAttributes(3), output_code=(1 / 256, 0)),
)

# As they lie, with the axes of the graph's inputs stored in another order.
_TURNED = {
    ("binary", "add"), ("binary", "add-constant-channels"), ("binary", "multiply-constant-rows"),
    ("softmax", "pixels"),
}  # fmt: skip
TURNED = tuple(
    replace(case, label=f"{case.label}-turned", channels_last=False)
    for case in (*cases_elementwise.CODED, *SOFTMAXES)
    if (case.kind, case.label) in _TURNED
)

QUANTIZED = (
    *POOLS,
    *SOFTMAXES,
    *TURNED,
)

CASES: tuple[Case, ...] = (
    *in_forms(QUANTIZED),
    *cases_elementwise.CASES,
    *cases_matmul.CASES,
    *cases_matrix.CASES,
    *cases_movement.CASES,
    *cases_resize.CASES,
)
