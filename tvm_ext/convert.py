"""From matches to operators of the NPU graph: one converter per pattern.

TVM's image operators are channels first; each is wrapped in transposes, which the legalize pass cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from npu_backend.graph import GraphBuilder, Quantization
from npu_backend.ops import append_op
from npu_backend.ops import attributes as a
from npu_backend.ops.numerics_conv import activation_bounds
from npu_backend.ops.numerics_core import integer_range
from tvm_ext.matching import (
    Match,
    constant_codes,
    dtype_of,
    float_constant,
    is_call,
    operand_codes,
    operand_values,
    shape_of,
)

NHWC = (0, 2, 3, 1)
NCHW = (0, 3, 1, 2)
# A bias scale that differs less from x_scale * weight_scale is a rounding of it, which ONNX Runtime ignores.
_BIAS_SCALE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Lowering:
    """The graph under construction and the tensor that holds each Relax variable."""

    builder: GraphBuilder
    tensors: dict[relax.Var, str]

    def input(self, match: Match, index: int = 0) -> str:
        """The tensor of a match's input."""
        return self.tensors[match.inputs[index]]

    def operand(self, match: Match, index: int) -> str:
        """A tensor of the output's rank that holds an operand, computed or constant."""
        operand, rank = match.operands[index], len(match.output_shape)
        if not isinstance(operand, relax.Var):
            return self.constant_operand(match, operand, f"operand{index}")
        shape, source = shape_of(operand), self.tensors[operand]
        if len(shape) == rank:
            return source
        attributes = a.ReshapeAttributes((1,) * (rank - len(shape)) + shape)
        return self.emit(match, "reshape", [source], attributes, label="align", codes=match.program.codes[operand],
                         dtype=dtype_of(operand))  # fmt: skip

    def constant_operand(
        self, match: Match, operand: relax.Expr, label: str, shape: Sequence[int] | None = None
    ) -> str:
        """A constant tensor: codes where ONNX Runtime keeps them, else float32.

        Its shape is `shape`, or its own with axes of 1 before it up to the output's rank.
        """
        values, codes = operand_codes(match.program, operand, dtype_of(match.root)) or (None, None)
        if values is None:
            values = operand_values(match.program, operand)
        if shape is None:
            shape = (1,) * (len(match.output_shape) - values.ndim) + values.shape
        return self.builder.constant_tensor(f"{match.node.name}.{label}", values.reshape(shape), codes)

    def emit(self, match: Match, kind: str, inputs: Sequence[str], attributes: Any = None, *, label: str = "",
             codes: Quantization | None = None, dtype: str = "") -> str:  # fmt: skip
        """Appends an operator under the match's name; the output has the match's type and codes unless told."""
        return append_op(
            self.builder, kind, inputs, attributes,
            name=f"{match.node.name}.{label}" if label else match.node.name,
            dtype=dtype or dtype_of(match.root),
            quantization=codes or match.output_codes,
            origin=tuple(node.name for node in match.origin),
        )  # fmt: skip

    def transpose(self, match: Match, source: str, axes: tuple[int, ...], label: str) -> str:
        """The same values in another axis order."""
        tensor = self.builder.tensors[source]
        attributes = a.TransposeAttributes(axes)
        return self.emit(match, "transpose", [source], attributes, label=label, codes=tensor.quantization,
                         dtype=tensor.dtype)  # fmt: skip

    def requantize(self, match: Match, source: str) -> str:
        """The tensor in the codes of the match's output."""
        if self.builder.tensors[source].quantization == match.output_codes:
            return source
        return self.emit(match, "unary", [source], a.UnaryAttributes("identity"), label="requantize")

    def constants(self, match: Match, **values: np.ndarray | None) -> list[str]:
        """Adds the constants that are there, named after the operator."""
        return [self.builder.constant(f"{match.node.name}.{label}", value)
                for label, value in values.items() if value is not None]  # fmt: skip


Converter = Callable[[Match, Lowering], str]


def conv2d(match: Match, graph: Lowering) -> str:
    """Conv."""
    x = match.attrs
    attributes = a.ConvAttributes(
        _pair(x.strides), _pads(x.padding), _pair(x.dilation), int(x.groups), clamp=_clamp(match)
    )
    weight = constant_codes(match.program, match.main.args[1])
    assert weight is not None
    constants = _matrix_constants(match, graph, _centred(weight), weight.scale)
    return _on_image(match, graph, "conv2d", attributes, constants)


