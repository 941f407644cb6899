"""Products with a constant matrix, on the convolution engine: each row of x is a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import CHANNEL_BLOCK
from npu_backend.ops import numerics_conv as numerics
from npu_backend.ops.attributes import DenseAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, OpSpec, PackedConstant, Tile, register
from npu_backend.ops.conv import MatrixConstants, accumulator_fields, matrix_fields, multipliers, quantization_of
from npu_backend.ops.packing import PARAMETER_BYTES, chunk_bytes, folded_bias, pack_dense

_POINTWISE = {
    "kernel_height": 1, "kernel_width": 1, "stride_height": 1, "stride_width": 1,
    "dilation_height": 1, "dilation_width": 1, "pad_top": 0, "pad_left": 0, "input_height": 1, "output_height": 1,
}  # fmt: skip


@register
class Dense(OpSpec):
    """``y[..., n] = sum over k of x[..., k] * weight[k, n] + bias[n]``, requantised."""

    kind = "dense"
    meaning = "product with a constant matrix (Gemm, MatMul), with bias and clamp"

    def infer_shape(
        self, attributes: DenseAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The input's shape with the last axis replaced by n."""
        return (*inputs[0].shape[:-1], constants[0].shape[1])

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's QGemm and QLinearMatMul."""
        constants, x, y = MatrixConstants.of(graph, op), graph.tensor(op.inputs[0]), graph.tensor(op.output)
        result = numerics.matmul(
            inputs[0], np.float32(quantization_of(x).scale), quantization_of(x).zero_point,
            constants.weight, constants.weight_scale, constants.bias,
            np.float32(quantization_of(y).scale), quantization_of(y).zero_point, np.dtype(y.dtype),
        )  # fmt: skip
        clamp = op.attributes.clamp
        return result if clamp is None else np.clip(result, *clamp).astype(result.dtype)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis; the last in blocks of 16."""
        rank = len(graph.tensor(op.output).shape)
        return {**dict.fromkeys(range(rank - 1), 1), rank - 1: CHANNEL_BLOCK}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The same rows, every k."""
        return (out_box.with_interval(out_box.rank - 1, 0, graph.tensor(op.inputs[0]).shape[-1]),)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """One row per block of 16 columns of the matrix."""
        constants = MatrixConstants.of(graph, op)
        weight = constants.weight.T[:, :, None, None]
        bias = folded_bias(weight, constants.bias, quantization_of(graph.tensor(op.inputs[0])).zero_point)
        rows = pack_dense(weight, bias, multipliers(graph, op, constants, len(weight)))
        return (PackedConstant(rows, len(graph.tensor(op.output).shape) - 1, CHANNEL_BLOCK, chunk_bytes((1, 1))),)

    def reduction_length(self, graph: Graph, op: Op) -> int | None:
        """k."""
        return graph.tensor(op.inputs[0]).shape[-1]

    def macs(self, graph: Graph, op: Op) -> int:
        """Rows of x times the weights."""
        return prod(graph.tensor(op.inputs[0]).shape[:-1]) * graph.constants[op.inputs[1]].size

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per index of the axes before the row axis."""
        constant = tile.constants[0]
        weights = {"weights": constant.address, "block_bytes": constant.row_bytes,
                   "parameters": constant.address + (constant.row_bytes - PARAMETER_BYTES)}  # fmt: skip
        fixed = matrix_fields(graph, op) | accumulator_fields(tile) | weights | _POINTWISE
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
