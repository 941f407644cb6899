"""Cases of reductions, softmax and normalisation along any axes, and what they are in ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from npu_backend.graph import Graph, Op
from npu_backend.ops.attributes import (
    ArgReduceAttributes,
    LrnAttributes,
    NormalizeAttributes,
    ReduceAttributes,
    SoftmaxAttributes,
)
from tests.ops.case import Case, Shape, in_form, in_forms
from tests.ops.onnx_reference import Graph as OnnxGraph
from tests.ops.onnx_reference import opset_of, to_host

# The scale of an output that holds most results of a function.
OUTPUT_SCALES = {"maximum": 0.02, "minimum": 0.02, "mean": 0.02, "sum": 0.2, "product": 1.0, "l1": 0.3, "l2": 0.1,
                 "sum_square": 1.0, "log_sum": 0.03, "log_sum_exp": 0.05}  # fmt: skip


def reduction(function: str, label: str, shape: Shape, axes: tuple[int, ...], **more: Any) -> Case:
    code = (OUTPUT_SCALES[function], 113)
    attributes = ReduceAttributes(function, axes)
    return Case("reduce", f"{function}-{label}", (shape,), attributes, output_code=code, **more)


def reductions(label: str, shape: Shape, axes: tuple[int, ...]) -> tuple[Case, Case]:
    return reduction("maximum", label, shape, axes, same_code=True), reduction("mean", label, shape, axes)


def arg_reduction(label: str, shape: Shape, function: str, axis: int, select_last: bool = False, **more: Any) -> Case:
    attributes = ArgReduceAttributes(function, axis, select_last)
    return Case("arg_reduce", f"{function}-{label}", (shape,), attributes, output_dtype="int64", **more)


def normalization(label: str, shape: Shape, axes: tuple[int, ...], epsilon: float = 1e-5, subtract_mean: bool = True,
                  **more: Any) -> Case:  # fmt: skip
    attributes = NormalizeAttributes(axes, epsilon, subtract_mean)
    return Case("normalize", label, (shape,), attributes, output_code=(0.03, 120), **more)


def softmax(label: str, shape: Shape, axis: int, output_code: tuple[float, int] = (1 / 256, 0), **more: Any) -> Case:
    return Case("softmax", label, (shape,), SoftmaxAttributes(axis), output_code=output_code, **more)


def log_softmax(label: str, shape: Shape, axis: int, **more: Any) -> Case:
    return Case("softmax", f"log-{label}", (shape,), SoftmaxAttributes(axis, True), output_code=(0.05, 230), **more)


def lrn(label: str, shape: Shape, size: int, **more: Any) -> Case:
    return Case("lrn", label, (shape,), LrnAttributes(size, **more))


# In every form; the rest, whose forms differ in nothing but the reading of elements, in 8 bits and half precision.
EVERY_FORM = (
    *reductions("pixels", (2, 3, 5, 131), (1, 2)),
    reduction("log_sum_exp", "channels", (1, 13, 9, 37), (3,)),
    arg_reduction("last", (5, 9, 77), "maximum", 2),
    normalization("channels", (2, 7, 9, 40), (3,)),
    softmax("pixels", (1, 7, 5, 21), 3),
    log_softmax("rows", (13, 37), 1, spm_bytes=1024),
    lrn("5", (2, 5, 7, 33), 5, alpha=0.2, bias=1.5),
)

REDUCTIONS = (
    *reductions("channels", (1, 13, 9, 37), (3,)),
    *reductions("rows", (2, 9, 5, 33), (1,)),
    *reductions("two-runs", (3, 6, 5, 17), (1, 3)),
    *reductions("last", (5, 9, 77), (2,)),
    *reductions("first", (19, 270), (0,)),
    *reductions("all", (3, 8, 7), (0, 1, 2)),
    *(
        reduction(function, "pixels", (2, 5, 7, 35), (1, 2))
        for function in OUTPUT_SCALES
        if function not in ("maximum", "mean", "product")
    ),
    reduction("product", "rows", (3, 3, 70), (1,), spm_bytes=512),
    reduction("sum", "image", (3, 5, 7, 11), (1, 2, 3), spm_bytes=1024),
    reduction("l2", "rank5", (2, 5, 3, 7, 11), (1, 3)),
    reduction("mean", "rank6", (2, 3, 2, 5, 3, 4), (1, 3, 5), spm_bytes=1024),
    reduction("minimum", "rank1", (301,), (0,)),
    reduction("mean", "one", (1, 1, 1, 531), (1, 2), spm_bytes=1024),
    arg_reduction("channels", (2, 5, 7, 31), "minimum", 3),
    arg_reduction("rows", (1, 13, 4, 9), "maximum", 1, select_last=True, spm_bytes=512),
    arg_reduction("first", (17, 90), "minimum", -2, select_last=True),
)

NORMALIZATIONS = (
    normalization("layer", (2, 11, 64), (2,)),
    normalization("two-axes", (3, 5, 7, 6), (2, 3), channels_last=False, spm_bytes=1024),
    normalization("instance", (2, 7, 9, 21), (1, 2)),
    normalization("group", (2, 5, 4, 3, 8), (1, 2, 4)),
    normalization("rms", (13, 48), (1,), 1e-6, subtract_mean=False, spm_bytes=1024),
    normalization("row", (1, 300), (0, 1), spm_bytes=4096),
)

SOFTMAXES = (
    softmax("rows", (13, 37), 1),
    softmax("classes", (1, 1001), -1, (1 / 255, 0), spm_bytes=16384),
    softmax("rank3", (2, 9, 21), 2, (0.01, 5)),
    softmax("first", (21, 70), 0),
    softmax("columns", (2, 7, 6, 19), 2),
    log_softmax("channels", (1, 7, 5, 21), -1, spm_bytes=1024),
    log_softmax("first", (21, 70), 0),
)

LRNS = (lrn("3", (1, 6, 5, 40), 3, alpha=0.5, beta=0.5), lrn("wide", (3, 2, 7, 9), 13, bias=2.0))

TURNED = tuple(
    replace(case, label=f"{case.label}-turned", channels_last=False)
    for case in (*EVERY_FORM, *REDUCTIONS, *NORMALIZATIONS)
    if str(case) in {
        "softmax-pixels-uint8", "normalize-instance-uint8", "normalize-channels-uint8", "reduce-sum-image-uint8",
        "lrn-5-uint8",
    }
)  # fmt: skip


def _in_some_forms(cases: Sequence[Case]) -> Iterator[Case]:
    for case in cases:
        yield from (case, in_form(case, "int8"), in_form(case, "float16"))


CASES = (*in_forms(EVERY_FORM), *_in_some_forms((*REDUCTIONS, *NORMALIZATIONS, *SOFTMAXES, *LRNS, *TURNED)))


def emit_reduce(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    a, axes = op.attributes, _host_axes(graph, op, op.attributes.axes)
    kind = {"maximum": "Max", "minimum": "Min", "mean": "Mean", "sum": "Sum", "product": "Prod", "l1": "L1", "l2": "L2",
            "sum_square": "SumSquare", "log_sum": "LogSum", "log_sum_exp": "LogSumExp"}[a.function]  # fmt: skip
    return _reduce(onnx, graph, op, f"Reduce{kind}", names[0], axes)


def _reduce(onnx: OnnxGraph, graph: Graph, op: Op, kind: str, x: str, axes: Sequence[int]) -> str:
    """Axes are an input of ReduceSum, and of all others since opset 18."""
    if kind == "ReduceSum" or opset_of(graph, op) >= 18:
        return onnx.op(kind, x, onnx.constant(axes, np.int64), keepdims=1)
    return onnx.op(kind, x, axes=axes, keepdims=1)


def emit_arg_reduce(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    a, (axis,) = op.attributes, _host_axes(graph, op, [op.attributes.axis])
    kind = {"maximum": "ArgMax", "minimum": "ArgMin"}[a.function]
    return onnx.op(kind, *names, axis=axis, keepdims=1, select_last_index=int(a.select_last))


def emit_normalize(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    """LayerNormalization over the last axes; else, as models spell it, the mean, the variance and a division."""
    a, shape = op.attributes, graph.tensor(op.output).shape
    axes = sorted(_host_axes(graph, op, a.axes))
    if a.subtract_mean and axes == list(range(axes[0], len(shape))):
        ones = onnx.constant(np.ones([shape[axis] for axis in a.axes], np.float32))
        return onnx.op("LayerNormalization", names[0], ones, axis=axes[0], epsilon=a.epsilon)
    x = names[0]
    if a.subtract_mean:
        x = onnx.op("Sub", x, _reduce(onnx, graph, op, "ReduceMean", x, axes))
    variance = _reduce(onnx, graph, op, "ReduceMean", onnx.op("Mul", x, x), axes)
    return onnx.op("Div", x, onnx.op("Sqrt", onnx.op("Add", variance, onnx.constant(a.epsilon, np.float32))))


def emit_softmax(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    (axis,) = _host_axes(graph, op, [op.attributes.axis])
    return onnx.op("LogSoftmax" if op.attributes.logarithm else "Softmax", *names, axis=axis)


def emit_lrn(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    a = op.attributes
    return onnx.op("LRN", *names, size=a.size, alpha=a.alpha, beta=a.beta, bias=a.bias)


def _host_axes(graph: Graph, op: Op, axes: Sequence[int]) -> list[int]:
    turn = to_host(graph.tensor(op.output))
    return [turn.index(axis % len(turn)) for axis in axes]


EMIT = {
    "reduce": emit_reduce, "arg_reduce": emit_arg_reduce, "normalize": emit_normalize, "softmax": emit_softmax,
    "lrn": emit_lrn,
}  # fmt: skip
