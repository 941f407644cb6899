"""From matches to pooling, reductions, normalisations and softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npu_backend.ops import attributes as a
from tvm_ext.lowering import Lowering, permuted
from tvm_ext.matching import Match

# What follows "Reduce" in ONNX's names.
REDUCTIONS = {
    "Max": "maximum", "Min": "minimum", "Mean": "mean", "Sum": "sum", "Prod": "product", "L1": "l1", "L2": "l2",
    "SumSquare": "sum_square", "LogSum": "log_sum", "LogSumExp": "log_sum_exp",
}  # fmt: skip


def pool(match: Match, graph: Lowering) -> str:
    """MaxPool and AveragePool over two axes, or over one as an image of one row."""
    attributes = pool_attributes(match)
    if len(match.shape()) == 4:
        if attributes.function == "maximum":
            return graph.on_image_moved(match, "pool2d", attributes)
        return graph.on_image(match, "pool2d", attributes)
    (batch, channels, length), source = match.shape(), graph.read(match)
    rows = graph.transpose(match, source, (0, 2, 1), "nlc")
    image = graph.reshape(match, rows, (batch, 1, length, channels), "image")
    kind = graph.type_of(source) if attributes.function == "maximum" else None
    result = graph.emit(match, "pool2d", [image], attributes, type=kind)
    flat = graph.reshape(match, result, (batch, match.output_shape[2], channels), "flat")
    return graph.recode(match, graph.transpose(match, flat, (0, 2, 1), "ncl"))


def pool_attributes(match: Match) -> a.PoolAttributes:
    """Window and function; what ceil_mode adds at the end is padding that no window counts."""
    rank = len(match.shape()) - 2
    kernel, strides, dilations = (
        _two(match.attribute(name) or [1] * rank) for name in ("kernel_shape", "strides", "dilations")
    )
    pads = match.attribute("pads") or [0] * 2 * rank
    before, after = _two(pads[:rank], 0), _two(pads[rank:], 0)
    extents, outputs = _two(match.shape()[2:]), _two(match.output_shape[2:])
    reached = [
        (outputs[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - extents[i] - before[i] for i in (0, 1)
    ]
    whole = bool(match.attribute("count_include_pad", 0))
    function = "maximum" if match.node.op_type == "MaxPool" else "average_window" if whole else "average_valid"
    if match.attribute("ceil_mode", 0):
        after = max(reached[0], 0), max(reached[1], 0)
    return a.PoolAttributes(function, kernel, strides, (*before, *after))


def _two(values: Sequence[int], default: int = 1) -> tuple[int, int]:
    """Rows and columns; the numbers of one axis are the columns'."""
    first, second = [default] * (2 - len(values)) + [int(value) for value in values]
    return first, second


def global_average_pool(match: Match, graph: Lowering) -> str:
    """GlobalAveragePool."""
    if len(match.shape()) == 4:
        return graph.on_image(match, "global_average_pool", None)
    return _reduced(match, graph, "mean", tuple(range(2, len(match.shape()))))


def reduce(match: Match, graph: Lowering) -> str:
    """Reductions over any axes; an extremum is of codes, then requantised."""
    axes = reduced_axes(match)
    if not axes:
        return graph.recode(match, graph.read(match))
    function = "maximum" if match.node.op_type == "GlobalMaxPool" else REDUCTIONS[match.node.op_type[len("Reduce") :]]
    return _reduced(match, graph, function, axes)


def _reduced(match: Match, graph: Lowering, function: str, axes: tuple[int, ...]) -> str:
    source = graph.read(match)
    if function == "minimum":
        source = _complement(match, graph, source, "turned")
    kind = graph.type_of(source) if function in ("maximum", "minimum") else None
    result = graph.emit(
        match, "reduce", [source], a.ReduceAttributes("maximum" if function == "minimum" else function, axes), type=kind
    )
    if function == "minimum":
        result = _complement(match, graph, result, "turned_back")
    return graph.recode(match, graph.reshape(match, result, match.output_shape, "squeeze"))


def _complement(match: Match, graph: Lowering, source: str, label: str) -> str:
    """Every bit of the codes flipped, which turns their order round: the smallest becomes the largest."""
    table = graph.builder.constant(f"{match.node.name}.{label}.table", ~np.arange(256, dtype=np.uint8))
    return graph.emit(match, "table", [source, table], label=label, type=graph.type_of(source))


def reduced_axes(match: Match) -> tuple[int, ...]:
    """The axes of a reduction, ascending: an attribute, or since opset 13 to 18 an operand; none given are all."""
    rank = len(match.shape())
    if match.node.op_type == "GlobalMaxPool":
        return tuple(range(2, rank))
    given = match.array(1)
    chosen = match.attribute("axes") if given is None else given.reshape(-1).tolist()
    if not chosen:
        return () if match.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({int(axis) % rank for axis in chosen}))


def softmax(match: Match, graph: Lowering) -> str:
    """Softmax and LogSoftmax; the NPU normalises the last axis."""
    rank = len(match.output_shape)
    axis = match.attribute("axis", -1) % rank
    order = permuted(rank, axis)
    x = graph.transpose(match, graph.read(match), order, "axis_last")
    result = graph.emit(match, "softmax", [x], a.SoftmaxAttributes(rank - 1))
    return graph.transpose(match, result, order, "axis_back")
