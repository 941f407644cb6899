"""From matches to convolutions and products: Conv, ConvTranspose, Gemm, MatMul and their integer forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from npu_backend.ops import attributes as a
from npu_backend.ops.numerics_conv import activation_bounds
from npu_backend.ops.numerics_core import integer_range, to_half
from tvm_ext.functions import clip_bounds
from tvm_ext.lowering import ElementType, Lowering
from tvm_ext.matching import PLAIN, Match, constant_codes, dtype_of, values_of

# A bias scale that differs less from x_scale * weight_scale is a rounding of it, which ONNX Runtime ignores.
_BIAS_SCALE_TOLERANCE = 1e-4
_SUMS = ElementType("int32")
# The difference of two 8-bit integers.
_CENTRED = ElementType("int16", PLAIN)


@dataclass(frozen=True)
class Weight:
    """A constant factor: int8 values with float32 scales ``[1 or outputs]``, or floats without."""

    values: np.ndarray
    scale: np.ndarray | None = None

    @staticmethod
    def of(match: Match) -> Weight:
        """The second operand of a match whose first is codes (then the weight's codes are kept) or floats."""
        operand, x = match.operand(1), match.operand(0)
        assert operand is not None
        assert x is not None
        codes = constant_codes(operand) if x.dequantize is not None else None
        if codes is None:
            return Weight(values_of(operand).astype(np.float32))
        values = codes.values
        if codes.zero_point.any() or values.dtype != np.int8:
            values = (values.astype(np.int16) - int(codes.zero_point.max())).astype(np.int8)
        return Weight(np.asarray(values), codes.scale.astype(np.float32).reshape(-1))

    def shaped(self, shape: Sequence[int]) -> Weight:
        """The same values under another shape."""
        return replace(self, values=self.values.reshape(shape))

    def transposed(self) -> Weight:
        """Rows and columns exchanged."""
        return replace(self, values=np.ascontiguousarray(self.values.T))

    def times(self, factor: float) -> Weight:
        """Multiplied by a number."""
        if self.scale is None:
            return Weight(self.values * np.float32(factor))
        return Weight(self.values, self.scale * np.float32(factor))


def conv(match: Match, graph: Lowering) -> str:
    """Conv over two axes, or over one as an image of one row."""
    weight = Weight.of(match)
    if len(match.shape()) == 3:
        weight = weight.shaped((*weight.values.shape[:2], 1, weight.values.shape[2]))
    return _on_images(match, graph, "conv2d", _conv_attributes(match), weight)


def _conv_attributes(match: Match) -> a.ConvAttributes:
    return a.ConvAttributes(
        _along(match, "strides", 1), _pads(match), _along(match, "dilations", 1), match.attribute("group", 1),
        clamp(match),
    )  # fmt: skip


def conv_transpose(match: Match, graph: Lowering) -> str:
    """ConvTranspose over two axes, or over one as an image of one row."""
    rank, weight, groups = len(match.shape()), Weight.of(match), match.attribute("group", 1)
    attributes = a.ConvTransposeAttributes(
        _along(match, "strides", 1), _transposed_pads(match), _along(match, "dilations", 1),
        _along(match, "output_padding", 0), groups, clamp(match),
    )  # fmt: skip
    if weight.scale is not None and weight.scale.size > 1:
        # Per channel, the scale runs over one group's outputs.
        weight = replace(weight, scale=np.tile(weight.scale, groups))
    if rank == 3:
        weight = weight.shaped((*weight.values.shape[:2], 1, weight.values.shape[2]))
    return _on_images(match, graph, "conv_transpose2d", attributes, weight)


def _on_images(match: Match, graph: Lowering, kind: str, attributes: object, weight: Weight) -> str:
    constants = _constants(match, graph, weight)
    source = _activation(match, graph, weight)
    if len(match.shape()) == 4:
        return graph.on_image(match, kind, attributes, constants, source=source)
    batch, channels, length = match.shape()
    rows = graph.transpose(match, source, (0, 2, 1), "nlc")
    image = graph.reshape(match, rows, (batch, 1, length, channels), "image")
    _, outputs, positions = match.output_shape
    result = graph.emit(match, kind, [image, *constants], attributes)
    flat = graph.reshape(match, result, (batch, positions, outputs), "flat")
    return graph.transpose(match, flat, (0, 2, 1), "ncl")


def _activation(match: Match, graph: Lowering, weight: Weight) -> str:
    """The first operand in the form that goes with the weight."""
    return graph.read_half(match) if weight.scale is None else graph.read(match)


def product(match: Match, graph: Lowering) -> str:
    """Gemm and MatMul: with a constant matrix, or of two computed tensors."""
    return _dense(match, graph) if is_dense(match) else _of_two(match, graph)


def is_dense(match: Match) -> bool:
    """Whether the product is one of rows with a constant matrix, and what is added fits its columns."""
    x, matrix, added = (match.operand(index) for index in range(3))
    if x is None or matrix is None or not x.is_computed or matrix.is_computed:
        return False
    rows = len(x.shape) >= 2 and len(matrix.shape) == 2 and not match.attribute("transA", 0)
    return rows and (added is None or (not added.is_computed and values_of(added).size in (1, match.output_shape[-1])))


def _dense(match: Match, graph: Lowering) -> str:
    weight = Weight.of(match).times(match.attribute("alpha", 1.0))
    if match.attribute("transB", 0):
        weight = weight.transposed()
    constants = _constants(match, graph, weight)
    return graph.emit(match, "dense", [_activation(match, graph, weight), *constants], a.DenseAttributes(clamp(match)))


def _of_two(match: Match, graph: Lowering) -> str:
    rank, alpha = max(len(match.shape(0)), len(match.shape(1)), 2), match.attribute("alpha", 1.0)
    factors = [_factor(match, graph, index, rank) for index in range(2)]
    attributes = a.MatMulAttributes(bool(match.attribute("transA", 0)), bool(match.attribute("transB", 0)))
    if alpha == 1.0 and match.operand(2) is None:
        result = graph.emit(match, "matmul", factors, attributes)
        return graph.reshape(match, result, match.output_shape, "flat")
    result = graph.emit(match, "matmul", factors, attributes, label="product", type=graph.inner_type(match))
    if alpha != 1.0:
        number = graph.number(match, alpha, 2, "alpha")
        last = {"label": "alpha", "type": graph.inner_type(match)} if match.operand(2) is not None else {}
        result = graph.emit(match, "binary", [result, number], a.BinaryAttributes("multiply"), **last)  # type: ignore[arg-type]
    if match.operand(2) is None:
        return result
    return graph.emit(match, "binary", [result, _addend(match, graph)], a.BinaryAttributes("add"))


def _addend(match: Match, graph: Lowering) -> str:
    added, beta = graph.read_aligned(match, 2), match.attribute("beta", 1.0)
    if beta == 1.0:
        return added
    number = graph.number(match, beta, 2, "beta")
    return graph.emit(
        match, "binary", [added, number], a.BinaryAttributes("multiply"), label="beta", type=graph.inner_type(match)
    )


def _factor(match: Match, graph: Lowering, index: int, rank: int) -> str:
    """An operand with leading axes of 1 up to `rank`; a vector is a row on the left, a column on the right."""
    shape = match.shape(index)
    if len(shape) == 1:
        shape = (1, *shape) if index == 0 else (*shape, 1)
    coded = all(each is not None and each.dequantize is not None for each in match.operands[:2])
    source = graph.read(match, index) if coded else graph.read_half(match, index)
    return graph.reshape(match, source, (1,) * (rank - len(shape)) + shape, f"factor{index}")


def integer_product(match: Match, graph: Lowering) -> str:
    """MatMulInteger: plain sums, after the zero points are taken off."""
    rank, b = max(len(match.shape(0)), len(match.shape(1)), 2), match.operand(1)
    assert b is not None
    left = _centred(match, graph, 0)
    if not b.is_computed and len(b.shape) == 2 and len(match.shape()) >= 2:
        constants = graph.constants(match, weight=_integer_weight(match), weight_scale=np.ones(1, np.float32))
        return graph.emit(match, "dense", [left, *constants], a.DenseAttributes(), type=_SUMS)
    shapes = [(1,) * (rank - len(shape)) + shape for shape in (match.shape(0), match.shape(1))]
    right = _centred(match, graph, 1)
    factors = [graph.reshape(match, *pair, "factor") for pair in zip((left, right), shapes, strict=True)]
    return graph.emit(match, "matmul", factors, a.MatMulAttributes(), type=_SUMS)


def integer_conv(match: Match, graph: Lowering) -> str:
    """ConvInteger: plain sums, after the zero points are taken off."""
    constants = graph.constants(match, weight=_integer_weight(match), weight_scale=np.ones(1, np.float32))
    return graph.on_image(match, "conv2d", _conv_attributes(match), constants, source=_centred(match, graph, 0),
                          type=_SUMS)  # fmt: skip


def _centred(match: Match, graph: Lowering, index: int) -> str:
    """An 8-bit operand less its zero point, exact in 16 bits."""
    source, zero_point = graph.read(match, index), match.operand(index + 2)
    if zero_point is None:
        return source
    shape = (1,) * len(match.shape(index))
    number = graph.reshape(match, graph.read(match, index + 2), shape, f"zero_point{index}")
    return graph.emit(match, "binary", [source, number], a.BinaryAttributes("subtract"), label=f"centred{index}",
                      type=_CENTRED)  # fmt: skip


def _integer_weight(match: Match) -> np.ndarray:
    """int8 weights with zero point 0."""
    values, zero_point = match.array(1), match.array(3)
    assert values is not None
    shift = 0 if zero_point is None else int(zero_point.reshape(-1)[0])
    return (values.astype(np.int16) - shift).astype(np.int8)


def _constants(match: Match, graph: Lowering, weight: Weight) -> list[str]:
    if weight.scale is None:
        return graph.constants(match, weight=to_half(weight.values), bias=_float_bias(match))
    return graph.constants(
        match, weight=weight.values, weight_scale=weight.scale, bias=_integer_bias(match, weight.scale)
    )


def _float_bias(match: Match) -> np.ndarray | None:
    values = match.array(2)
    if values is None:
        return None
    real = values.astype(np.float32).reshape(-1) * np.float32(match.attribute("beta", 1.0))
    return np.broadcast_to(real, (_outputs(match),)).copy()


def _integer_bias(match: Match, weight_scale: np.ndarray) -> np.ndarray | None:
    """int32 ``[out]`` of scale ``x_scale * weight_scale``; a float bias is rounded to it."""
    operand, x_codes, beta = match.operand(2), match.input_codes(), match.attribute("beta", 1.0)
    if operand is None:
        return None
    assert x_codes is not None
    scale = np.float32(x_codes.scale) * weight_scale
    codes = constant_codes(operand)
    if codes is not None and beta == 1.0 and np.allclose(codes.scale, scale, rtol=_BIAS_SCALE_TOLERANCE, atol=0):
        return np.ascontiguousarray(codes.values.reshape(-1))
    real = values_of(operand) if codes is None else codes.values * codes.scale.astype(np.float64)
    bounds = np.iinfo(np.int32)
    whole = np.rint(real.reshape(-1).astype(np.float64) * beta / scale)
    return np.broadcast_to(np.clip(whole, bounds.min, bounds.max).astype(np.int32), (_outputs(match),)).copy()


def _outputs(match: Match) -> int:
    return match.output_shape[1 if match.node.op_type.startswith("Conv") else -1]


def clamp(match: Match) -> tuple[int, int] | None:
    """The output codes that a fused Relu or Clip leaves, None where it leaves all."""
    if match.activation is None:
        return None
    bounds_of_clip = clip_bounds(match.program, match.activation)
    assert bounds_of_clip is not None, match.node.name
    low, high = bounds_of_clip
    codes, dtype = match.output_codes, np.dtype(dtype_of(match.root))
    assert codes is not None
    bounds = activation_bounds(low, high, np.float32(codes.scale), codes.zero_point, dtype)
    return None if bounds == integer_range(dtype) else bounds


def _along(match: Match, name: str, default: int) -> tuple[int, int]:
    """An attribute of two numbers, rows and columns; of one axis the columns'."""
    rank = len(match.shape()) - 2
    values = match.attribute(name) or [default] * rank
    first, second = ([default] * (2 - rank)) + [int(value) for value in values]
    return first, second


def _pads(match: Match) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    rank = len(match.shape()) - 2
    values = match.attribute("pads") or [0] * 2 * rank
    if rank == 1:
        return 0, int(values[0]), 0, int(values[1])
    top, left, bottom, right = (int(value) for value in values)
    return top, left, bottom, right


def _transposed_pads(match: Match) -> tuple[int, int, int, int]:
    """Of a ConvTranspose: as given, or what leads to the output's extents where the node names those instead."""
    if not match.attribute("output_shape") and not str(match.attribute("auto_pad", "")).startswith("SAME"):
        return _pads(match)
    rank = len(match.shape()) - 2
    weight = match.operand(1)
    assert weight is not None
    kernel = (*[1] * (2 - rank), *weight.shape[2:])
    before, after = [0] * (2 - rank), [0] * (2 - rank)
    for axis in range(rank):
        at = 2 - rank + axis
        stride, dilation, extra = (_along(match, name, default)[at] for name, default in (
            ("strides", 1), ("dilations", 1), ("output_padding", 0)))  # fmt: skip
        full = stride * (match.shape()[2 + axis] - 1) + (kernel[at] - 1) * dilation + 1 + extra
        total = max(full - match.output_shape[2 + axis], 0)
        upper = match.attribute("auto_pad", "") == "SAME_UPPER"
        before.append(total // 2 if upper else total - total // 2)
        after.append(total - before[-1])
    return before[0], before[1], after[0], after[1]
