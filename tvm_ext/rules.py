"""What the NPU asks of an operator. Each rule's docstring is what a user reads when the operator breaks it."""

from __future__ import annotations

from math import prod

import numpy as np

from npu_backend.graph import CODES, FLOATS, NUMBERS
from tvm_ext.convert_matrix import is_dense
from tvm_ext.functions import clip_bounds
from tvm_ext.matching import PLAIN, Match, Rule, constant_codes, dtype_of, quantization_of_call
from tvm_ext.values import Variable

EIGHT_BIT = ("int8", "uint8")


def known_types(match: Match) -> bool:
    """Tensors must be of 8-bit or 16-bit codes, float16, float32, int32, int64 or bool."""
    return all(dtype_of(variable) in (*CODES, *FLOATS, *NUMBERS) for variable in (*match.inputs, match.root))


def codes_are_known(match: Match) -> bool:
    """Quantised tensors must have one constant scale and zero point each, the same wherever they are read."""
    for index, operand in enumerate(match.operands):
        if operand is None or not operand.is_computed or operand.dequantize is None:
            continue
        read = quantization_of_call(operand.dequantize)
        if read is None or read != match.input_codes(index):
            return False
    return not match.is_quantized or match.output_codes is not None


def norm_is_known(match: Match) -> bool:
    """The norm of LpPool must be 1 or 2."""
    return match.attribute("p", 2) in (1, 2)


def first_output_only(match: Match) -> bool:
    """Only the first output of the operator may be used."""
    program = match.program
    others = [program.named.get(name) for name in match.node.output[1:]]
    return not any(value in program.outputs or program.readers.get(value) for value in others
                   if isinstance(value, Variable))  # fmt: skip


def one_data_type(match: Match) -> bool:
    """Inputs and output must have the same type where they are codes."""
    return len({dtype_of(variable) for variable in (*match.inputs, match.root)} & set(CODES)) <= 1


def images_or_signals(match: Match) -> bool:
    """The operator must work on images or signals: tensors of rank 4 or 3."""
    return len(match.shape()) in (3, 4)


def images(match: Match) -> bool:
    """The operator must work on images: tensors of rank 4."""
    return len(match.shape()) == 4


def weight_is_constant(match: Match) -> bool:
    """The weights of a convolution must be constants."""
    operand = match.operand(1)
    return operand is not None and not operand.is_computed


def weight_fits_int8(match: Match) -> bool:
    """Quantised weights must be 8-bit constants that fit int8 without their zero point."""
    x, codes = match.operand(0), constant_codes(match.operand(1))
    if x is None or x.dequantize is None or codes is None:
        return True
    if codes.values.dtype.name not in EIGHT_BIT:
        return False
    if not codes.zero_point.any():
        return codes.values.dtype == np.int8 or int(codes.values.max(initial=0)) <= 127
    if np.unique(codes.zero_point).size > 1:
        return False
    centred = codes.values.astype(np.int16) - int(codes.zero_point.max())
    return bool(centred.min() >= -128 and centred.max() <= 127)


def weight_scale_per_output(match: Match) -> bool:
    """Quantised weights must have their scales per tensor or along their output channels."""
    codes = constant_codes(match.operand(1))
    if codes is None or codes.scale.size == 1 or len(codes.values.shape) < 2:
        return True
    axes = {"Conv": 0, "ConvTranspose": 1}
    transposed = match.attribute("transB", 0)
    return codes.axis == axes.get(match.node.op_type, 0 if transposed else codes.values.ndim - 1)


def bias_is_constant(match: Match) -> bool:
    """The bias must be a constant with one value per output channel that fits 32 bits."""
    operand = match.operand(2)
    if operand is None or (not match.node.op_type.startswith("Conv") and not is_dense(match)):
        return True
    if operand.is_computed:
        return False
    codes = constant_codes(operand)
    return codes is None or (codes.values.dtype == np.int32 and not codes.zero_point.any())


def plain_integers(match: Match) -> bool:
    """Integers that are read as numbers must not be codes of a quantised tensor."""
    codes = (match.input_codes(index) for index, _ in enumerate(match.operands))
    return all(each is None or each == PLAIN for each in codes)


def zero_points_are_numbers(match: Match) -> bool:
    """Zero points must be single numbers, that of constant weights constant and such that these fit int8."""
    zero_points = [match.operand(index) for index in (2, 3)]
    if any(each is not None and prod(each.shape) != 1 for each in zero_points):
        return False
    weight = match.array(1)
    if weight is None:
        return True
    shift = match.array(3)
    if shift is None and zero_points[1] is not None:
        return False
    centred = weight.astype(np.int16) - (0 if shift is None else int(shift.reshape(-1)[0]))
    return bool(centred.min(initial=0) >= -128 and centred.max(initial=0) <= 127)


def stretches(match: Match) -> bool:
    """A resize must stretch to its sizes: keep_aspect_ratio_policy must be stretch."""
    return bool(match.attribute("keep_aspect_ratio_policy", "stretch") == "stretch")


def linear_between_codes(match: Match) -> bool:
    """A resize other than nearest must be between dequantise and quantise; on integers it would truncate."""
    x = match.operand(0)
    return x is not None and (
        x.dtype in FLOATS or x.dequantize is not None or match.attribute("mode", "nearest") == "nearest"
    )


def resizes_only_images(match: Match) -> bool:
    """A resize must leave batch and channels alone."""
    return match.shape()[:2] == match.output_shape[:2]


def bounds_are_constant(match: Match) -> bool:
    """The bounds of a clip must be constant numbers."""
    clipping = match.node if match.node.op_type == "Clip" else match.activation
    return clipping is None or clip_bounds(match.program, clipping) is not None


def constant_operands(*indices: int, names: str) -> Rule:
    """A rule that some operands, if there, are constants; `names` is what a user calls them."""

    def rule(match: Match) -> bool:
        operands = (match.operand(index) for index in indices)
        return not any(operand is not None and operand.is_computed for operand in operands)

    rule.__doc__ = f"Its {names} must be constant."
    return rule
