"""The constants of an ONNX model by name, decoded on demand, and the folding of nodes that only read constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

# Folding stops at DequantizeLinear: a weight must reach the matches as codes and scale.
_FOLDABLE = frozenset((
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Concat", "ConstantOfShape", "Cos", "CumSum", "Div", "Equal",
    "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "Greater", "GreaterOrEqual", "Identity",
    "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "QuantizeLinear", "Range",
    "Reciprocal", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Shape", "Sin", "Size", "Slice",
    "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
))  # fmt: skip
_AXES_ARE_OPERANDS = 13
# Operands that are numbers of the operator, not data: folded through DequantizeLinear as well.
_PARAMETER_OPERANDS = {"Clip": (1, 2), "Pad": (1, 2, 3)}


class Constants(Mapping[str, np.ndarray]):
    """Initializers by name; decoding a large weight costs a copy, so it happens when asked for."""

    def __init__(self, tensors: Sequence[onnx.TensorProto]) -> None:
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._arrays: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._tensors[name])
        return self._arrays[name]

    def data_type(self, name: str) -> int:
        """ONNX's number of a constant's data type."""
        return self._tensors[name].data_type

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def element_count(self, name: str) -> int:
        """Elements of a constant, without decoding it."""
        return int(np.prod(self._tensors[name].dims, dtype=np.int64))

    def rank(self, name: str) -> int:
        """Axes of a constant, without decoding it."""
        return len(self._tensors[name].dims)

    def add(self, name: str, value: np.ndarray) -> str:
        """Adds or replaces a constant and returns its name."""
        self._tensors[name] = numpy_helper.from_array(np.ascontiguousarray(value) if value.ndim else value, name)
        self._arrays.pop(name, None)
        return name

    def take(self, name: str, tensor: onnx.TensorProto) -> None:
        """Adds a stored constant under `name`."""
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = name
        self._tensors[name] = copy
        self._arrays.pop(name, None)

    def tensors(self, names: set[str]) -> list[onnx.TensorProto]:
        """The initializers among `names`, in order of addition."""
        return [tensor for name, tensor in self._tensors.items() if name in names]


def fold(
    nodes: Sequence[onnx.NodeProto],
    constants: Constants,
    shapes: Mapping[str, tuple[int, ...]],
    opset: int,
) -> list[onnx.NodeProto]:
    """The nodes that remain when everything that reads only constants has become one; `constants` grows.

    `shapes` gives static extents of values, with which Shape nodes fold too.
    """
    remaining = []
    for node in nodes:
        values = _evaluate(node, constants, shapes, opset)
        if values is None:
            remaining.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            constants.add(name, value)
    return fold_parameters(remaining, constants)


def fold_parameters(nodes: Sequence[onnx.NodeProto], constants: Constants) -> list[onnx.NodeProto]:
    """Clip bounds and padding values that a quantiser turned into codes become plain numbers again."""
    producers = {node.output[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    for node in nodes:
        for index in _PARAMETER_OPERANDS.get(node.op_type, ()):
            producer = producers.get(node.input[index]) if index < len(node.input) else None
            if producer is not None and all(name in constants for name in producer.input):
                codes, scale, *zero_point = (constants[name] for name in producer.input)
                value = (codes.astype(np.float32) - (zero_point[0].astype(np.float32) if zero_point else 0)) * scale
                node.input[index] = constants.add(f"{producer.output[0]}.value", value.astype(np.float32))
    return list(nodes)


def _evaluate(
    node: onnx.NodeProto, constants: Constants, shapes: Mapping[str, tuple[int, ...]], opset: int
) -> Sequence[np.ndarray] | None:
    if node.op_type == "Constant":
        return _run(node, {}, opset)
    if node.op_type in ("Shape", "Size") and node.input[0] in shapes and node.input[0] not in constants:
        # The value does not matter, and this one takes no memory.
        return _run(node, {node.input[0]: np.broadcast_to(np.float32(0), shapes[node.input[0]])}, opset)
    if node.domain not in ("", "ai.onnx") or node.op_type not in _FOLDABLE:
        return None
    if not all(name in constants for name in node.input if name):
        return None
    return _run(node, {name: constants[name] for name in node.input if name}, opset)


def _run(node: onnx.NodeProto, feeds: Mapping[str, np.ndarray], opset: int) -> Sequence[np.ndarray]:
    if node.op_type == "Unsqueeze" and opset < _AXES_ARE_OPERANDS:
        # The reference evaluator of older versions takes no axes.
        (value,), (axes,) = feeds.values(), (tuple(each.ints) for each in node.attribute)
        return [np.expand_dims(value, axes)]
    return [np.asarray(value) for value in ReferenceEvaluator(node, opsets={"": opset}).run(None, dict(feeds))]
