"""Operators that TVM's importer refuses or gets wrong, as those that it knows: for the host only.

The NPU reads the operator itself; this is what the host runs where the NPU does not take it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_graph import Nodes
from tvm_ext.onnx_recurrent import gru, lstm, rnn
from tvm_ext.onnx_rewrite import Rewrite, Shapes

_IMAGE_RANK = 4


def expansion(node: onnx.NodeProto, constants: Constants, shapes: Shapes, opset: int) -> Nodes | None:
    """What the host computes in place of `node`; None where that is the node itself. `constants` grow."""
    expand = _EXPANSIONS.get(node.op_type)
    if expand is None or node.domain:
        return None
    rewrite = Rewrite(node, constants, shapes, opset)
    expand(rewrite)
    return rewrite.nodes or None


def _celu(r: Rewrite) -> None:
    x, zero, alpha = r.operand(0), r.constant("zero", 0), r.constant("alpha", r.attribute("alpha", 1.0))
    curve = r.emit("Sub", r.emit("Exp", r.emit("Div", x, alpha)), r.constant("one", 1))
    below = r.emit("Min", r.emit("Mul", alpha, curve), zero)
    r.emit("Add", r.emit("Max", x, zero), below, output=0)


def _convolution_of_integers(r: Rewrite) -> None:
    """Exact in int32; padding stands for the zero point, which is 0 once it is subtracted."""
    sides = []
    for index in (0, 1):
        side, zero_point = r.emit("Cast", r.operand(index), to=onnx.TensorProto.INT32), r.operand(index + 2)
        if zero_point:
            centre = r.emit("Cast", zero_point, to=onnx.TensorProto.INT32)
            if index == 1 and r.shape(zero_point) and r.shape(zero_point) != (1,):
                extents = [-1, *(1 for _ in r.shape(r.operand(1))[1:])]
                centre = r.emit("Reshape", centre, r.constant("along", extents, np.int64))
            side = r.emit("Sub", side, centre)
        sides.append(side)
    given = {a.name: helper.get_attribute_value(a) for a in r.node.attribute}
    r.emit("Conv", *sides, output=0, **given)


def _resize(r: Rewrite) -> None:
    """One product with a constant matrix per axis, for what TVM's resize does not know or does otherwise."""
    if _known_to_tvm(r):
        return
    x, shape = r.operand(0), r.shape(r.operand(0))
    axes = [axis % len(shape) for axis in r.attribute("axes", range(len(shape)))]
    if r.attribute("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise NotImplementedError("Resize with keep_aspect_ratio_policy")
    factors = [(axis, _matrix(r, shape[axis], position)) for position, axis in enumerate(axes)]
    changing = [(axis, matrix) for axis, matrix in factors if not _is_identity(matrix)]
    for step, (axis, matrix) in enumerate(changing):
        last = step == len(changing) - 1
        order = [i for i in range(len(shape)) if i != axis] + [axis]
        turned = r.emit("Transpose", x, perm=order)
        product = r.emit("MatMul", turned, r.constant(f"matrix{axis}", matrix.T))
        x = r.emit("Transpose", product, output=0 if last else None, perm=np.argsort(order).tolist())
    if not changing:
        r.emit("Identity", x, output=0)


def _known_to_tvm(r: Rewrite) -> bool:
    mode = r.attribute("coordinate_transformation_mode", b"half_pixel")
    if mode == b"tf_crop_and_resize" or any(name not in r.constants for name in r.node.input[1:] if name):
        return True
    odd = mode == b"half_pixel_symmetric" or r.attribute("antialias", 0) or r.attribute("axes", None) is not None
    return not odd and len(r.shape(r.operand(0))) == _IMAGE_RANK and _whole(r)


def _whole(r: Rewrite) -> bool:
    """Whether the scales, if given, lead to whole extents: TVM takes their ratio for the scale."""
    if not r.operand(2) or not r.constants[r.operand(2)].size:
        return True
    extents = r.constants[r.operand(2)].astype(np.float64) * r.shape(r.operand(0))
    return bool(np.allclose(extents, np.round(extents), rtol=0, atol=1e-5))


def _matrix(r: Rewrite, extent: int, position: int) -> np.ndarray:
    """What ONNX's reference makes of each unit vector along one axis: [outputs, inputs], float32."""
    scales, node = r.operand(2), onnx.NodeProto()
    node.CopyFrom(r.node)
    kept = [a for a in node.attribute if a.name != "axes"]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.input[:] = ["x", "", "scales" if scales else "", "" if scales else "sizes"]
    node.output[:] = ["y"]
    feed: dict[str, np.ndarray] = {"x": np.eye(extent, dtype=np.float32)}
    if scales:
        feed["scales"] = np.array([r.constants[scales][position], 1], np.float32)
    else:
        feed["sizes"] = np.array([r.constants[r.operand(3)][position], extent], np.int64)
    (result,) = ReferenceEvaluator(node, opsets={"": r.opset}).run(None, feed)
    return np.asarray(result, np.float32)


def _is_identity(matrix: np.ndarray) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix), dtype=np.float32))


_EXPANSIONS: Mapping[str, Callable[[Rewrite], None]] = {
    "Celu": _celu,
    "ConvInteger": _convolution_of_integers,
    "GRU": gru,
    "LSTM": lstm,
    "RNN": rnn,
    "Resize": _resize,
}
