"""The operators of the NPU as expressions of TE, in the storage order of their graphs: rank 4 is [n, h, w, c]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any

from tvm import te, topi

from npu_backend.graph import Graph, Op
from tvm_ext import tir_api as api

# The operator, its graph, its computed inputs, the shape of its output: what computes the output.
Expression = Callable[[Op, Graph, Sequence[Any], tuple[int, ...]], Any]


def expression(graph: Graph, op: Op) -> tuple[list[Any], Any]:
    """Placeholders of an operator's activations, and its output."""
    tensors = [graph.tensor(name) for name in graph.activations(op)]
    inputs = [te.placeholder(tensor.shape, _type(tensor.dtype), name=f"x{i}") for i, tensor in enumerate(tensors)]
    return inputs, EXPRESSIONS[op.kind](op, graph, inputs, graph.tensor(op.output).shape)


def _type(dtype: str) -> str:
    """Codes and floats are float32 here: regions do not depend on it. Indices stay integers."""
    return dtype if dtype in ("int32", "int64") else "float32"


def _guarded(x: Any, indices: Sequence[Any], outside: float = 0.0) -> Any:
    """An element, or a number where the indices are outside."""
    inside = api.tir.all(*(test for index, extent in zip(indices, x.shape)
                           for test in (index >= 0, index < extent)))  # fmt: skip
    return api.tir.if_then_else(inside, x[tuple(indices)], api.tir.const(outside, x.dtype))


def _broadcast(x: Any, index: Sequence[Any]) -> Any:
    """The element of a tensor at the output's position, aligned at its last axes."""
    own = index[len(index) - len(x.shape) :]
    return x[tuple(0 if api.constant(extent) == 1 else i for extent, i in zip(x.shape, own))] if own else x[()]


