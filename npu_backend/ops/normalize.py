"""Normalisation by an own mean and variance, and local response normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npu_backend.graph import Graph, Op
from npu_backend.ops import numerics_lines as numerics
from npu_backend.ops.attributes import LrnAttributes, NormalizeAttributes
from npu_backend.ops.base import LoweredInstruction, Tile, register
from npu_backend.ops.lines import LineSpec, line_instructions
from npu_backend.ops.numerics_core import decode, encode


@register
class Normalize(LineSpec):
    """Mean 0 and variance 1 over some axes; layer, instance, group and RMS normalisation scale and shift it."""

    kind = "normalize"
    meaning = "mean and variance normalised over any axes (LayerNormalization, InstanceNormalization, RMS)"

    def line_axes(self, attributes: NormalizeAttributes, rank: int) -> tuple[int, ...]:
        """The axes of a mean."""
        return attributes.axes

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's LayerNormalization in float, but for the order of sums."""
        x, y, a = graph.tensor(op.inputs[0]), graph.tensor(op.output), op.attributes
        return encode(numerics.normalize(decode(inputs[0], x.quantization), a.axes, a.epsilon, a.subtract_mean), y)

    def permute(self, attributes: NormalizeAttributes, axes: tuple[int, ...], rank: int) -> NormalizeAttributes:
        """Follows its axes, in the order in which they were summed."""
        followed = tuple(axes.index(axis) for axis in attributes.axes)
        return NormalizeAttributes(followed, attributes.epsilon, attributes.subtract_mean)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """NORMALIZE instructions."""
        a = op.attributes
        fields = {"epsilon": a.epsilon, "subtract_mean": int(a.subtract_mean)}
        return line_instructions("NORMALIZE", graph, op, (tile.inputs[0], tile.output), a.axes, fields)


@register
class Lrn(LineSpec):
    """Every element by the squares of its neighbours along the channels."""

    kind = "lrn"
    meaning = "local response normalisation over channels (LRN)"

    def line_axes(self, attributes: LrnAttributes, rank: int) -> tuple[int, ...]:
        """The channels."""
        return (rank - 1,)

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's LRN, within the rounding of a power."""
        x, y, a = graph.tensor(op.inputs[0]), graph.tensor(op.output), op.attributes
        real = decode(inputs[0], x.quantization)
        return encode(numerics.lrn(real, real.ndim - 1, a.size, a.alpha, a.beta, a.bias), y)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """LRN instructions."""
        a, axes = op.attributes, self.line_axes(op.attributes, tile.output.box.rank)
        fields = {"size": a.size, "alpha": a.alpha, "beta": a.beta, "bias": a.bias}
        return line_instructions("LRN", graph, op, (tile.inputs[0], tile.output), axes, fields)
