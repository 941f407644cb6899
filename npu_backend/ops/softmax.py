"""Softmax and its logarithm along any axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa_functions import SoftmaxFunction
from npu_backend.ops import numerics_lines, numerics_softmax
from npu_backend.ops.attributes import SoftmaxAttributes
from npu_backend.ops.base import LoweredInstruction, PackedConstant, Tile, quantization_of, register
from npu_backend.ops.lines import LineSpec, line_instructions
from npu_backend.ops.numerics_core import decode, encode


@register
class Softmax(LineSpec):
    """Codes of 8 bits as ONNX Runtime's integer kernel, all else in float32."""

    kind = "softmax"
    meaning = "softmax along an axis, and its logarithm (Softmax, LogSoftmax)"

    def line_axes(self, attributes: SoftmaxAttributes, rank: int) -> tuple[int, ...]:
        """The axis that sums to 1."""
        return (attributes.axis % rank,)

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's QLinearSoftmax, or its float operator."""
        x, y, a = graph.tensor(op.inputs[0]), graph.tensor(op.output), op.attributes
        axis = a.axis % inputs[0].ndim
        if not _by_table(graph, op):
            return encode(numerics_lines.softmax(decode(inputs[0], x.quantization), axis, a.logarithm), y)
        rows, code = np.moveaxis(inputs[0], axis, -1), quantization_of(y)
        result = numerics_softmax.softmax(
            rows, np.float32(quantization_of(x).scale), np.float32(code.scale), code.zero_point
        )
        return np.moveaxis(result, -1, axis)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """256 exponentials, where codes are looked up."""
        if not _by_table(graph, op):
            return ()
        x = graph.tensor(op.inputs[0])
        table = numerics_softmax.softmax_table(np.float32(quantization_of(x).scale), x.shape[op.attributes.axis])
        return (PackedConstant(table.view(np.uint8).reshape(1, -1)),)

    def permute(self, attributes: SoftmaxAttributes, axes: tuple[int, ...], rank: int) -> SoftmaxAttributes:
        """Follows its axis."""
        return SoftmaxAttributes(axes.index(attributes.axis % rank), attributes.logarithm)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """SOFTMAX instructions."""
        fields: dict[str, object] = {"function": SoftmaxFunction.FLOAT, "table": 0}
        if op.attributes.logarithm:
            fields["function"] = SoftmaxFunction.LOGARITHM
        if _by_table(graph, op):
            fields = _table_fields(graph.tensor(op.output), tile)
        axes = self.line_axes(op.attributes, tile.output.box.rank)
        return line_instructions("SOFTMAX", graph, op, (tile.inputs[0], tile.output), axes, fields)


def _by_table(graph: Graph, op: Op) -> bool:
    types = graph.tensor(op.inputs[0]).dtype, graph.tensor(op.output).dtype
    return types in (("uint8", "uint8"), ("int8", "int8")) and not op.attributes.logarithm


def _table_fields(y: Tensor, tile: Tile) -> dict[str, object]:
    scale = numerics_softmax.softmax_output_scale(np.float32(quantization_of(y).scale))
    return {
        "function": SoftmaxFunction.TABLE, "table": tile.constants[0].address, "output_scale": float(scale),
    }  # fmt: skip
