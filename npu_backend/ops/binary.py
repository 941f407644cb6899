"""Functions of two tensors, and the choice between two; extents of 1 broadcast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npu_backend.graph import NUMBERS, Graph, Op
from npu_backend.isa_functions import BinaryFunction
from npu_backend.ops import numerics_binary, numerics_core, numerics_eltwise
from npu_backend.ops.base import LoweredInstruction, Tile, quantization_of, register
from npu_backend.ops.elementwise import Elementwise, element_fields, instructions

_BYTES = ("uint8", "int8")
_ON_CODES = {
    "add": (BinaryFunction.ADD_CODES, numerics_eltwise.add),
    "multiply": (BinaryFunction.MULTIPLY_CODES, numerics_eltwise.multiply),
}


@register
class Binary(Elementwise):
    """A function of two tensors of any types.

    Sums and products of 8-bit codes are ONNX Runtime's QLinearAdd and QLinearMul. Plain integers and booleans with such
    a result are exact; all else is computed in float32, which holds integers up to 2**24.
    """

    kind = "binary"
    meaning = "element-wise functions of two tensors, broadcast; exact on int32, int64 and bool: " + ", ".join(
        sorted(numerics_binary.FLOAT_FUNCTIONS)
    )

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """On codes, in int64 or in float32, as the types say."""
        left, right = np.broadcast_arrays(*inputs)
        function, output = op.attributes.function, graph.tensor(op.output)
        if _is_on_codes(graph, op):
            return _on_codes(graph, op, left, right)
        if _is_all(graph, op, NUMBERS):
            return numerics_binary.in_integers(function, left, right, output.dtype)
        a, b = (numerics_core.decode(value, graph.tensor(name).quantization)
                for name, value in zip(op.inputs, (left, right)))  # fmt: skip
        return numerics_core.encode(numerics_binary.in_float(function, a, b), output)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A BINARY instruction per four axes."""
        name = op.attributes.function
        function = _ON_CODES[name][0] if _is_on_codes(graph, op) else BinaryFunction[name.upper()]
        fields: dict[str, object] = {"function": function}
        for side, tensor in zip(("left", "right", "output"), (*op.inputs, op.output)):
            fields |= element_fields(side, graph.tensor(tensor))
        return instructions("BINARY", dict(zip(("left", "right"), tile.inputs)), tile.output, fields)


def _is_all(graph: Graph, op: Op, dtypes: tuple[str, ...]) -> bool:
    return all(graph.tensor(name).dtype in dtypes for name in (*op.inputs, op.output))


def _is_on_codes(graph: Graph, op: Op) -> bool:
    return op.attributes.function in _ON_CODES and _is_all(graph, op, _BYTES)


def _on_codes(graph: Graph, op: Op, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    x, y, z = (quantization_of(graph.tensor(name)) for name in (*op.inputs, op.output))
    return numerics_eltwise.in_uint8(
        _ON_CODES[op.attributes.function][1], left, np.float32(x.scale), x.zero_point, right, np.float32(y.scale),
        y.zero_point, np.float32(z.scale), z.zero_point, np.dtype(graph.tensor(op.output).dtype),
    )  # fmt: skip


@register
class Select(Elementwise):
    """The left tensor's elements where the condition holds, the right's elsewhere: ONNX's Where.

    Elements of one type and code move as they are; others go through float32.
    """

    kind = "select"
    meaning = "elements of one tensor or another, of any types, by a boolean condition (Where)"

    def wrong_types(self, graph: Graph, op: Op) -> str | None:
        """The condition is bool."""
        condition = graph.tensor(op.inputs[0])
        return None if condition.dtype == "bool" else f"chooses by {condition.dtype} instead of bool"

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Moved, or decoded and encoded."""
        left, right, output = (graph.tensor(name) for name in (*op.inputs[1:], op.output))
        same = all((side.dtype, side.quantization) == (output.dtype, output.quantization) for side in (left, right))
        if same:
            return np.where(*inputs)
        values = (numerics_core.decode(value, side.quantization) for side, value in zip((left, right), inputs[1:]))
        return numerics_core.encode(np.where(inputs[0], *values), output)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A SELECT instruction per four axes."""
        fields: dict[str, object] = {}
        for side, tensor in zip(("left", "right", "output"), (*op.inputs[1:], op.output)):
            fields |= element_fields(side, graph.tensor(tensor))
        return instructions("SELECT", dict(zip(("condition", "left", "right"), tile.inputs)), tile.output, fields)
