"""Functions that the engines do not know: a native kernel for every tile, which the vector processor runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import DATA_TYPES
from npu_backend.kernels import MAX_OPERANDS, Kernel, TileFunction
from npu_backend.ops.attributes import KernelAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, OpSpec, Tile, register
from npu_backend.ops.strided import AXES, collapse


@register
class KernelSpec(OpSpec):
    """A function of whole tensors that a front end can make for any box of its output."""

    kind = "kernel"
    meaning = "any function that TVM can lower, compiled to native code for the vector processor"
    forms = tuple(DATA_TYPES)

    def infer_shape(
        self, attributes: KernelAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """As the function says."""
        return attributes.function.shape

    def wrong_types(self, graph: Graph, op: Op) -> str | None:
        """The output is of the function's data type; no more operands than an instruction names."""
        dtype, operands = graph.tensor(op.output).dtype, len(graph.activations(op)) + 1
        if dtype != _function(op).dtype:
            return f"makes {dtype}, its function {_function(op).dtype}"
        return f"has {operands} operands of {MAX_OPERANDS}" if operands > MAX_OPERANDS else None

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The function itself."""
        return _function(op).reference(inputs)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """As the function says."""
        return dict.fromkeys(_function(op).split_axes, 1)

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """As the function says."""
        return _function(op).input_boxes(out_box)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One call."""
        function, operands = _function(op), (*tile.inputs, tile.output)
        cost = function.operations(tile.output.box)
        views = [_view(operand) for operand in operands] + [_NOTHING] * (MAX_OPERANDS - len(operands))
        addresses: list[object] = [operand.address for operand in operands]
        return (LoweredInstruction("KERNEL", {
            "kernel": Kernel(function, tile.output.box, tuple(operand.strides for operand in operands)),
            "operand_count": len(operands),
            **{f"operand{number}": addresses[number] if number < len(addresses) else 0
               for number in range(MAX_OPERANDS)},
            "run_bytes": tuple(run for run, _, _ in views),
            "counts": tuple(count for _, counts, _ in views for count in counts),
            "strides": tuple(stride for _, _, strides in views for stride in strides),
            "simple_bytes": cost.simple_bytes, "special_bytes": cost.special_bytes, "access_bytes": cost.access_bytes,
        }),)  # fmt: skip


_View = tuple[int, tuple[int, ...], tuple[int, ...]]
_NOTHING: _View = (0, (1,) * AXES, (0,) * AXES)


def _function(op: Op) -> TileFunction:
    attributes: KernelAttributes = op.attributes
    return attributes.function


def _view(operand: Operand) -> _View:
    """Run bytes, counts and strides of the bytes of an operand; of more axes than there are, the outer ones in one run.

    Nothing of an operand of which the box needs no element.
    """
    if operand.box.is_empty:
        return _NOTHING
    itemsize = np.dtype(operand.dtype).itemsize
    counts, (strides,) = collapse((*operand.box.shape, itemsize), [(*operand.strides, 1)])
    if not counts or strides[-1] != 1:
        counts, strides = [*counts, 1], [*strides, 1]
    *counts, run = counts
    outer = counts[-AXES:]
    if len(counts) > AXES:
        # The hull of what does not fit: more bytes than are touched, never fewer.
        span = sum((count - 1) * stride for count, stride in zip(counts, strides[:-1]))
        return span + run, (1,) * AXES, (0,) * AXES
    pad = AXES - len(outer)
    return run, (*[1] * pad, *outer), (*[0] * pad, *strides[:-1])
