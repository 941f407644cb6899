"""What element-wise operators share: boxes, strides, and the fields of operands read through the emulator's codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import CODES, FLOATS, Graph, Op, Quantization, Tensor
from npu_backend.isa import DATA_TYPES
from npu_backend.ops.base import LoweredInstruction, Operand, OpSpec
from npu_backend.ops.strided import elementwise

FORMS = (*CODES, *FLOATS)


class Elementwise(OpSpec):
    """What needs only the same element of every activation."""

    forms: ClassVar[tuple[str, ...]] = FORMS
    is_elementwise = True

    def infer_shape(
        self, attributes: Any, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The broadcast shape."""
        return tuple(np.broadcast_shapes(*(tensor.shape for tensor in inputs)))

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis."""
        return dict.fromkeys(range(len(graph.tensor(op.output).shape)), 1)

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The same box; an axis of extent 1 stays whole."""
        return tuple(_broadcast_box(graph.tensor(name), out_box) for name in graph.activations(op))

    def permute(self, attributes: Any, axes: tuple[int, ...], rank: int) -> Any:
        """Bound to no axis."""
        return attributes


def _broadcast_box(tensor: Tensor, out_box: Box) -> Box:
    for axis, extent in enumerate(tensor.shape):
        if extent == 1:
            out_box = out_box.with_interval(axis, 0, 1)
    return out_box


def instructions(
    name: str, inputs: Mapping[str, Operand], output: Operand, fields: Mapping[str, object]
) -> tuple[LoweredInstruction, ...]:
    """One instruction per four axes; `inputs` by the names of their address fields, extents of 1 broadcast."""
    operands = {field: (operand.address, _strides(operand, output)) for field, operand in inputs.items()}
    operands["output"] = output.address, output.strides
    return elementwise(name, output.box.shape, operands, fields)


def _strides(operand: Operand, output: Operand) -> tuple[int, ...]:
    """The operand's strides, zero along axes that it broadcasts."""
    pairs = zip(operand.strides, operand.box.shape, output.box.shape)
    return tuple(0 if extent == 1 and wanted != 1 else stride for stride, extent, wanted in pairs)


def element_fields(name: str, tensor: Tensor) -> dict[str, object]:
    """The fields ``<name>_type``, ``_scale`` and ``_zero_point`` of an operand that an instruction reads as float32."""
    code = tensor.quantization or Quantization(1.0, 0)
    return {f"{name}_type": DATA_TYPES[tensor.dtype], f"{name}_scale": code.scale,
            f"{name}_zero_point": code.zero_point}  # fmt: skip