def conv1d(match: Match, graph: Lowering) -> str:
    """Conv over one axis, as an image of one row."""
    x, (batch, channels, length) = match.attrs, match.input_shape()
    (stride,), (before, after), (dilation,) = (
        [int(v) for v in values] for values in (x.strides, x.padding, x.dilation)
    )
    attributes = a.ConvAttributes((1, stride), (0, before, 0, after), (1, dilation), int(x.groups), _clamp(match))
    weight = constant_codes(match.program, match.main.args[1])
    assert weight is not None
    constants = _matrix_constants(match, graph, _centred(weight)[:, :, None, :], weight.scale)
    rows = graph.transpose(match, graph.input(match), (0, 2, 1), "nlc")
    codes = graph.builder.tensors[rows].quantization
    image = graph.emit(match, "reshape", [rows], a.ReshapeAttributes((batch, 1, length, channels)), label="image",
                       codes=codes)  # fmt: skip
    _, outputs, positions = match.output_shape
    result = graph.emit(match, "conv2d", [image, *constants], attributes)
    flat = graph.emit(match, "reshape", [result], a.ReshapeAttributes((batch, positions, outputs)), label="flat")
    return graph.transpose(match, flat, (0, 2, 1), "ncl")


def conv_transpose2d(match: Match, graph: Lowering) -> str:
    """ConvTranspose."""
    x = match.attrs
    attributes = a.ConvTransposeAttributes(
        _pair(x.strides), _pads(x.padding), _pair(x.dilation), _pair(x.output_padding), int(x.groups), _clamp(match)
    )
    weight = constant_codes(match.program, match.main.args[1])
    assert weight is not None
    # Per channel, the scale runs over one group's outputs.
    scale = np.tile(weight.scale, int(x.groups)) if weight.scale.size > 1 else weight.scale
    constants = _matrix_constants(match, graph, _centred(weight), scale)
    return _on_image(match, graph, "conv_transpose2d", attributes, constants)


def dense(match: Match, graph: Lowering) -> str:
    """Gemm and MatMul with a constant matrix."""
    weight = constant_codes(match.program, match.main.args[1])
    assert weight is not None
    transposed = is_call(match.program.resolve(match.main.args[1]), "relax.permute_dims")
    values = np.ascontiguousarray(_centred(weight).T) if transposed else _centred(weight)
    constants = _matrix_constants(match, graph, values, weight.scale)
    return graph.emit(match, "dense", [graph.input(match), *constants], a.DenseAttributes(_clamp(match)))


def pool(match: Match, graph: Lowering) -> str:
    """MaxPool and AveragePool; ceil_mode becomes padding at the end, which no window counts."""
    x, (_, _, height, width), output = match.attrs, match.input_shape(), match.output_shape
    kernel, strides, (top, left, bottom, right) = _pair(x.pool_size), _pair(x.strides), _pads(x.padding)
    if x.ceil_mode:
        bottom = (output[2] - 1) * strides[0] + kernel[0] - height - top
        right = (output[3] - 1) * strides[1] + kernel[1] - width - left
    maximum = is_call(match.main, "relax.nn.max_pool2d")
    function = "maximum" if maximum else "average_window" if x.count_include_pad else "average_valid"
    attributes = a.PoolAttributes(function, kernel, strides, (top, left, max(bottom, 0), max(right, 0)))
    if maximum:
        return _on_image_codes(match, graph, "pool2d", attributes)
    return _on_image(match, graph, "pool2d", attributes)


def global_average_pool(match: Match, graph: Lowering) -> str:
    """GlobalAveragePool."""
    return _on_image(match, graph, "global_average_pool", None)


