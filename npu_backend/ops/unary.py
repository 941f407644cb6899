"""Functions of one tensor: a table of all results between 8-bit codes, UNARY between all other types."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa_functions import UnaryFunction
from npu_backend.ops import numerics_core, numerics_unary
from npu_backend.ops.attributes import UnaryAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, PackedConstant, Tile, register
from npu_backend.ops.elementwise import Elementwise, element_fields, instructions


class _ByTable(Elementwise):
    """A function of one tensor of 8-bit codes: all 256 results, known when the model is compiled."""

    forms: ClassVar[tuple[str, ...]] = ("uint8", "int8")

    @abstractmethod
    def table(self, graph: Graph, op: Op) -> np.ndarray:
        """256 elements of the output's type, indexed by the input's raw byte."""

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The table, looked up."""
        return numerics_core.apply_table(inputs[0], self.table(graph, op))

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """The table as one row."""
        return (PackedConstant(self.table(graph, op).view(np.uint8).reshape(1, 256)),)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A table look-up."""
        return table_lookup(tile.inputs[0], tile.output, tile.constants[0].address)


@register
class Table(_ByTable):
    """A chain of functions of one tensor, whose importer has made the table: its second input, 256 bytes of codes."""

    kind = "table"
    meaning = "chains of element-wise functions of one tensor and constant numbers, as one table"

    def table(self, graph: Graph, op: Op) -> np.ndarray:
        """The constant."""
        return graph.constants[op.inputs[1]].view(graph.tensor(op.output).dtype)


@register
class Unary(_ByTable):
    """A function of one tensor by its name. Plain integers go through float32, exact up to 2**24."""

    kind = "unary"
    meaning = "element-wise functions of one tensor: " + ", ".join(sorted(numerics_unary.FUNCTIONS))
    forms = Elementwise.forms

    def table(self, graph: Graph, op: Op) -> np.ndarray:
        """256 elements of the output's type, indexed by the input's raw byte."""
        return self._computed(graph, op, numerics_core.byte_values(graph.tensor(op.inputs[0]).dtype))

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The function in float32, rounded once."""
        return self._computed(graph, op, inputs[0])

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """The table, if it is one."""
        return super().constants(graph, op) if _by_table(graph, op) else ()

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A table look-up, or UNARY."""
        if _by_table(graph, op):
            return super().lower(graph, op, tile)
        a: UnaryAttributes = op.attributes
        alpha, beta = (*numerics_unary.parameters_of(a.function, a.parameters), 0.0, 0.0)[:2]
        fields = element_fields("input", graph.tensor(op.inputs[0])) | element_fields("output", graph.tensor(op.output))
        fields |= {"function": UnaryFunction[a.function.upper()], "alpha": alpha, "beta": beta}
        return instructions("UNARY", {"input": tile.inputs[0]}, tile.output, fields)

    def _computed(self, graph: Graph, op: Op, values: np.ndarray) -> np.ndarray:
        x, a = numerics_core.decode(values, graph.tensor(op.inputs[0]).quantization), op.attributes
        return numerics_core.encode(numerics_unary.evaluate(a.function, x, a.parameters), graph.tensor(op.output))


def _by_table(graph: Graph, op: Op) -> bool:
    return all(_holds_byte_codes(graph.tensor(name)) for name in (op.inputs[0], op.output))


def _holds_byte_codes(tensor: Tensor) -> bool:
    return tensor.itemsize == 1 and tensor.quantization is not None


def table_lookup(source: Operand, output: Operand, table: object) -> tuple[LoweredInstruction, ...]:
    """TABLE instructions from one operand to another of the same shape."""
    return instructions("TABLE", {"input": source}, output, {"table": table})
