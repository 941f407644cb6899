"""From matches to pooling, reductions, normalisations and softmax."""

from __future__ import annotations

from collections.abc import Sequence

from npu_backend.ops import attributes as a
from tvm_ext.lowering import Lowering, permuted
from tvm_ext.matching import Match

# What follows "Reduce" in ONNX's names.
REDUCTIONS = {
    "Max": "maximum", "Min": "minimum", "Mean": "mean", "Sum": "sum", "Prod": "product", "L1": "l1", "L2": "l2",
    "SumSquare": "sum_square", "LogSum": "log_sum", "LogSumExp": "log_sum_exp",
}  # fmt: skip


def pool(match: Match, graph: Lowering) -> str:
    """MaxPool, AveragePool and LpPool over two axes, or over one as an image of one row."""
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
    """Window and function."""
    rank = len(match.shape()) - 2
    kernel, strides, dilations = (
        _two(match.attribute(name) or [1] * rank) for name in ("kernel_shape", "strides", "dilations")
    )
    pads = match.attribute("pads") or [0] * 2 * rank
    ceil_mode = bool(match.attribute("ceil_mode", 0))
    return a.PoolAttributes(
        _pool_function(match), kernel, strides, (*_two(pads[:rank], 0), *_two(pads[rank:], 0)), dilations, ceil_mode
    )


def _pool_function(match: Match) -> str:
    if match.node.op_type == "MaxPool":
        return "maximum"
    if match.node.op_type == "LpPool":
        return f"l{match.attribute('p', 2)}"
    return "average_window" if match.attribute("count_include_pad", 0) else "average_valid"


def _two(values: Sequence[int], default: int = 1) -> tuple[int, int]:
    """Rows and columns; the numbers of one axis are the columns'."""
    first, second = [default] * (2 - len(values)) + [int(value) for value in values]
    return first, second


def global_average_pool(match: Match, graph: Lowering) -> str:
    """GlobalAveragePool over all axes but batch and channels."""
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
    kind = graph.type_of(source) if function in ("maximum", "minimum") else None
    result = graph.emit(match, "reduce", [source], a.ReduceAttributes(function, axes), type=kind)
    return graph.recode(match, graph.reshape(match, result, match.output_shape, "squeeze"))


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


def arg_reduce(match: Match, graph: Lowering) -> str:
    """ArgMax and ArgMin, the first or the last of equals."""
    axis = match.attribute("axis", 0) % len(match.shape())
    function = "maximum" if match.node.op_type == "ArgMax" else "minimum"
    attributes = a.ArgReduceAttributes(function, axis, bool(match.attribute("select_last_index", 0)))
    result = graph.emit(match, "arg_reduce", [graph.read(match)], attributes)
    return graph.reshape(match, result, match.output_shape, "squeeze")


def softmax(match: Match, graph: Lowering) -> str:
    """Softmax and LogSoftmax; the NPU normalises the last axis."""
    rank = len(match.output_shape)
    axis, logarithm = match.attribute("axis", -1) % rank, match.node.op_type == "LogSoftmax"
    order = permuted(rank, axis)
    x = graph.transpose(match, graph.read(match), order, "axis_last")
    result = graph.emit(match, "softmax", [x], a.SoftmaxAttributes(rank - 1, logarithm))
    return graph.transpose(match, result, order, "axis_back")


def layer_norm(match: Match, graph: Lowering) -> str:
    """LayerNormalization and its form without a mean."""
    rank = len(match.shape())
    first = match.attribute("axis", -1) % rank
    centred = match.node.op_type == "LayerNormalization"
    attributes = a.NormalizeAttributes(tuple(range(first, rank)), match.attribute("epsilon", 1e-5), centred)
    return _scaled(match, graph, graph.read(match), attributes, match.shape()[first:], match.shape())


def instance_norm(match: Match, graph: Lowering) -> str:
    """InstanceNormalization by the mean and variance of each image and channel."""
    shape = match.shape()
    attributes = a.NormalizeAttributes(tuple(range(2, len(shape))), match.attribute("epsilon", 1e-5))
    return _scaled(match, graph, graph.read(match), attributes, (shape[1], *[1] * (len(shape) - 2)), shape)


def group_norm(match: Match, graph: Lowering) -> str:
    """GroupNormalization with scales per channel or per group."""
    shape, groups = match.shape(), match.attribute("num_groups")
    parts = (shape[0], groups, shape[1] // groups, *shape[2:])
    attributes = a.NormalizeAttributes(tuple(range(2, len(parts))), match.attribute("epsilon", 1e-5))
    source = graph.reshape(match, graph.read(match), parts, "groups")
    operand = match.operand(1)
    assert operand is not None
    per_group = operand.shape[0] == groups != shape[1]
    inner = (groups, *[1] * (len(parts) - 2)) if per_group else (groups, shape[1] // groups, *[1] * (len(shape) - 2))
    return graph.reshape(match, _scaled(match, graph, source, attributes, inner, parts), shape, "channels")


def mean_variance_norm(match: Match, graph: Lowering) -> str:
    """MeanVarianceNormalization over any axes."""
    axes = tuple(sorted(axis % len(match.shape()) for axis in match.attribute("axes", [0, 2, 3])))
    return graph.emit(match, "normalize", [graph.read(match)], a.NormalizeAttributes(axes, 1e-9))


def _scaled(match: Match, graph: Lowering, source: str, attributes: a.NormalizeAttributes, inner: Sequence[int],
            outer: Sequence[int]) -> str:  # fmt: skip
    """Normalised, times the scale, plus the bias, both of the extents `inner` behind axes of 1."""
    shape = (1,) * (len(outer) - len(inner)) + tuple(inner)
    steps = [("multiply", 1, "scale"), ("add", 2, "bias")]
    present = [step for step in steps if match.operand(step[1]) is not None]
    if not present:
        return graph.emit(match, "normalize", [source], attributes)
    result = graph.emit(match, "normalize", [source], attributes, label="normalize", type=graph.inner_type(match))
    for function, index, label in present:
        factor = graph.reshape(match, graph.read(match, index), shape, f"{label}.shape")
        last = index == present[-1][1]
        result = graph.emit(match, "binary", [result, factor], a.BinaryAttributes(function),
                            label="" if last else label, type=None if last else graph.inner_type(match))  # fmt: skip
    return result


def lp_norm(match: Match, graph: Lowering) -> str:
    """LpNormalization along an axis, by the sum of magnitudes or by the root of squares."""
    axis = match.attribute("axis", -1) % len(match.shape())
    function = "l1" if match.attribute("p", 2) == 1 else "l2"
    source = graph.read(match)
    length = graph.emit(
        match, "reduce", [source], a.ReduceAttributes(function, (axis,)), label="length", type=graph.inner_type(match)
    )
    return graph.emit(match, "binary", [source, length], a.BinaryAttributes("divide"))


def lrn(match: Match, graph: Lowering) -> str:
    """LRN over the channels."""
    attributes = a.LrnAttributes(match.attribute("size"), match.attribute("alpha", 1e-4), match.attribute("beta", 0.75),
                                 match.attribute("bias", 1.0))  # fmt: skip
    return graph.on_image(match, "lrn", attributes)