def reduce(match: Match, graph: Lowering) -> str:
    """ReduceMean, ReduceMax, ReduceMin and GlobalMaxPool; an extremum is of codes, then requantised."""
    rank, chosen = len(match.input_shape()), match.attrs.axis
    axes = tuple(sorted(int(axis) % rank for axis in chosen)) if chosen is not None else tuple(range(rank))
    mean, minimum = is_call(match.main, "relax.mean"), is_call(match.main, "relax.min")
    codes = match.output_codes if mean else match.input_codes()
    source = _complement(match, graph, graph.input(match), "turned") if minimum else graph.input(match)
    attributes = a.ReduceAttributes("mean" if mean else "maximum", axes)
    result = graph.emit(match, "reduce", [source], attributes, codes=codes)
    if minimum:
        result = _complement(match, graph, result, "turned_back")
    if not match.attrs.keepdims:
        flat = a.ReshapeAttributes(match.output_shape)
        result = graph.emit(match, "reshape", [result], flat, label="squeeze", codes=codes)
    return graph.requantize(match, result)


def _complement(match: Match, graph: Lowering, source: str, label: str) -> str:
    """Every bit of the codes flipped, which turns their order round: the smallest becomes the largest."""
    table = graph.builder.constant(f"{match.node.name}.{label}.table", ~np.arange(256, dtype=np.uint8))
    return graph.emit(match, "table", [source, table], label=label, codes=match.input_codes())


def resize(match: Match, graph: Lowering) -> str:
    """Resize."""
    (_, _, height, width), (_, _, rows, columns) = match.input_shape(), match.output_shape
    scales = float(np.float32(rows) / np.float32(height)), float(np.float32(columns) / np.float32(width))
    nearest = match.attrs.method == "nearest_neighbor"
    attributes = a.ResizeAttributes(
        "nearest" if nearest else "bilinear", (rows, columns), scales,
        str(match.attrs.coordinate_transformation_mode), str(match.attrs.rounding_method),
    )  # fmt: skip
    if nearest:
        return _on_image_codes(match, graph, "resize2d", attributes)
    return _on_image(match, graph, "resize2d", attributes)


def softmax(match: Match, graph: Lowering) -> str:
    """Softmax; the NPU normalises the last axis."""
    rank = len(match.output_shape)
    axis, last = int(match.attrs.axis) % rank, rank - 1
    order = tuple(last if i == axis else axis if i == last else i for i in range(rank))
    x = graph.input(match)
    if axis != last:
        x = graph.transpose(match, x, order, "axis_last")
    result = graph.emit(match, "softmax", [x], a.SoftmaxAttributes(last))
    return result if axis == last else graph.transpose(match, result, order, "axis_back")


def concat(match: Match, graph: Lowering) -> str:
    """Concat; inputs of another scale are requantised by the operator."""
    axis = int(match.attrs.axis) % len(match.output_shape)
    inputs = [graph.input(match, index) for index in range(len(match.inputs))]
    return graph.emit(match, "concat", inputs, a.ConcatAttributes(axis))


def reshape(match: Match, graph: Lowering) -> str:
    """Reshape, Flatten, Squeeze and Unsqueeze."""
    return _moved(match, graph, "reshape", a.ReshapeAttributes(match.output_shape))


def transpose(match: Match, graph: Lowering) -> str:
    """Transpose."""
    axes, rank = match.attrs.axes, len(match.output_shape)
    order = tuple(int(axis) % rank for axis in axes) if axes is not None else tuple(reversed(range(rank)))
    return _moved(match, graph, "transpose", a.TransposeAttributes(order))


def strided_slice(match: Match, graph: Lowering) -> str:
    """Slice, and the parts of a Split."""
    shape = match.input_shape()
    bounds = [(0, extent, 1) for extent in shape]
    axes, starts, stops, *steps = ([int(item) for item in argument.fields] for argument in match.main.args[1:])
    for index, axis in enumerate(axes):
        chosen = slice(starts[index], stops[index], steps[0][index] if steps else 1)
        bounds[axis] = chosen.indices(shape[axis])
    return _moved(match, graph, "slice", a.SliceAttributes(*zip(*bounds, strict=True)))


def pad(match: Match, graph: Lowering) -> str:
    """Pad; requantised first, so that the padding is exact in the output's codes."""
    widths = [int(width) for width in match.attrs.pad_width]
    value, dtype = float(match.attrs.pad_value), np.dtype(dtype_of(match.root))
    codes = match.output_codes
    assert codes is not None
    if match.quantized_by is not None:
        value = activation_bounds(value, value, np.float32(codes.scale), codes.zero_point, dtype)[0]
    attributes = a.PadAttributes(tuple(widths[0::2]), tuple(widths[1::2]), int(value))
    return graph.emit(match, "pad", [graph.requantize(match, graph.input(match))], attributes)


