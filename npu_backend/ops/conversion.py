"""The ways into and out of integer codes, and from one data type to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npu_backend.graph import CODES, FLOATS, Graph, Op
from npu_backend.isa import COMPUTED_TYPES
from npu_backend.ops import numerics_core
from npu_backend.ops.base import LoweredInstruction, Tile, register
from npu_backend.ops.elementwise import Elementwise, element_fields, instructions


class _Conversion(Elementwise):
    """Elements of one data type to another: plain integers and booleans exactly, all else through float32."""

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Decoded and encoded; plain integers as they are."""
        return numerics_core.convert(inputs[0], graph.tensor(op.inputs[0]), graph.tensor(op.output))

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One conversion instruction."""
        fields = element_fields("input", graph.tensor(op.inputs[0])) | element_fields("output", graph.tensor(op.output))
        return instructions("CONVERT", {"input": tile.inputs[0]}, tile.output, fields)


@register
class Quantize(_Conversion):
    """Float to codes."""

    kind = "quantize"
    meaning = "float to integer codes (QuantizeLinear)"
    forms = FLOATS


@register
class Dequantize(_Conversion):
    """Codes to float."""

    kind = "dequantize"
    meaning = "integer codes to float (DequantizeLinear)"
    forms = CODES


@register
class Cast(_Conversion):
    """Values of one type to another; floats become integers towards zero, and true where they are not 0."""

    kind = "cast"
    meaning = "values of one data type as another (Cast)"
    forms = COMPUTED_TYPES
