"""Layer and root-mean-square normalisation out of ReduceMean, Sub, Pow, Sqrt, Div and their like.

Layer normalisation is ``(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias`` (ONNX,
LayerNormalization), root-mean-square ``x / sqrt(mean(x^2) + epsilon) * scale`` (ONNX, RMSNormalization). Means run over
the last axes. ONNX Runtime knows both in every opset, the latter under the name SimplifiedLayerNormalization.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from tvm_ext.onnx_fusion import Fused, View
from tvm_ext.onnx_graph import Nodes, attribute

LAYER, ROOT_MEAN_SQUARE = "LayerNormalization", "SimplifiedLayerNormalization"


@dataclass
class _Match:
    """What has been found so far, from the last node backwards."""

    view: View
    nodes: Nodes = field(default_factory=list)

    def take(self, name: str, *op_types: str) -> onnx.NodeProto | None:
        """The node behind a value, kept as part of the match; casts to float32 on the way are parts too."""
        cast = self.view.made_by(name, "Cast")
        if cast is not None and attribute(cast, "to", 0) == onnx.TensorProto.FLOAT:
            self.nodes.append(cast)
            name = cast.input[0]
        node = self.view.made_by(name, *op_types)
        if node is not None and all(node.name != known.name for known in self.nodes):
            self.nodes.append(node)
        return node


@dataclass(frozen=True)
class _Numbers:
    """What goes into the operator: its input, a ReduceMean with its axes, and constants by name."""

    x: str
    mean: onnx.NodeProto
    epsilon: str
    scale: str
    bias: str


def normalization(last: onnx.NodeProto, view: View) -> Fused | None:
    """Fuses what ends in `last`: normalised, scaled, and with the bias added, or less of these."""
    if last.domain or last.op_type not in ("Add", "Div", "Mul"):
        return None
    match = _Match(view, [last])
    if last.op_type != "Add":
        return _scaled(match, last, "")
    source, bias = _with_constant(last, view)
    product = match.take(source, "Mul") if bias else None
    return None if product is None else _scaled(match, product, bias)


def _scaled(match: _Match, node: onnx.NodeProto, bias: str) -> Fused | None:
    source, scale = _with_constant(node, match.view)
    if node.op_type == "Div" or not scale:
        return None if bias else _normalized(match, node, "", "")
    quotient = match.take(source, "Div", "Mul")
    return None if quotient is None else _normalized(match, quotient, scale, bias)


def _with_constant(node: onnx.NodeProto, view: View) -> tuple[str, str]:
    """The computed operand of a node of two, and the constant one; empty where it has none."""
    left, right = node.input
    if right in view.constants:
        return left, right
    return (right, left) if left in view.constants else (left, "")


def _normalized(match: _Match, quotient: onnx.NodeProto, scale: str, bias: str) -> Fused | None:
    parted = _parted(match, quotient)
    if parted is None:
        return None
    numerator, root = parted
    total = match.take(root.input[0], "Add")
    square_mean, epsilon = _with_constant(total, match.view) if total is not None else ("", "")
    mean = match.take(square_mean, "ReduceMean")
    squared = _squared(match, mean.input[0]) if mean is not None else None
    if mean is None or match.view.number(epsilon) is None or squared is None:
        return None
    found = list(match.nodes)
    x = _centred(match, numerator, squared, mean)
    if x is not None:
        return _operator(match, LAYER, _Numbers(x, mean, epsilon, scale, bias))
    if numerator != squared or bias:
        return None
    match.nodes[:] = found
    return _operator(match, ROOT_MEAN_SQUARE, _Numbers(numerator, mean, epsilon, scale, ""))


def _parted(match: _Match, quotient: onnx.NodeProto) -> tuple[str, onnx.NodeProto] | None:
    """Numerator and Sqrt of ``a / sqrt(b)`` or ``a * (1 / sqrt(b))``."""
    if quotient.op_type == "Div":
        root = match.take(quotient.input[1], "Sqrt")
        return None if root is None else (quotient.input[0], root)
    for index in (0, 1):
        inverse = match.view.made_by(quotient.input[index], "Reciprocal", "Div")
        if inverse is None or (inverse.op_type == "Div" and match.view.number(inverse.input[0]) != 1):
            continue
        match.nodes.append(inverse)
        root = match.take(inverse.input[-1], "Sqrt")
        return None if root is None else (quotient.input[1 - index], root)
    return None


def _squared(match: _Match, name: str) -> str | None:
    """What a Pow by 2, or a product with itself, squares."""
    node = match.take(name, "Mul", "Pow")
    if node is None:
        return None
    squares = node.input[0] == node.input[1] if node.op_type == "Mul" else match.view.number(node.input[1]) == 2
    return node.input[0] if squares else None


def _centred(match: _Match, numerator: str, squared: str, variance: onnx.NodeProto) -> str | None:
    """x where both values are x minus its mean over the axes of `variance`; exporters write it once or twice."""
    axes = _axes(variance, match.view)
    differences = [match.take(name, "Sub") for name in (numerator, squared)]
    sources = set()
    for node in differences:
        mean = match.take(node.input[1], "ReduceMean") if node is not None else None
        if node is None or mean is None or mean.input[0] != node.input[0]:
            return None
        if axes is None or _axes(mean, match.view) != axes:
            return None
        sources.add(node.input[0])
    return sources.pop() if len(sources) == 1 else None


def _axes(mean: onnx.NodeProto, view: View) -> tuple[int, ...] | None:
    """The reduced axes from the end, -1 the last; None where they or the rank are not known, or the axes vanish."""
    listed = attribute(mean, "axes", None)
    if listed is None and len(mean.input) > 1 and mean.input[1] in view.constants:
        listed = view.constants[mean.input[1]].tolist()
    if listed is None or mean.input[0] not in view.shapes or not attribute(mean, "keepdims", 1):
        return None
    rank = len(view.shapes[mean.input[0]])
    return tuple(sorted(axis % rank - rank for axis in listed))


def _operator(match: _Match, kind: str, numbers: _Numbers) -> Fused | None:
    axes, constants = _axes(numbers.mean, match.view), match.view.constants
    if axes is None or axes != tuple(range(-len(axes), 0)):
        return None
    shape = match.view.shapes[numbers.mean.input[0]][-len(axes) :]
    epsilon, name = constants[numbers.epsilon], match.nodes[0].name
    scale = np.ones(shape, epsilon.dtype) if not numbers.scale else _spread(constants[numbers.scale], shape)
    bias = None if not numbers.bias else _spread(constants[numbers.bias], shape)
    if scale is None or scale.dtype != epsilon.dtype or (numbers.bias and bias is None):
        return None
    operands = [numbers.x, constants.add(f"{name}.scale", scale)]
    if bias is not None:
        operands.append(constants.add(f"{name}.bias", bias))
    made = helper.make_node(kind, operands, list(match.nodes[0].output), axis=-len(axes),
                            epsilon=float(epsilon.reshape(())))  # fmt: skip
    return Fused(made, match.nodes)


def _spread(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A scale or bias in the shape of the normalised axes; None where it differs along the others."""
    if any(extent != 1 for extent in value.shape[: -len(shape)]):
        return None
    return np.ascontiguousarray(np.broadcast_to(value.reshape(value.shape[-len(shape) :]), shape))
