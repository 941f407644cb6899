"""Products with a constant matrix, on the convolution engine: each row of x is a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import CHANNEL_BLOCK
from npu_backend.ops import matrix
from npu_backend.ops import numerics_conv as numerics
from npu_backend.ops.attributes import DenseAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, PackedConstant, Tile, register
from npu_backend.ops.packing import chunk_bytes, pack_dense

_POINTWISE = {
    "kernel_height": 1, "kernel_width": 1, "stride_height": 1, "stride_width": 1,
    "dilation_height": 1, "dilation_width": 1, "pad_top": 0, "pad_left": 0, "input_height": 1, "output_height": 1,
}  # fmt: skip


@register
class Dense(matrix.MatrixSpec):
    """``y[..., n] = sum over k of x[..., k] * weight[k, n] + bias[n]``, requantised."""

    kind = "dense"
    meaning = "product with a constant matrix (Gemm, MatMul), with bias and clamp"

    def infer_shape(
        self, attributes: DenseAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The input's shape with the last axis replaced by n."""
        return (*inputs[0].shape[:-1], constants[0].shape[1])

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's QGemm and QLinearMatMul, where the codes have 8 bits."""
        constants, zero_point = matrix.MatrixConstants.of(graph, op), matrix.zero_point_of(graph.tensor(op.inputs[0]))
        sums = numerics.matmul_sums(inputs[0], zero_point, constants.weight, bias=constants.bias)
        return matrix.finish(graph, op, sums)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis; the last in blocks of 16."""
        rank = len(graph.tensor(op.output).shape)
        return {**dict.fromkeys(range(rank - 1), 1), rank - 1: CHANNEL_BLOCK}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The same rows, every k."""
        return (out_box.with_interval(out_box.rank - 1, 0, graph.tensor(op.inputs[0]).shape[-1]),)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """One row per block of 16 columns of the matrix."""
        weight = graph.constants[op.inputs[1]].T[:, :, None, None]
        bias, factors = matrix.engine_bias(graph, op, weight), matrix.multipliers(graph, op, len(weight))
        last = len(graph.tensor(op.output).shape) - 1
        return (PackedConstant(pack_dense(weight, bias, factors), last, CHANNEL_BLOCK, chunk_bytes(weight)),)

    def reduction_length(self, graph: Graph, op: Op) -> int | None:
        """k."""
        return graph.tensor(op.inputs[0]).shape[-1]

    def accumulator_bytes(self, graph: Graph, op: Op, out_box: Box) -> int:
        """Of the sums' type, channels rounded up to whole blocks."""
        return matrix.accumulator_bytes(graph, op, out_box)

    def macs(self, graph: Graph, op: Op) -> int:
        """Rows of x times the weights."""
        return prod(graph.tensor(op.inputs[0]).shape[:-1]) * graph.constants[op.inputs[1]].size

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per index of the axes before the row axis."""
        constant = tile.constants[0]
        weights = matrix.weight_fields(graph, op, constant.address, constant.row_bytes)
        fixed = matrix.matrix_fields(graph, op) | matrix.accumulator_fields(tile) | weights | _POINTWISE
        outer = [range(*tile.output.box.interval(axis)) for axis in range(tile.output.box.rank - 2)]
        return tuple(
            LoweredInstruction("CONV", fixed | _row_fields(tile.inputs[0], tile.output, index))
            for index in product(*outer)
        )


def _row_fields(source: Operand, output: Operand, index: tuple[int, ...]) -> dict[str, object]:
    for axis, position in enumerate(index):
        source = source.narrow(source.box.with_interval(axis, position, position + 1))
        output = output.narrow(output.box.with_interval(axis, position, position + 1))
    rows = output.box.shape[-2] if output.box.rank > 1 else 1
    in_step, out_step = ((operand.strides[-2] if operand.box.rank > 1 else 0) for operand in (source, output))
    return {
        "input": source.address, "input_row_bytes": in_step * rows, "input_column_bytes": in_step,
        "input_width": rows, "input_channels": source.box.shape[-1],
        "output": output.address, "output_row_bytes": out_step * rows, "output_column_bytes": out_step,
        "output_width": rows, "output_channels": output.box.shape[-1],
    }  # fmt: skip