def elementwise(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Every input's element at the same position, added up."""
    return te.compute(shape, lambda *i: reduce(lambda a, b: a + b, (
        _broadcast(x, i).astype("float32") for x in inputs)))  # fmt: skip


def depth_to_space(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Channels to pixels."""
    (x,), b, channels = inputs, op.attributes.block, shape[3]

    def element(n: Any, h: Any, w: Any, c: Any) -> Any:
        within = (h % b) * b + w % b
        channel = within * channels + c if op.attributes.mode == "DCR" else c * (b * b) + within
        return x[n, h // b, w // b, channel]

    return te.compute(shape, element)


def space_to_depth(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Pixels to channels."""
    (x,), b = inputs, op.attributes.block
    channels = shape[3] // (b * b)
    return te.compute(shape, lambda n, h, w, c: x[n, h * b + c // channels // b, w * b + c // channels % b,
                                                  c % channels])  # fmt: skip


def conv2d(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """The sum over window and group, padding zero."""
    (x,), a, weight = inputs, op.attributes, graph.constants[op.inputs[1]].shape
    ky, kx, ic = (te.reduce_axis((0, extent)) for extent in (weight[2], weight[3], weight[1]))
    group = weight[0] // a.groups
    return te.compute(shape, lambda n, h, w, c: te.sum(_guarded(x, (
        n, h * a.strides[0] + ky * a.dilations[0] - a.pads[0], w * a.strides[1] + kx * a.dilations[1] - a.pads[1],
        c // group * weight[1] + ic)), [ky, kx, ic]))  # fmt: skip


def conv_transpose2d(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """The sum over those taps that meet an input position."""
    (x,), a, weight = inputs, op.attributes, graph.constants[op.inputs[1]].shape
    ky, kx = (te.reduce_axis((0, extent)) for extent in weight[2:])
    group = weight[0] // a.groups
    ic = te.reduce_axis((0, group))

    def element(n: Any, h: Any, w: Any, c: Any) -> Any:
        rows, columns = h + a.pads[0] - ky * a.dilations[0], w + a.pads[1] - kx * a.dilations[1]
        places = tuple(zip((rows, columns), a.strides, x.shape[1:3]))
        met = api.tir.all(*(test for place, stride, extent in places for test in (
            place >= 0, place < extent * stride, (place % stride).equal(0))))  # fmt: skip
        taken = x[(n, *(place // stride for place, stride, _ in places), c // weight[1] * group + ic)]
        return te.sum(api.tir.if_then_else(met, taken, api.tir.const(0, "float32")), [ky, kx, ic])

    return te.compute(shape, element)


def dense(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Rows times a matrix."""
    (x,) = inputs
    k = te.reduce_axis((0, api.constant(x.shape[-1])))
    # Which constants it reads is no matter of regions: here column j has j everywhere.
    return te.compute(shape, lambda *i: te.sum(x[(*i[:-1], k)] * i[-1].astype("float32"), k))


def gather(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Positions that data names."""
    data, indices = inputs
    axis, rank = op.attributes.axis, len(indices.shape)
    return te.compute(shape, lambda *i: data[(*i[:axis], indices[i[axis : axis + rank]], *i[axis + rank :])])


def matmul(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Batch axes broadcast, either side transposed."""
    (left, right), a = inputs, op.attributes
    k = te.reduce_axis((0, api.constant(left.shape[-2 if a.transpose_a else -1])))

    def element(*i: Any) -> Any:
        *batch, row, column = i
        rows = (k, row) if a.transpose_a else (row, k)
        columns = (column, k) if a.transpose_b else (k, column)
        return te.sum(_matrix(left, batch, rows) * _matrix(right, batch, columns), k)

    return te.compute(shape, element)


def _matrix(x: Any, batch: Sequence[Any], last: tuple[Any, Any]) -> Any:
    own = batch[len(batch) - (len(x.shape) - 2) :] if len(x.shape) > 2 else []
    return x[(*(0 if api.constant(extent) == 1 else i for extent, i in zip(x.shape, own)), *last)]


def normalize(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Every element over the root of the squares of its line."""
    (x,) = inputs
    return x / te.compute(shape, lambda *i: topi.sum(x * x, list(op.attributes.axes), keepdims=True)[
        tuple(0 if axis in op.attributes.axes else each for axis, each in enumerate(i))])  # fmt: skip


def lrn(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Every element over the squares of its neighbours along the last axis, of which ONNX has the line whole."""
    (x,), size = inputs, op.attributes.size
    k = te.reduce_axis((0, size))
    squares = te.compute(shape, lambda *i: te.sum(_guarded(x, (*i[:-1], i[-1] + k - (size - 1) // 2)), k))
    return te.compute(shape, lambda *i: x[i] / squares[i])


def pool2d(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """The largest of the window; other functions read the same."""
    (x,), a = inputs, op.attributes
    ky, kx = (te.reduce_axis((0, extent)) for extent in a.kernel)
    return te.compute(shape, lambda n, h, w, c: te.max(_guarded(x, (
        n, h * a.strides[0] + ky * a.dilations[0] - a.pads[0], w * a.strides[1] + kx * a.dilations[1] - a.pads[1], c,
    ), -1e30), [ky, kx]))  # fmt: skip


def global_average_pool(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """The sum of all pixels."""
    return topi.sum(inputs[0], [1, 2], keepdims=True)


def reduced(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """A sum over the axes; other functions read the same."""
    return topi.sum(inputs[0], list(op.attributes.axes), keepdims=True)


def arg_reduced(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """The extreme itself, which is found in the same elements as its index."""
    return topi.max(inputs[0], op.attributes.axis % len(shape), keepdims=True)


def softmax(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """TOPI's, in four stages."""
    return topi.nn.softmax(inputs[0], op.attributes.axis % len(shape))


def pad(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """A number, the last element or the other end where there is none."""
    (x,), a = inputs, op.attributes
    extents = [api.constant(extent) for extent in x.shape]

    def element(*i: Any) -> Any:
        indices = [each - before for each, before in zip(i, a.before)]
        if a.mode == "constant":
            return _guarded(x, indices, 1.5)
        fold = {"edge": _edge, "wrap": lambda index, extent: index % extent, "reflect": _reflected}[a.mode]
        return x[tuple(fold(index, extent) for index, extent in zip(indices, extents))]

    return te.compute(shape, element)


def _edge(index: Any, extent: int) -> Any:
    return te.min(te.max(index, 0), extent - 1)


def _reflected(index: Any, extent: int) -> Any:
    # The distance from 0, then that from the last position: what is farther out than once does not occur.
    positive = te.max(index, -index)
    return te.min(positive, 2 * (extent - 1) - positive)


def sliced(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Every step-th position from a start."""
    (x,), a = inputs, op.attributes
    return te.compute(shape, lambda *i: x[tuple(s + each * step for s, each, step in zip(a.starts, i, a.steps))])


def tile(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """The position within a repetition."""
    (x,) = inputs
    return te.compute(shape, lambda *i: x[tuple(each % extent for each, extent in zip(i, x.shape))])


def reshape(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """The element of the same number in row-major order, groups of axes that hold the same apart."""
    (x,) = inputs
    source = [api.constant(extent) for extent in x.shape]
    if not shape:
        return te.compute(shape, lambda: x[(0,) * len(source)])

    def element(*i: Any) -> Any:
        indices: list[Any] = []
        for sources, targets in _groups(source, shape):
            place = sum((i[axis] * prod(shape[axis + 1 : targets[-1] + 1]) for axis in targets), 0)
            rest = [prod(source[axis + 1 : sources[-1] + 1]) for axis in sources]
            indices += [place // unit % source[axis] if axis != sources[0] else place // unit
                        for axis, unit in zip(sources, rest)]  # fmt: skip
        return x[tuple(indices)]

    return te.compute(shape, element)


def _groups(source: Sequence[int], target: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of axes of both shapes that hold the same number of elements."""
    sums = [list(accumulate(shape, mul, initial=1)) for shape in (source, target)]
    groups, start = [], (0, 0)
    for left in range(1, len(source) + 1):
        right = next((r for r in range(start[1] + 1, len(target) + 1) if sums[1][r] == sums[0][left]), None)
        if right is not None:
            groups.append((list(range(start[0], left)), list(range(start[1], right))))
            start = (left, right)
    groups[-1] = (groups[-1][0] + list(range(start[0], len(source))),
                  groups[-1][1] + list(range(start[1], len(target))))  # fmt: skip
    return groups


def resize2d(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """TOPI's, whose positions are computed in float."""
    (x,), a = inputs, op.attributes
    method = {"nearest": "nearest_neighbor", "bilinear": "linear", "cubic": "cubic"}[a.function]
    known = ("half_pixel", "align_corners", "asymmetric")
    mode = a.coordinate_mode if a.coordinate_mode in known else "half_pixel"
    size = tuple(map(int, a.output_size))
    return topi.image.resize2d(x, (0.0, 0.0, 0.0, 0.0), size, "NHWC", method, mode, "round")


def transpose(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """TOPI's."""
    axes = op.attributes.axes
    return topi.transpose(inputs[0], axes) if axes else te.compute((), lambda: inputs[0][()])


def concat(op: Op, graph: Graph, inputs: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """TOPI's."""
    return topi.concatenate(tuple(inputs), op.attributes.axis)


EXPRESSIONS: Mapping[str, Expression] = {
    **dict.fromkeys(("binary", "unary", "select", "quantize", "dequantize", "cast", "table", "expand"), elementwise),
    "depth_to_space": depth_to_space, "space_to_depth": space_to_depth, "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d, "dense": dense, "gather": gather, "matmul": matmul, "normalize": normalize,
    "lrn": lrn, "pool2d": pool2d, "global_average_pool": global_average_pool, "reduce": reduced,
    "arg_reduce": arg_reduced, "softmax": softmax, "pad": pad, "slice": sliced, "tile": tile, "reshape": reshape,
    "resize2d": resize2d, "transpose": transpose, "concat": concat,
}  # fmt: skip
