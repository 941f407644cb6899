"""Operators along lines: their boxes, and their instructions on strided operands of any rank."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.ops.base import LoweredInstruction, Operand, OpSpec
from npu_backend.ops.elementwise import FORMS, element_fields
from npu_backend.ops.strided import AXES, collapse


class LineSpec(OpSpec):
    """What works along some axes and on every index of the others by itself. Reduced axes keep extent 1."""

    forms = FORMS
    reduces = False

    @abstractmethod
    def line_axes(self, attributes: Any, rank: int) -> tuple[int, ...]:
        """The axes of a line, the first the slowest."""

    def infer_shape(
        self, attributes: Any, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The input's; with 1 at every reduced axis."""
        shape = inputs[0].shape
        axes = self.line_axes(attributes, len(shape)) if self.reduces else ()
        return tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis that is none of a line's."""
        rank = len(graph.tensor(op.output).shape)
        return {axis: 1 for axis in range(rank) if axis not in self.line_axes(op.attributes, rank)}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The same box with whole lines."""
        shape = graph.tensor(op.inputs[0]).shape
        for axis in self.line_axes(op.attributes, len(shape)):
            out_box = out_box.with_interval(axis, 0, shape[axis])
        return (out_box,)


def line_instructions(
    name: str, graph: Graph, op: Op, operands: tuple[Operand, Operand], axes: Sequence[int], fields: Mapping[str, Any]
) -> tuple[LoweredInstruction, ...]:
    """Instructions of an opcode on lines, from the first operand to the second, whose `axes` may be reduced.

    A line takes as many of an instruction's four axes as it needs; what lines are left over get instructions of their
    own.
    """
    source, output = operands
    shape = source.box.shape
    strides = (
        source.strides,
        [step if extent == whole else 0 for step, extent, whole in zip(output.strides, output.box.shape, shape)],
    )
    line_counts, line_strides = _collapse(shape, strides, axes)
    counts, steps = _collapse(shape, strides, [axis for axis in range(len(shape)) if axis not in axes])
    outer = max(0, len(counts) + len(line_counts) - AXES)
    pad = AXES - (len(counts) - outer) - len(line_counts)
    assert outer <= len(counts), f"{op.name}: lines along {len(line_counts)} separate axes"
    common = {
        "counts": (*[1] * pad, *counts[outer:], *line_counts),
        "line_axes": sum(1 << axis for axis in range(AXES - len(line_counts), AXES)),
        **element_fields("input", graph.tensor(op.inputs[0])), **element_fields("output", graph.tensor(op.output)),
        **fields,
    }  # fmt: skip
    for field, own, line in zip(("input_strides", "output_strides"), steps, line_strides):
        common[field] = (*[0] * pad, *own[outer:], *line)
    lowered = []
    for index in product(*map(range, counts[:outer])):
        offsets = [sum(i * step for i, step in zip(index, own)) for own in steps]
        addresses = {"input": source.address + offsets[0], "output": output.address + offsets[1]}
        lowered.append(LoweredInstruction(name, common | addresses))
    return tuple(lowered)


def _collapse(
    shape: Sequence[int], strides: Sequence[Sequence[int]], axes: Sequence[int]
) -> tuple[list[int], list[list[int]]]:
    return collapse([shape[axis] for axis in axes], [[own[axis] for axis in axes] for own in strides])
