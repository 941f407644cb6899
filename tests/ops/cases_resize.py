"""Cases of the 2-D resize, and what it is in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from npu_backend.graph import Graph, Op
from npu_backend.ops.attributes import ResizeAttributes
from tests.ops.case import Case, Shape, in_form
from tests.ops.onnx_reference import Graph as OnnxGraph


def resize(label: str, shape: Shape, size: tuple[int, int], function: str, mode: str = "half_pixel",
           nearest: str = "round_prefer_floor", spm_bytes: int = 2048, **more: Any) -> Case:  # fmt: skip
    factors = tuple(float(np.float32(new) / np.float32(old)) for new, old in zip(size, shape[1:3], strict=True))
    attributes = ResizeAttributes(function, size, factors, mode, nearest, **more)  # type: ignore[arg-type]
    return Case("resize2d", f"{function}-{label}", (shape,), attributes, same_code=function == "nearest",
                spm_bytes=spm_bytes)  # fmt: skip


ROI = (0.1, -0.1, 0.8, 1.1)
RESIZES = (
    resize("double", (1, 7, 9, 19), (14, 18), "nearest", "asymmetric", "floor"),
    resize("odd", (2, 5, 7, 8), (13, 10), "nearest"),
    resize("down", (1, 13, 11, 16), (6, 5), "nearest", "align_corners", "round_prefer_ceil"),
    resize("ceil", (1, 6, 5, 17), (11, 7), "nearest", "half_pixel", "ceil"),
    resize("symmetric", (1, 6, 5, 17), (11, 7), "nearest", "half_pixel_symmetric"),
    resize("crop", (1, 6, 7, 17), (11, 9), "nearest", "tf_crop_and_resize", roi=ROI, extrapolation=0.25),
    resize("double", (1, 7, 9, 19), (14, 18), "bilinear"),
    resize("align", (1, 5, 6, 33), (17, 13), "bilinear", "align_corners"),
    resize("pixel", (1, 1, 1, 40), (9, 8), "bilinear", "pytorch_half_pixel"),
    resize("down", (2, 12, 9, 10), (5, 4), "bilinear", "asymmetric"),
    resize("crop", (1, 8, 6, 21), (9, 7), "bilinear", "tf_crop_and_resize", roi=ROI, extrapolation=-0.5),
    resize("antialias", (1, 13, 11, 17), (5, 4), "bilinear", antialias=True),
    resize("up", (1, 5, 7, 19), (11, 9), "cubic"),
    resize("down", (2, 11, 9, 13), (6, 8), "cubic", "align_corners", cubic_coefficient=-0.5),
    resize("outside", (1, 6, 5, 21), (9, 11), "cubic", "asymmetric", exclude_outside=True),
    resize("crop", (1, 8, 6, 21), (9, 7), "cubic", "tf_crop_and_resize", roi=ROI, extrapolation=-0.5),
    resize("antialias", (1, 13, 12, 11), (6, 7), "cubic", antialias=True),
)

OTHERS = ("int8", "uint16", "float32", "int16")
CASES: tuple[Case, ...] = tuple(
    replace(in_form(case, form), spm_bytes=case.spm_bytes * np.dtype(form).itemsize)
    for index, case in enumerate(RESIZES)
    for form in ("uint8", "float16", OTHERS[index % len(OTHERS)])
)


def emit_resize(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    a, crop = op.attributes, op.attributes.coordinate_mode == "tf_crop_and_resize"
    sizes = (*(graph.tensor(op.output).shape[axis] for axis in (0, 3)), *a.output_size)
    roi = onnx.constant([0, 0, *a.roi[:2], 1, 1, *a.roi[2:]], np.float32) if crop else ""
    more: dict[str, Any] = {"nearest_mode": a.nearest_mode} if a.function == "nearest" else {}
    if a.function == "cubic":
        more = {"cubic_coeff_a": a.cubic_coefficient, "exclude_outside": int(a.exclude_outside)}
    mode = "linear" if a.function == "bilinear" else a.function
    return onnx.op(
        "Resize", names[0], roi, "", onnx.constant(sizes, np.int64), mode=mode,
        coordinate_transformation_mode=a.coordinate_mode, antialias=int(a.antialias),
        extrapolation_value=a.extrapolation, **more,
    )  # fmt: skip


EMIT: Mapping[str, Callable[[OnnxGraph, Graph, Op, Sequence[str]], str]] = {"resize2d": emit_resize}
