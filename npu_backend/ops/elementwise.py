"""Element-wise operators: tables of one tensor, functions of two, and the ways into and out of integer codes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Quantization, Tensor
from npu_backend.isa import DATA_TYPES, BinaryFunction
from npu_backend.ops import numerics_core, numerics_eltwise, numerics_unary
from npu_backend.ops.attributes import UnaryAttributes
from npu_backend.ops.base import LoweredInstruction, Operand, OpSpec, PackedConstant, Tile, register
from npu_backend.ops.conv import quantization_of
from npu_backend.ops.strided import elementwise

PARAMETER_NAMES = {
    "clip": ("low", "high"), "leaky_relu": ("alpha",), "hard_sigmoid": ("alpha", "beta"), "elu": ("alpha",),
    "celu": ("alpha",), "selu": ("alpha", "gamma"), "thresholded_relu": ("alpha",), "power": ("exponent",),
}  # fmt: skip


class _Elementwise(OpSpec):
    """What needs only the same element of every activation."""

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


def _strides(operand: Operand, output: Operand) -> tuple[int, ...]:
    """The operand's strides, zero along axes that it broadcasts."""
    pairs = zip(operand.strides, operand.box.shape, output.box.shape)
    return tuple(0 if extent == 1 and wanted != 1 else stride for stride, extent, wanted in pairs)


class _ByTable(_Elementwise):
    """A function of one tensor of 8-bit codes: all 256 results, known when the model is compiled."""

    @abstractmethod
    def table(self, graph: Graph, op: Op) -> np.ndarray:
        """256 codes of the output's type, indexed by the input's raw byte."""

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
    """A function of one tensor by its name."""

    kind = "unary"
    meaning = "element-wise functions of one tensor by table: " + ", ".join(sorted(numerics_unary.FUNCTIONS))

    def table(self, graph: Graph, op: Op) -> np.ndarray:
        """256 codes of the output's type, indexed by the input's raw byte."""
        a: UnaryAttributes = op.attributes
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        parameters = dict(zip(PARAMETER_NAMES.get(a.function, ()), a.parameters))
        return numerics_unary.unary_table(
            a.function, np.float32(quantization_of(x).scale), quantization_of(x).zero_point,
            np.float32(quantization_of(y).scale), quantization_of(y).zero_point, np.dtype(x.dtype), **parameters,
        )  # fmt: skip


def table_lookup(source: Operand, output: Operand, table: object) -> tuple[LoweredInstruction, ...]:
    """TABLE instructions from one operand to another of the same shape."""
    operands = {"input": (source.address, source.strides), "output": (output.address, output.strides)}
    return elementwise("TABLE", output.box.shape, operands, {"table": table})


@register
class Binary(_Elementwise):
    """A function of two tensors with scales of their own, or one of them float32; the output is quantised."""

    kind = "binary"
    meaning = "element-wise functions of two tensors, extents of 1 broadcast: " + ", ".join(
        sorted(numerics_eltwise.FLOAT_FUNCTIONS)
    )

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's QLinearAdd and QLinearMul, or its float operator between dequantise and quantise."""
        left, right = np.broadcast_arrays(*inputs)
        dtype, z = np.dtype(graph.tensor(op.output).dtype), quantization_of(graph.tensor(op.output))
        if _opcode_function(graph, op).name.startswith("FLOAT_"):
            a, b = (_real(graph.tensor(name), value) for name, value in zip(op.inputs, (left, right)))
            return numerics_eltwise.in_float(op.attributes.function, a, b, np.float32(z.scale), z.zero_point, dtype)
        x, y = (quantization_of(graph.tensor(name)) for name in op.inputs)
        function = {"add": numerics_eltwise.add, "multiply": numerics_eltwise.multiply}[op.attributes.function]
        return numerics_eltwise.in_uint8(
            function, left, np.float32(x.scale), x.zero_point, right, np.float32(y.scale), y.zero_point,
            np.float32(z.scale), z.zero_point, dtype,
        )  # fmt: skip

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A BINARY instruction per four axes."""
        left, right = tile.inputs
        fields: dict[str, object] = {"function": _opcode_function(graph, op)}
        for name, tensor in zip(("left", "right", "output"), (*op.inputs, op.output)):
            code = graph.tensor(tensor).quantization or Quantization(1.0, 0)
            fields[f"{name}_type"] = DATA_TYPES[graph.tensor(tensor).dtype]
            fields[f"{name}_scale"], fields[f"{name}_zero_point"] = code.scale, code.zero_point
        operands = {
            "left": (left.address, _strides(left, tile.output)),
            "right": (right.address, _strides(right, tile.output)),
            "output": (tile.output.address, tile.output.strides),
        }
        return elementwise("BINARY", tile.output.box.shape, operands, fields)


def _opcode_function(graph: Graph, op: Op) -> BinaryFunction:
    name = op.attributes.function.upper()
    on_codes = name in BinaryFunction.__members__ and all(graph.tensor(each).quantization for each in op.inputs)
    return BinaryFunction[name if on_codes else f"FLOAT_{name}"]


def _real(tensor: Tensor, value: np.ndarray) -> np.ndarray:
    code = tensor.quantization
    return value if code is None else numerics_core.dequantize(value, np.float32(code.scale), code.zero_point)


def element_fields(name: str, tensor: Tensor) -> dict[str, object]:
    """The fields ``<name>_type``, ``_scale`` and ``_zero_point`` of an operand that an instruction reads as float32."""
    code = tensor.quantization or Quantization(1.0, 0)
    return {f"{name}_type": DATA_TYPES[tensor.dtype], f"{name}_scale": code.scale,
            f"{name}_zero_point": code.zero_point}  # fmt: skip


class _Conversion(_Elementwise):
    """Elements of one data type to another, through float32."""

    forms = ("float16", "float32")

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """Decoded and encoded."""
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        return numerics_core.encode(numerics_core.decode(inputs[0], x.quantization), y)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One conversion instruction."""
        source, output = tile.inputs[0], tile.output
        operands = {"input": (source.address, source.strides), "output": (output.address, output.strides)}
        fields = element_fields("input", graph.tensor(op.inputs[0])) | element_fields("output", graph.tensor(op.output))
        return elementwise("CONVERT", output.box.shape, operands, fields)


@register
class Quantize(_Conversion):
    """Float to codes."""

    kind = "quantize"
    meaning = "float to integer codes (QuantizeLinear)"


@register
class Dequantize(_Conversion):
    """Codes to float."""

    kind = "dequantize"
    meaning = "integer codes to float (DequantizeLinear)"


@register
class Cast(_Conversion):
    """Values of one type to another; floats become integers towards zero, and true where they are not 0."""

    kind = "cast"
    meaning = "values of one data type as another (Cast)"
