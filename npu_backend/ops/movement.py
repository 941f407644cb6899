"""What operators share that only move elements, of any data type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npu_backend.graph import Graph, Op
from npu_backend.isa import DATA_TYPES
from npu_backend.ops.base import LoweredInstruction, Operand, OpSpec
from npu_backend.ops.strided import elementwise


class Movement(OpSpec):
    """An operator whose output elements are elements of its first input, bit for bit."""

    forms = tuple(DATA_TYPES)
    keeps_elements = True

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis."""
        return dict.fromkeys(range(len(graph.tensor(op.output).shape)), 1)


def copy(source: Operand, output: Operand, counts: Sequence[int]) -> tuple[LoweredInstruction, ...]:
    """COPY instructions between two views of `counts` elements."""
    operands = {"input": (source.address, source.strides), "output": (output.address, output.strides)}
    return elementwise("COPY", counts, operands, {"element_bytes": np.dtype(output.dtype).itemsize})