def quantize(match: Match, graph: Lowering) -> str:
    """QuantizeLinear of a float tensor."""
    return graph.emit(match, "quantize", [graph.input(match)])


def dequantize(match: Match, graph: Lowering) -> str:
    """DequantizeLinear to a float tensor."""
    return graph.emit(match, "dequantize", [graph.input(match)])


def _moved(match: Match, graph: Lowering, kind: str, attributes: Any) -> str:
    """Codes moved as they are, then requantised where the output's differ."""
    moved = graph.emit(match, kind, [graph.input(match)], attributes, codes=match.input_codes())
    return graph.requantize(match, moved)


def _on_image(match: Match, graph: Lowering, kind: str, attributes: Any, constants: Sequence[str] = ()) -> str:
    image = graph.transpose(match, graph.input(match), NHWC, "nhwc")
    return graph.transpose(match, graph.emit(match, kind, [image, *constants], attributes), NCHW, "nchw")


def _on_image_codes(match: Match, graph: Lowering, kind: str, attributes: Any) -> str:
    image = graph.transpose(match, graph.input(match), NHWC, "nhwc")
    moved = graph.emit(match, kind, [image], attributes, codes=match.input_codes())
    return graph.transpose(match, graph.requantize(match, moved), NCHW, "nchw")


def _matrix_constants(match: Match, graph: Lowering, weight: np.ndarray, weight_scale: np.ndarray) -> list[str]:
    scale = weight_scale.astype(np.float32).reshape(-1)
    return graph.constants(match, weight=weight, weight_scale=scale, bias=_bias(match, scale))


def _centred(weight: Any) -> np.ndarray:
    """int8 weights with zero point 0."""
    if not weight.zero_point.any():
        return np.asarray(weight.values.astype(np.int8, copy=False))
    return np.asarray((weight.values.astype(np.int16) - int(weight.zero_point.reshape(()))).astype(np.int8))


def _bias(match: Match, weight_scale: np.ndarray) -> np.ndarray | None:
    """int32 ``[out]`` of scale ``x_scale * weight_scale``; a float bias is rounded to it."""
    if "bias" not in match.parts:
        return None
    x_codes, operand = match.input_codes(), match.parts["bias"].args[1]
    assert x_codes is not None
    scale = np.float32(x_codes.scale) * weight_scale
    codes = constant_codes(match.program, operand)
    if codes is None:
        real = float_constant(match.program, operand)
    elif np.allclose(codes.scale, scale, rtol=_BIAS_SCALE_TOLERANCE, atol=0):
        return np.ascontiguousarray(codes.values.reshape(-1))
    else:
        real = codes.values * codes.scale.astype(np.float64)
    assert real is not None
    bounds = np.iinfo(np.int32)
    return np.clip(np.rint(real.reshape(-1).astype(np.float64) / scale), bounds.min, bounds.max).astype(np.int32)


def clip_bounds(match: Match) -> tuple[float, float]:
    """Low and high of the match's clip."""
    low, high = (float(bound.value) for bound in match.parts["clip"].args[1:3])
    return low, high


def _clamp(match: Match) -> tuple[int, int] | None:
    """The output codes that a fused Relu or Clip leaves, None where it leaves all."""
    if "relu" not in match.parts and "clip" not in match.parts:
        return None
    low, high = (0.0, float("inf")) if "relu" in match.parts else clip_bounds(match)
    codes, dtype = match.output_codes, np.dtype(dtype_of(match.root))
    assert codes is not None
    bounds = activation_bounds(low, high, np.float32(codes.scale), codes.zero_point, dtype)
    return None if bounds == integer_range(dtype) else bounds


def _pair(values: Any) -> tuple[int, int]:
    first, second = (int(value) for value in values)
    return first, second


def _pads(values: Any) -> tuple[int, int, int, int]:
    top, left, bottom, right = (int(value) for value in values)
    return top, left, bottom, right
