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
from tvm_ext import rules
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
_RESIZE = (
    rules.images, rules.known_resize, rules.linear_between_codes, rules.resizes_only_images,
    rules.resize_scales_are_ratios, rules.constant_operands(1, 2, 3, names="roi, scales and sizes"),
)  # fmt: skip
_POOL = (rules.images_or_signals, rules.one_data_type, rules.window_is_dense)
_AXES = rules.constant_operands(1, names="axes")
_REDUCTION = (rules.rank_can_be_reduced, rules.one_data_type, _AXES)
_BINARY = Entry(elementwise.binary, (rules.one_data_type, rules.bounds_are_constant), activated=True)
_UNARY = Entry(elementwise.unary, (rules.one_data_type,))


def _moved(converter: Converter, *kept: Rule) -> Entry:
    return Entry(converter, (rules.one_data_type, *kept), on_codes=True)


ENTRIES: Mapping[str, Entry] = {
    "Conv": Entry(matrix.conv, _CONVOLUTION, activated=True),
    "ConvTranspose": Entry(matrix.conv_transpose, _CONVOLUTION, activated=True),
    "Gemm": Entry(matrix.product, (rules.factor_is_constant, *_WEIGHT), activated=True),
    "MatMul": Entry(matrix.product, (rules.factor_is_constant, *_WEIGHT), activated=True),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min"), _BINARY),
    "PRelu": Entry(elementwise.prelu, (rules.one_data_type, rules.constant_operands(1, names="slope"))),
    **dict.fromkeys((*UNARY, "Gelu"), _UNARY),
    "Clip": Entry(elementwise.unary, (rules.one_data_type, rules.bounds_are_constant)),
    "MaxPool": Entry(reductions.pool, _POOL, on_codes=True),
    "AveragePool": Entry(reductions.pool, (*_POOL, rules.window_ends_in_padding)),
    "GlobalAveragePool": Entry(reductions.global_average_pool, (rules.images, rules.one_data_type)),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin"), Entry(reductions.reduce, _REDUCTION)),
    "GlobalMaxPool": Entry(reductions.reduce, (rules.rank_can_be_reduced, rules.one_data_type)),
    "Softmax": Entry(reductions.softmax, (rules.one_data_type,)),
    **dict.fromkeys(
        ("Reshape", "Flatten", "Squeeze", "Unsqueeze"),
        _moved(moves.reshape, rules.constant_operands(1, names="shape or axes")),
    ),
    "Transpose": _moved(moves.transpose),
    "Slice": _moved(moves.slice_, rules.constant_operands(1, 2, 3, 4, names="bounds"), rules.steps_forward),
    "Pad": _moved(moves.pad, rules.constant_operands(1, 2, 3, names="widths and value"), rules.pads_are_positive),
    "Resize": Entry(moves.resize, (rules.one_data_type, *_RESIZE), on_codes=True),
    "Concat": _moved(moves.concat),
}

IDENTITY = Entry(elementwise.identity, (rules.one_data_type,))
CHAIN = Entry(elementwise.chain, (rules.one_data_type,))
QUANTIZE = Entry(elementwise.quantize)
DEQUANTIZE = Entry(elementwise.dequantize)
