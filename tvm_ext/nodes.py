"""The ONNX operators the NPU takes: one entry each.

An entry names the converter that makes NPU operators of a node, and the rules the node must keep. The same entry serves
every form: between DequantizeLinear and QuantizeLinear, on floats, or from one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvm_ext import convert_elementwise as elementwise
from tvm_ext import convert_matrix as matrix
from tvm_ext import convert_moves as moves
from tvm_ext import convert_reductions as reductions
from tvm_ext import kernel_plans, rules
from tvm_ext.functions import UNARY
from tvm_ext.lowering import Converter
from tvm_ext.matching import Rule

COMMON: tuple[Rule, ...] = (rules.known_types, rules.codes_are_known, rules.first_output_only)


@dataclass(frozen=True)
class Entry:
    """What becomes of an operator, and what is asked of it.

    `activated`: a Relu or Clip behind it joins in before a quantise. `on_codes`: it also moves codes that are not
    dequantised; `on_integers`: it reads 8-bit integers as the numbers they are.
    """

    converter: Converter
    rules: Sequence[Rule] = ()
    activated: bool = False
    on_codes: bool = False
    on_integers: bool = False


_WEIGHT = (rules.weight_fits_int8, rules.weight_scale_per_output, rules.bias_is_constant)
_CONVOLUTION = (rules.images_or_signals, rules.weight_is_constant, *_WEIGHT)
_PRODUCT = Entry(matrix.product, _WEIGHT, activated=True)
_INTEGERS = (rules.plain_integers, rules.zero_points_are_numbers)
_RESIZE = (
    rules.images_or_signals, rules.stretches, rules.linear_between_codes, rules.resizes_only_images,
    rules.constant_operands(1, 2, 3, names="roi, scales and sizes"),
)  # fmt: skip
_POOL = (rules.images_or_signals, rules.one_data_type)
_REDUCTION = Entry(reductions.reduce, (rules.constant_operands(1, names="axes"),))
_ARGUMENT = Entry(reductions.arg_reduce)
_LAYER_NORM = Entry(reductions.layer_norm)
_BINARY = Entry(elementwise.binary, (rules.bounds_are_constant,), activated=True)
_COMPARISON = Entry(elementwise.binary)


def _moved(converter: Converter, *kept: Rule) -> Entry:
    return Entry(converter, (rules.one_data_type, *kept), on_codes=True)


ENTRIES: Mapping[str, Entry] = {
    "Conv": Entry(matrix.conv, _CONVOLUTION, activated=True),
    "ConvTranspose": Entry(matrix.conv_transpose, _CONVOLUTION, activated=True),
    "Gemm": _PRODUCT,
    "MatMul": _PRODUCT,
    "MatMulInteger": Entry(matrix.integer_product, _INTEGERS, on_integers=True),
    "ConvInteger": Entry(matrix.integer_conv, (rules.images, rules.weight_is_constant, *_INTEGERS), on_integers=True),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum"), _BINARY),
    **dict.fromkeys(
        ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Mod", "Pow"), _COMPARISON
    ),
    "Mean": Entry(elementwise.mean_of_several),
    "PRelu": Entry(elementwise.prelu),
    "Where": Entry(elementwise.select),
    **dict.fromkeys((*UNARY, "Gelu", "IsInf"), Entry(elementwise.unary)),
    "Clip": Entry(elementwise.unary, (rules.bounds_are_constant,)),
    "Cast": Entry(elementwise.cast, (rules.plain_integers,), on_integers=True),
    "MaxPool": Entry(reductions.pool, _POOL, on_codes=True),
    "AveragePool": Entry(reductions.pool, _POOL),
    "LpPool": Entry(reductions.pool, (*_POOL, rules.norm_is_known)),
    "GlobalAveragePool": Entry(reductions.global_average_pool, (rules.one_data_type,)),
    "GlobalMaxPool": Entry(reductions.reduce),
    **dict.fromkeys((f"Reduce{name}" for name in reductions.REDUCTIONS), _REDUCTION),
    "ArgMax": _ARGUMENT,
    "ArgMin": _ARGUMENT,
    **dict.fromkeys(("Softmax", "LogSoftmax"), Entry(reductions.softmax)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), _LAYER_NORM),
    "InstanceNormalization": Entry(reductions.instance_norm),
    "GroupNormalization": Entry(reductions.group_norm),
    "MeanVarianceNormalization": Entry(reductions.mean_variance_norm),
    "LpNormalization": Entry(reductions.lp_norm),
    "LRN": Entry(reductions.lrn, (rules.images,)),
    **dict.fromkeys(
        ("Reshape", "Flatten", "Squeeze", "Unsqueeze"),
        _moved(moves.reshape, rules.constant_operands(1, names="shape or axes")),
    ),
    "Transpose": _moved(moves.transpose),
    "Slice": _moved(moves.slice_, rules.constant_operands(1, 2, 3, 4, names="bounds")),
    "Pad": _moved(moves.pad, rules.constant_operands(1, 2, 3, names="widths and value")),
    "Expand": _moved(moves.expand, rules.constant_operands(1, names="shape")),
    "Tile": _moved(moves.tile, rules.constant_operands(1, names="repeats")),
    "Gather": _moved(moves.gather),
    "DepthToSpace": _moved(moves.depth_to_space, rules.images),
    "SpaceToDepth": _moved(moves.space_to_depth, rules.images),
    "Resize": Entry(moves.resize, (rules.one_data_type, *_RESIZE), on_codes=True),
    "Concat": _moved(moves.concat),
}

IDENTITY = Entry(elementwise.identity, (rules.one_data_type,))
CHAIN = Entry(elementwise.chain, (rules.one_data_type,))
QUANTIZE = Entry(elementwise.quantize)
DEQUANTIZE = Entry(elementwise.dequantize)
KERNEL = Entry(kernel_plans.convert)
