"""What the NPU asks of an operator. Each rule's docstring is what a user reads when the operator breaks it."""

from __future__ import annotations

import numpy as np

from tvm_ext.matching import (
    EIGHT_BIT,
    Match,
    constant_codes,
    dtype_of,
    float_constant,
    is_call,
    quantization_of_call,
)

INT32 = np.iinfo(np.int32)
_RESIZE_METHODS = ("nearest_neighbor", "linear")
_COORDINATE_MODES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def eight_bit(match: Match) -> bool:
    """Quantised tensors must be int8 or uint8."""
    quantized = [*match.inputs] if match.quantized_by is None else [*match.inputs, match.root]
    return all(dtype_of(variable) in EIGHT_BIT for variable in quantized)


def inputs_have_codes(match: Match) -> bool:
    """Every input must have one constant scale and zero point for the whole tensor, the same wherever it is read."""
    for index, part in enumerate(match.inputs):
        codes = match.input_codes(index)
        reads = [match.program.values[v] for v in (*match.inside, match.root)
                 if v in match.program.values and is_call(match.program.values[v], "relax.dequantize")
                 and match.program.values[v].args[0].same_as(part)]  # fmt: skip
        if codes is None or any(quantization_of_call(match.program, read) != codes for read in reads):
            return False
    return True


def output_has_codes(match: Match) -> bool:
    """The output must have one constant scale and zero point for the whole tensor."""
    return match.output_codes is not None


def output_is_eight_bit(match: Match) -> bool:
    """Only float32 is quantised, to int8 or uint8."""
    return dtype_of(match.root) in EIGHT_BIT and dtype_of(match.inputs[0]) == "float32"


def input_is_eight_bit(match: Match) -> bool:
    """Only int8 and uint8 are dequantised, to float32."""
    return dtype_of(match.inputs[0]) in EIGHT_BIT and dtype_of(match.root) == "float32"


def nearest_on_codes(match: Match) -> bool:
    """A linear resize must be between dequantise and quantise; on integers it would truncate."""
    return match.quantized_by is not None or match.attrs.method == "nearest_neighbor"


def one_data_type(match: Match) -> bool:
    """Inputs and output must have the same 8-bit type."""
    return len({dtype_of(variable) for variable in (*match.inputs, match.root)}) == 1


def two_dimensional(match: Match) -> bool:
    """The operator must work on images: tensors of rank 4."""
    return len(match.input_shape()) == 4


def one_dimensional(match: Match) -> bool:
    """The operator must work on signals: tensors of rank 3."""
    return len(match.input_shape()) == 3


def weight_is_symmetric(match: Match) -> bool:
    """Weights must be 8-bit constants that fit int8 once their zero point is subtracted."""
    weight = constant_codes(match.program, match.main.args[1])
    if weight is None or weight.values.dtype.name not in EIGHT_BIT:
        return False
    if not weight.zero_point.any():
        return weight.values.dtype == np.int8 or int(weight.values.max(initial=0)) <= 127
    if weight.zero_point.size > 1:
        return False
    centred = weight.values.astype(np.int16) - int(weight.zero_point.reshape(()))
    return bool(centred.min() >= -128 and centred.max() <= 127)


def weight_scale_per_output(match: Match) -> bool:
    """Weights must be quantised per tensor or along their output channels."""
    weight = constant_codes(match.program, match.main.args[1])
    assert weight is not None
    axes = {"relax.nn.conv1d": 0, "relax.nn.conv2d": 0, "relax.nn.conv2d_transpose": 1}
    axis = axes.get(match.main.op.name)
    if axis is None:
        transposed = is_call(match.program.resolve(match.main.args[1]), "relax.permute_dims")
        axis = 0 if transposed else 1
    return weight.scale.size == 1 or weight.axis == axis


def weight_is_matrix(match: Match) -> bool:
    """The second operand of a matrix product must be a constant matrix of rank 2."""
    weight = constant_codes(match.program, match.main.args[1])
    return weight is not None and weight.values.ndim == 2 and len(match.input_shape()) >= 2


def bias_is_constant(match: Match) -> bool:
    """The bias must be a constant with one value per output channel that fits 32 bits."""
    if "bias" not in match.parts:
        return True
    operand, channels = match.parts["bias"].args[1], _output_channels(match)
    codes, numbers = constant_codes(match.program, operand), float_constant(match.program, operand)
    if codes is not None:
        return codes.values.size == channels and codes.values.dtype == np.int32 and not codes.zero_point.any()
    return numbers is not None and numbers.size == channels


def _output_channels(match: Match) -> int:
    return match.output_shape[1 if match.main.op.name.startswith("relax.nn.conv") else -1]


def slope_is_constant(match: Match) -> bool:
    """The slope of PRelu must be a constant, one for all or one for each index of an axis."""
    slope = match.operands[1]
    values = constant_codes(match.program, slope) or float_constant(match.program, slope)
    return values is not None


def no_dilated_window(match: Match) -> bool:
    """Pooling windows must not be dilated."""
    return all(int(step) == 1 for step in match.attrs.dilation)


def last_window_ignores_padding(match: Match) -> bool:
    """Average pooling that counts padding must not round its output size up (ceil_mode)."""
    return not (match.attrs.ceil_mode and match.attrs.count_include_pad)


def rank_can_be_reduced(match: Match) -> bool:
    """A reduction must read a tensor of rank 4 at most and leave one axis at least."""
    return len(match.input_shape()) <= 4 and len(match.output_shape) > 0


def known_resize(match: Match) -> bool:
    """A resize must be nearest or linear, with half_pixel, pytorch_half_pixel, align_corners or asymmetric."""
    a = match.attrs
    return a.method in _RESIZE_METHODS and a.coordinate_transformation_mode in _COORDINATE_MODES


def resize_scales_are_ratios(match: Match) -> bool:
    """A resize by scales must give whole output sizes, so that the sizes' ratio is the scale."""
    scales = match.node.input[2] if len(match.node.input) > 2 else ""
    if not scales or scales not in match.program.constants or not match.program.constants[scales].size:
        return True
    ratios = np.array(match.output_shape, np.float32) / np.array(match.input_shape(), np.float32)
    return bool(np.array_equal(match.program.constants[scales].astype(np.float32), ratios))


def resizes_only_images(match: Match) -> bool:
    """A resize must leave batch and channels alone."""
    return match.input_shape()[:2] == match.output_shape[:2]


def steps_forward(match: Match) -> bool:
    """A slice must have constant bounds and positive steps."""
    return all(int(step) > 0 for step in match.main.args[4].fields) if len(match.main.args) > 4 else True


def pads_with_constant(match: Match) -> bool:
    """Padding must be constant and not negative."""
    return match.attrs.pad_mode == "constant" and all(int(width) >= 0 for width in match.attrs.pad_width)


def known_bounds(match: Match) -> bool:
    """The bounds of a clip must be constant numbers."""
    clip = match.parts.get("clip")
    return clip is None or all(hasattr(bound, "value") for bound in clip.args[1:3])
