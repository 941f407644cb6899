"""ONNX operators that TVM's converters for Relay refuse or get wrong, as the Relay operators that say the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relay

from tvm_ext.matching import attribute_of

Shape = tuple[int, ...]
# The node, its operands (None: left out), their shapes, and the arrays of those that are constants.
Structured = Callable[
    [onnx.NodeProto, Sequence[relay.Expr], Sequence[Shape], Sequence[np.ndarray | None]], relay.Expr | None
]


def structured(
    node: onnx.NodeProto,
    operands: Sequence[relay.Expr],
    shapes: Sequence[Shape],
    arrays: Sequence[np.ndarray | None],
) -> relay.Expr | None:
    """The Relay expression of an operator, None where it is left to TVM."""
    convert = _STRUCTURED.get(node.op_type)
    return convert(node, operands, shapes, arrays) if convert and not node.domain else None


def constant(array: np.ndarray) -> relay.Constant:
    """The array in its own data type: relay.const makes 32 bits of 64."""
    return relay.Constant(tvm.nd.array(np.asarray(array)))


def _identity(_: onnx.NodeProto, operands: Sequence[relay.Expr], __: Any, ___: Any) -> relay.Expr:
    """The operand itself: TVM would copy it."""
    return operands[0]


def _matmul(_: onnx.NodeProto, operands: Sequence[relay.Expr], shapes: Sequence[Shape], __: Any) -> relay.Expr:
    """A batched product of operands of one rank; a vector is a row on the left, a column on the right."""
    left, right = shapes
    a = (1, *left) if len(left) == 1 else left
    b = (*right, 1) if len(right) == 1 else right
    batch = np.broadcast_shapes(a[:-2], b[:-2])
    factors = [
        relay.reshape(relay.broadcast_to(relay.reshape(operand, shape), (*batch, *shape[-2:])), (-1, *shape[-2:]))
        for operand, shape in zip(operands, (a, b), strict=True)
    ]
    result = relay.nn.batch_matmul(*factors, transpose_b=False)
    ends = (*(left[-2:-1] if len(left) > 1 else ()), *(right[-1:] if len(right) > 1 else ()))
    return relay.reshape(result, (*batch, *ends))


def _sum_of(x: relay.Expr, **where: Any) -> relay.Expr:
    return relay.sum(x, **where)


_REDUCED: Mapping[str, Callable[..., relay.Expr]] = {
    "ReduceSum": _sum_of,
    "ReduceMean": relay.mean,
    "ReduceMax": relay.max,
    "ReduceMin": relay.min,
    "ReduceProd": relay.prod,
    "ReduceL1": lambda x, **where: relay.sum(relay.abs(x), **where),
    "ReduceL2": lambda x, **where: relay.sqrt(relay.sum(relay.multiply(x, x), **where)),
    "ReduceSumSquare": lambda x, **where: relay.sum(relay.multiply(x, x), **where),
    "ReduceLogSum": lambda x, **where: relay.log(relay.sum(x, **where)),
    "ReduceLogSumExp": relay.logsumexp,
}


def _reduce(
    node: onnx.NodeProto, operands: Sequence[relay.Expr], shapes: Sequence[Shape], arrays: Sequence[np.ndarray | None]
) -> relay.Expr | None:
    """Axes are an operand since opset 18, which TVM reads for few."""
    given = attribute_of(node, "axes")
    if len(operands) > 1 and operands[1] is not None:
        if arrays[1] is None:
            return None
        given = arrays[1].tolist()
    if not given:
        if attribute_of(node, "noop_with_empty_axes", 0):
            return operands[0]
        given = range(len(shapes[0]))
    axes = tuple(sorted(axis % len(shapes[0]) for axis in given)) if shapes[0] else ()
    if not axes:
        return None
    return _REDUCED[node.op_type](operands[0], axis=axes, keepdims=bool(attribute_of(node, "keepdims", 1)))


def _mean(_: onnx.NodeProto, operands: Sequence[relay.Expr], __: Any, ___: Any) -> relay.Expr:
    return relay.divide(reduce(relay.add, operands), relay.const(float(len(operands)), "float32"))


def _rms_norm(node: onnx.NodeProto, operands: Sequence[relay.Expr], shapes: Sequence[Shape], _: Any) -> relay.Expr:
    rank = len(shapes[0])
    axes = tuple(range(attribute_of(node, "axis", -1) % rank, rank))
    x, epsilon = operands[0], relay.const(float(attribute_of(node, "epsilon", 1e-5)), "float32")
    square = relay.mean(relay.multiply(x, x), axis=axes, keepdims=True)
    return relay.multiply(relay.divide(x, relay.sqrt(relay.add(square, epsilon))), operands[1])


def _group_norm(node: onnx.NodeProto, operands: Sequence[relay.Expr], shapes: Sequence[Shape], _: Any) -> relay.Expr:
    """Scales and biases are per channel, until opset 21 per group."""
    batch, channels, *extents = shapes[0]
    groups = attribute_of(node, "num_groups")
    x, epsilon = operands[0], relay.const(float(attribute_of(node, "epsilon", 1e-5)), "float32")
    rows = relay.reshape(x, (batch, groups, prod(shapes[0][1:]) // groups))
    centred = relay.subtract(rows, relay.mean(rows, axis=2, keepdims=True))
    variance = relay.mean(relay.multiply(centred, centred), axis=2, keepdims=True)
    normal = relay.reshape(relay.divide(centred, relay.sqrt(relay.add(variance, epsilon))), shapes[0])
    scale, bias = (
        relay.reshape(relay.repeat(each, channels // shape[0], 0), (channels, *(1 for _ in extents)))
        for each, shape in zip(operands[1:], shapes[1:], strict=True)
    )
    return relay.add(relay.multiply(normal, scale), bias)


def _flatten(node: onnx.NodeProto, operands: Sequence[relay.Expr], shapes: Sequence[Shape], _: Any) -> relay.Expr:
    axis = attribute_of(node, "axis", 1)
    axis = axis if axis >= 0 else axis + len(shapes[0])
    return relay.reshape(operands[0], (prod(shapes[0][:axis]), prod(shapes[0][axis:])))


def _gather(
    node: onnx.NodeProto, operands: Sequence[relay.Expr], shapes: Sequence[Shape], arrays: Sequence[np.ndarray | None]
) -> relay.Expr:
    """Negative indices count from the end, which TVM clips."""
    data, indices = operands
    axis = attribute_of(node, "axis", 0) % len(shapes[0])
    extent = shapes[0][axis]
    if arrays[1] is not None:
        indices = constant(np.where(arrays[1] < 0, arrays[1] + extent, arrays[1]))
    else:
        indices = relay.cast(indices, "int64")
        negative = relay.less(indices, relay.const(0, "int64"))
        indices = relay.where(negative, relay.add(indices, relay.const(extent, "int64")), indices)
    return relay.take(data, indices, axis)


def _max_pool(
    node: onnx.NodeProto, operands: Sequence[relay.Expr], shapes: Sequence[Shape], _: Any
) -> relay.Expr | None:
    """Of signals, which TVM makes images that it does not turn back."""
    padded = attribute_of(node, "auto_pad", "NOTSET") == "NOTSET"
    if len(shapes[0]) != _SIGNAL_RANK or len(node.output) > 1 or not padded:
        return None
    return relay.nn.max_pool1d(
        operands[0], tuple(attribute_of(node, "kernel_shape")), tuple(attribute_of(node, "strides", (1,))),
        tuple(attribute_of(node, "dilations", (1,))), tuple(attribute_of(node, "pads", (0, 0))),
        ceil_mode=bool(attribute_of(node, "ceil_mode", 0)),
    )  # fmt: skip


def _gelu(node: onnx.NodeProto, operands: Sequence[relay.Expr], _: Any, __: Any) -> relay.Expr | None:
    """By tanh, which TVM leaves out of account; the exact one is its own."""
    if attribute_of(node, "approximate") != "tanh":
        return None
    x = operands[0]
    cube = relay.multiply(x, relay.multiply(x, x))
    inner = relay.add(x, relay.multiply(relay.const(0.044715, "float32"), cube))
    curve = relay.tanh(relay.multiply(relay.const(float(np.sqrt(2 / np.pi)), "float32"), inner))
    half = relay.multiply(relay.const(0.5, "float32"), x)
    return relay.multiply(half, relay.add(relay.const(1.0, "float32"), curve))


_SIGNAL_RANK = 3
_STRUCTURED: Mapping[str, Structured] = {
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "GroupNormalization": _group_norm,
    "Identity": _identity,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mean": _mean,
    "RMSNormalization": _rms_norm,
    "SimplifiedLayerNormalization": _rms_norm,
    **dict.fromkeys(_REDUCED, _reduce),
}
