"""Cases of pooling over windows and over whole images, and what they are in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npu_backend.graph import Graph, Op
from npu_backend.ops.attributes import PoolAttributes
from tests.ops.case import Case, Shape, in_form, in_forms
from tests.ops.onnx_reference import Graph as OnnxGraph


def pool(label: str, shape: Shape, function: str, kernel: tuple[int, int], **attributes: Any) -> Case:
    code = (0.15, 20) if function in ("l1", "l2") else (0.05, 113)
    return Case("pool2d", f"{function}-{label}", (shape,), PoolAttributes(function, kernel, **attributes),
                same_code=function == "maximum", output_code=code)  # fmt: skip


EVERY_FORM = (
    pool("3x3", (2, 9, 11, 21), "maximum", (3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    pool("stride", (2, 11, 8, 16), "average_valid", (2, 3), strides=(3, 2), pads=(0, 1, 1, 0)),
    Case("global_average_pool", "batch", ((2, 5, 11, 32),)),
)

POOLS = (
    pool("2x2", (1, 14, 13, 19), "maximum", (2, 2), strides=(2, 2)),
    pool("far-padding", (1, 11, 10, 23), "maximum", (4, 3), strides=(1, 3), pads=(3, 2, 2, 1)),
    pool("dilated", (1, 12, 11, 70), "maximum", (3, 2), dilations=(2, 3), pads=(2, 1, 2, 1)),
    pool("ceil", (1, 8, 9, 37), "maximum", (3, 2), strides=(2, 3), ceil_mode=True),
    pool("3x3", (1, 10, 9, 17), "average_valid", (3, 3), pads=(1, 1, 1, 1)),
    pool("ceil", (1, 8, 11, 17), "average_valid", (3, 4), strides=(2, 3), pads=(1, 1, 1, 1), ceil_mode=True),
    pool("3x3", (1, 10, 9, 33), "average_window", (3, 3), pads=(1, 1, 1, 1), strides=(2, 1)),
    pool("ceil", (2, 8, 12, 19), "average_window", (3, 4), strides=(3, 3), pads=(0, 1, 0, 1), ceil_mode=True),
    Case("global_average_pool", "7x7", ((1, 7, 7, 83),)),
)

# ONNX Runtime pools these in float, and averages with dilation since opset 19 only.
NORMS = (
    pool("3x2", (1, 9, 8, 21), "l1", (3, 2), strides=(2, 2), pads=(1, 0, 1, 1)),
    pool("2x3", (2, 7, 8, 37), "l2", (2, 3), pads=(1, 1, 0, 1)),
)

CASES = (
    *in_forms(EVERY_FORM),
    *(each for case in POOLS for each in (case, in_form(case, "int8"), in_form(case, "float16"))),
    *(in_form(case, form) for case in NORMS for form in ("float16", "int16")),
)


def emit_pool(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    a = op.attributes
    window: dict[str, Any] = {"kernel_shape": a.kernel, "strides": a.strides, "pads": a.pads}
    if a.function in ("l1", "l2"):
        return onnx.op("LpPool", *names, p=int(a.function[1]), **window)
    window["ceil_mode"] = int(a.ceil_mode)
    if a.dilations != (1, 1):
        window["dilations"] = a.dilations
    if a.function == "maximum":
        return onnx.op("MaxPool", *names, **window)
    return onnx.op("AveragePool", *names, count_include_pad=int(a.function == "average_window"), **window)


EMIT = {
    "pool2d": emit_pool,
    "global_average_pool": lambda onnx, graph, op, names: onnx.op("GlobalAveragePool", *names),
}
