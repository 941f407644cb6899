"""Forms of operators that TVM's importer takes for the plain operator, and computes wrong: written out.

ONNX's specification of Dropout, IsInf, LayerNormalization and BatchNormalization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from tvm_ext.onnx_graph import attribute
from tvm_ext.onnx_opset import REDUCE_AXES_OPERAND
from tvm_ext.onnx_rewrite import Rewrite


def rewrite_of(node: onnx.NodeProto) -> Callable[[Rewrite], None] | None:
    """How such a form is written out; None for anything else."""
    found = _FORMS.get(node.op_type)
    return found[1] if found is not None and not node.domain and found[0](node) else None


def _has_mask(node: onnx.NodeProto) -> bool:
    return len(node.output) > 1 or len(node.input) > 2


def _dropout(r: Rewrite) -> None:
    """Nothing is dropped: what drops at random has been refused."""
    r.emit("Identity", r.operand(0), output=0)
    if len(r.node.output) > 1 and r.node.output[1]:
        kept = onnx.helper.make_tensor("value", onnx.TensorProto.BOOL, [1], [True])
        r.emit("ConstantOfShape", r.emit("Shape", r.operand(0)), output=1, value=kept)


def _is_one_sided(node: onnx.NodeProto) -> bool:
    return bool(attribute(node, "detect_negative", 1) != attribute(node, "detect_positive", 1))


def _is_inf(r: Rewrite) -> None:
    """What has the other sign becomes zero first."""
    source = r.operand(0) if r.attribute("detect_positive", 1) else r.emit("Neg", r.operand(0))
    r.emit("IsInf", r.emit("Relu", source), output=0)


def _has_statistics(node: onnx.NodeProto) -> bool:
    return any(node.output[1:])


def _layer_norm(r: Rewrite) -> None:
    """The second output is the mean, the third the reciprocal of the standard deviation."""
    x, rank, epsilon = r.operand(0), r.rank(r.operand(0)), r.attribute("epsilon", 1e-5)
    axis = r.attribute("axis", -1) % rank
    r.emit("LayerNormalization", *r.node.input, output=0, axis=axis, epsilon=epsilon)
    axes = list(range(axis, rank))
    mean = _mean(r, x, axes, 1 if r.node.output[1] else None)
    if len(r.node.output) > 2:
        centred = r.emit("Sub", x, mean)
        variance = _mean(r, r.emit("Mul", centred, centred), axes)
        deviation = r.emit("Sqrt", r.emit("Add", variance, r.constant("epsilon", epsilon)))
        r.emit("Reciprocal", deviation, output=2)


def _trains(node: onnx.NodeProto) -> bool:
    return bool(attribute(node, "training_mode", 0))


def _batch_norm(r: Rewrite) -> None:
    """By the statistics of the batch; the second and third output are the running ones."""
    x, scale, bias, running_mean, running_variance = (r.operand(index) for index in range(5))
    axes = [axis for axis in range(r.rank(x)) if axis != 1]
    mean = _mean(r, x, axes)
    centred = r.emit("Sub", x, mean)
    variance = _mean(r, r.emit("Mul", centred, centred), axes)
    deviation = r.emit("Sqrt", r.emit("Add", variance, r.constant("epsilon", r.attribute("epsilon", 1e-5))))
    shape = r.constant("shape", [-1 if axis == 1 else 1 for axis in range(r.rank(x))], "int64")
    scaled = r.emit("Mul", r.emit("Div", centred, deviation), r.emit("Reshape", scale, shape))
    r.emit("Add", scaled, r.emit("Reshape", bias, shape), output=0)
    for index, (running, batch) in enumerate(((running_mean, mean), (running_variance, variance)), 1):
        if index < len(r.node.output):
            _running(r, running, batch, index)


def _running(r: Rewrite, running: str, batch: str, index: int) -> None:
    momentum = r.attribute("momentum", 0.9)
    flat = r.emit("Reshape", batch, r.constant(f"flat{index}", [-1], "int64"))
    kept = r.emit("Mul", running, r.constant(f"momentum{index}", momentum))
    r.emit("Add", kept, r.emit("Mul", flat, r.constant(f"rest{index}", 1 - momentum)), output=index)


def _mean(r: Rewrite, x: str, axes: list[int], output: int | None = None) -> str:
    if r.opset < REDUCE_AXES_OPERAND:
        return r.emit("ReduceMean", x, output=output, axes=axes, keepdims=1)
    return r.emit("ReduceMean", x, r.constant(f"axes{len(r.nodes)}", axes, "int64"), output=output, keepdims=1)


_FORMS: Mapping[str, tuple[Callable[[onnx.NodeProto], bool], Callable[[Rewrite], None]]] = {
    "BatchNormalization": (_trains, _batch_norm),
    "Dropout": (_has_mask, _dropout),
    "IsInf": (_is_one_sided, _is_inf),
    "LayerNormalization": (_has_statistics, _layer_norm),
}
