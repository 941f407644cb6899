"""Cases of every kind of operator: the one table that the loop over machines, splits and scratchpads runs through.

A family's cases stand in a file of its own, ``cases_<family>.py``, with a tuple CASES; here they come together.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from npu_backend.ops.attributes import (
    PoolAttributes,
)
from tests.ops import cases_elementwise, cases_matmul, cases_matrix, cases_movement, cases_reduction, cases_resize
from tests.ops.case import Case, Shape, in_forms


def pool(label: str, shape: Shape, function: str, kernel: tuple[int, int], **attributes: Any) -> Case:
    return Case("pool2d", f"{function}-{label}", (shape,), PoolAttributes(function, kernel, **attributes),
                same_code=function == "maximum")  # fmt: skip


POOLS = (
    pool("2x2", (1, 14, 13, 19), "maximum", (2, 2), strides=(2, 2)),
    pool("3x3", (2, 9, 11, 21), "maximum", (3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    pool("far-padding", (1, 11, 10, 23), "maximum", (4, 3), strides=(1, 3), pads=(3, 2, 2, 1)),
    pool("3x3", (1, 10, 9, 17), "average_valid", (3, 3), pads=(1, 1, 1, 1)),
    pool("stride", (2, 11, 8, 16), "average_valid", (2, 3), strides=(3, 2), pads=(0, 1, 1, 0)),
    pool("3x3", (1, 10, 9, 33), "average_window", (3, 3), pads=(1, 1, 1, 1), strides=(2, 1)),
    Case("global_average_pool", "7x7", ((1, 7, 7, 83),)),
    Case("global_average_pool", "batch", ((2, 5, 11, 32),)),
)


# As they lie, with the axes of the graph's inputs stored in another order.
_TURNED = {
    ("binary", "add"), ("binary", "add-constant-channels"), ("binary", "multiply-constant-rows"),
}  # fmt: skip
TURNED = tuple(
    replace(case, label=f"{case.label}-turned", channels_last=False)
    for case in cases_elementwise.CODED
    if (case.kind, case.label) in _TURNED
)

QUANTIZED = (
    *POOLS,
    *TURNED,
)

CASES: tuple[Case, ...] = (
    *in_forms(QUANTIZED),
    *cases_elementwise.CASES,
    *cases_matmul.CASES,
    *cases_matrix.CASES,
    *cases_movement.CASES,
    *cases_reduction.CASES,
    *cases_resize.CASES,
)
