"""Convolutions, transposed convolutions and products with a constant matrix: their cases, and what they are in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from npu_backend.graph import Graph, Op
from npu_backend.ops.attributes import ConvAttributes, ConvTransposeAttributes, DenseAttributes
from tests.ops.case import INPUT_CODES, OUTPUT_CODE, Arrays, Case, Shape, in_forms
from tests.ops.onnx_reference import Graph as OnnxGraph

Constants = Callable[[np.random.Generator], Arrays]


def code_constants(
    shape: Shape, summed: int, outputs: int, *, per_channel: bool = True, bias: bool = True
) -> Constants:
    """Weight, scales and bias such that most outputs stay off the ends of the range."""

    def draw_constants(rng: np.random.Generator) -> Arrays:
        # Codes and weights each spread by about 73; a spread of 45 output codes is wanted.
        scale = 45 * OUTPUT_CODE[0] / INPUT_CODES[0][0] / (73 * 73 * summed**0.5)
        scales = (scale * rng.uniform(0.5, 1.5, outputs if per_channel else 1)).astype(np.float32)
        weight = rng.integers(-127, 128, shape).astype(np.int8)
        biases = rng.integers(-2000, 2000, outputs).astype(np.int32)
        return (weight, scales, biases) if bias else (weight, scales)

    return draw_constants


def float_constants(constants: Constants) -> Constants:
    """The same weight and bias as float16 and float32."""

    def draw_constants(rng: np.random.Generator) -> Arrays:
        weight, _, *biases = constants(rng)
        spread = 45 * OUTPUT_CODE[0] / 73 / (3 * prod(weight.shape) / max(weight.shape)) ** 0.5
        real = (weight / 73 * spread).astype(np.float16)
        return (real, *(bias.astype(np.float32) / 1000 for bias in biases))

    return draw_constants


def conv(label: str, shape: Shape, outputs: int, kernel: tuple[int, int], *, spm_bytes: int = 4096,
         per_channel: bool = True, bias: bool = True, **attributes: Any) -> Case:  # fmt: skip
    inputs = shape[3] // attributes.get("groups", 1)
    constants = code_constants(
        (outputs, inputs, *kernel), inputs * prod(kernel), outputs, per_channel=per_channel, bias=bias
    )
    return Case("conv2d", label, (shape,), ConvAttributes(**attributes), constants, spm_bytes=spm_bytes)


def conv_transpose(label: str, shape: Shape, outputs: int, kernel: tuple[int, int], *, spm_bytes: int = 8192,
                   per_channel: bool = True, bias: bool = True, **attributes: Any) -> Case:  # fmt: skip
    groups, strides = attributes.get("groups", 1), attributes.get("strides", (1, 1))
    summed = shape[3] // groups * prod(kernel) // prod(strides) + 1
    constants = code_constants(
        (shape[3], outputs // groups, *kernel), summed, outputs, per_channel=per_channel, bias=bias
    )
    return Case(
        "conv_transpose2d", label, (shape,), ConvTransposeAttributes(**attributes), constants, spm_bytes=spm_bytes
    )


def dense(label: str, shape: Shape, outputs: int, *, bias: bool = True, per_channel: bool = True,
          clamp: tuple[int, int] | None = None) -> Case:  # fmt: skip
    constants = code_constants((shape[-1], outputs), shape[-1], outputs, per_channel=per_channel, bias=bias)
    return Case("dense", label, (shape,), DenseAttributes(clamp), constants, spm_bytes=4096)


_CONVOLUTIONS = (
    conv("3x3", (1, 13, 11, 19), 37, (3, 3), pads=(1, 1, 1, 1), spm_bytes=8192),
    conv("1x1", (1, 7, 9, 35), 50, (1, 1), bias=False, per_channel=False),
    conv("batch", (2, 9, 8, 16), 32, (3, 3), pads=(1, 1, 1, 1), strides=(2, 2), spm_bytes=8192),
    conv("stride3", (1, 17, 19, 5), 16, (3, 2), strides=(3, 3), pads=(0, 1, 2, 0), spm_bytes=2048),
    conv("5x1", (1, 11, 6, 8), 24, (5, 1), pads=(2, 0, 2, 0), strides=(1, 2), spm_bytes=2048),
    conv("dilated", (1, 15, 14, 12), 20, (3, 3), dilations=(3, 2), pads=(3, 2, 3, 2), spm_bytes=8192),
    conv("stem", (1, 23, 21, 3), 32, (3, 3), strides=(2, 2), pads=(0, 0, 1, 1), spm_bytes=2048),
    conv("clamp", (1, 14, 13, 16), 17, (3, 3), pads=(1, 1, 1, 1), clamp=(100, 180), spm_bytes=8192),
    conv("far-padding", (1, 3, 4, 6), 16, (3, 3), pads=(4, 3, 5, 4), spm_bytes=2048),
    conv("deep", (1, 3, 5, 330), 48, (3, 3), pads=(1, 1, 1, 1), spm_bytes=32768),
    conv("pixel", (1, 1, 1, 131), 70, (1, 1)),
    conv("groups", (1, 9, 7, 24), 36, (3, 3), pads=(1, 1, 1, 1), groups=3),
    conv("groups-blocks", (1, 7, 6, 12), 64, (3, 2), pads=(1, 0, 1, 1), groups=2, spm_bytes=2048),
    conv("groups-odd", (2, 6, 5, 15), 10, (2, 2), groups=5, strides=(2, 1), per_channel=False, spm_bytes=2048),
    conv("depthwise", (1, 13, 10, 37), 37, (3, 3), pads=(1, 1, 1, 1), groups=37, spm_bytes=2048),
    conv("depthwise-stride", (2, 11, 12, 33), 33, (5, 5), pads=(2, 1, 2, 2), strides=(2, 2), groups=33, bias=False),
    conv(
        "depthwise-dilated", (1, 14, 13, 16), 16, (3, 3), pads=(2, 2, 2, 2), dilations=(2, 2), groups=16, spm_bytes=2048
    ),
    conv("multiplier", (1, 8, 7, 8), 16, (3, 3), pads=(1, 1, 1, 1), groups=8, spm_bytes=2048),
)

_TRANSPOSED = (
    conv_transpose("2x2", (1, 7, 5, 24), 19, (2, 2), strides=(2, 2)),
    conv_transpose("3x3", (1, 6, 7, 10), 33, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 1)),
    conv_transpose("4x4", (2, 5, 4, 8), 16, (4, 4), strides=(2, 2), pads=(1, 1, 1, 1), bias=False, spm_bytes=4096),
    conv_transpose("kernel<stride", (1, 5, 6, 6), 16, (2, 1), strides=(3, 3), per_channel=False, spm_bytes=4096),
    conv_transpose("stride1", (1, 16, 11, 17), 20, (3, 2), pads=(0, 1, 2, 0)),
    conv_transpose(
        "stride3", (1, 4, 5, 5), 16, (5, 4), strides=(3, 2), pads=(2, 0, 1, 1), clamp=(90, 150), spm_bytes=4096
    ),
    conv_transpose("dilated", (1, 5, 6, 7), 18, (3, 2), strides=(2, 3), dilations=(3, 2), pads=(2, 1, 1, 0)),
    conv_transpose("dilated-even", (1, 9, 11, 9), 16, (3, 3), strides=(2, 2), dilations=(2, 2), pads=(1, 2, 1, 2)),
    conv_transpose("groups", (1, 9, 8, 12), 20, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), groups=2),
    conv_transpose("groups-blocks", (1, 5, 4, 8), 64, (3, 3), strides=(2, 2), groups=2, spm_bytes=4096),
    conv_transpose(
        "groups-odd", (2, 3, 5, 6), 9, (2, 3), strides=(1, 2), dilations=(2, 1), groups=3, per_channel=False
    ),
    conv_transpose("depthwise", (1, 6, 5, 37), 37, (4, 4), strides=(2, 2), pads=(1, 1, 1, 1), groups=37),
)

_PRODUCTS = (
    dense("rank2", (1, 131), 77),
    dense("rows", (13, 64), 40, bias=False),
    dense("rank3", (2, 7, 33), 35, per_channel=False),
    dense("long", (1, 700), 33, clamp=(60, 200)),
    dense("narrow", (350, 9), 3),
)

# As it lies, with the axes of the graph's input stored in another order.
_TURNED = replace(_CONVOLUTIONS[0], label="3x3-turned", channels_last=False)
MATRIX = (*_CONVOLUTIONS, *_TRANSPOSED, *_PRODUCTS, _TURNED)


def in_matrix_forms(cases: Sequence[Case]) -> Iterator[Case]:
    """Every case in every form, with float constants where it is one of floats."""
    for case in in_forms(cases):
        if np.dtype(case.dtype).itemsize == 2:
            case = replace(case, spm_bytes=case.spm_bytes * 3 // 2)
        yield replace(case, constants=float_constants(case.constants)) if case.dtype == "float16" else case


def to_types(cases: Iterator[Case], outputs: Sequence[str]) -> Iterator[Case]:
    """Every case with outputs of other data types, where its kind can make them."""
    for case in cases:
        for output in outputs:
            # ONNX has plain sums of 8-bit codes only, and none of a transposed convolution.
            has_sums = case.dtype in ("uint8", "int8") and case.kind != "conv_transpose2d"
            if output != case.dtype and (output != "int32" or has_sums):
                clamp = None if output not in ("uint8", "int8") else case.attributes.clamp
                yield replace(case, label=f"{case.label}-{output}", output_dtype=output,
                              attributes=replace(case.attributes, clamp=clamp))  # fmt: skip


_MIXED = tuple(
    case for case in MATRIX
    if (case.kind, case.label) in {("conv2d", "3x3"), ("conv2d", "deep"), ("conv2d", "depthwise"), ("conv2d", "groups"),
                                   ("conv_transpose2d", "3x3"), ("dense", "rank3")}
)  # fmt: skip

CASES = (*in_matrix_forms(MATRIX), *to_types(in_matrix_forms(_MIXED), ("uint8", "float16", "float32", "int32")))


def emit_matrix(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    x, output = graph.tensor(op.inputs[0]), graph.tensor(op.output)
    if x.quantization is None:
        values = (graph.constants[name].astype(np.float32) for name in op.inputs[1:])
        return _emit(onnx, op, [names[0], *map(onnx.constant, values)], len(output.shape))
    if output.dtype == "int32":
        return _emit_integer(onnx, graph, op, names[0])
    weight, scales, *bias = (graph.constants[name] for name in op.inputs[1:])
    axis = {"conv2d": 0, "conv_transpose2d": 1, "dense": 1}[op.kind]
    per_group = op.kind == "conv_transpose2d" and op.attributes.groups > 1 and len(scales) > 1
    inputs = [names[0], _spread(onnx, weight, scales, op.attributes.groups) if per_group
              else _coefficients(onnx, weight, scales, axis)]  # fmt: skip
    if bias:
        inputs.append(_coefficients(onnx, bias[0], np.float32(x.quantization.scale) * scales, 0))
    return _emit(onnx, op, inputs, len(output.shape))


def _emit(onnx: OnnxGraph, op: Op, inputs: Sequence[str], rank: int) -> str:
    if op.kind == "dense":
        gemm = rank == 2 and len(inputs) > 2
        value = onnx.op("Gemm", *inputs) if gemm else onnx.op("MatMul", *inputs[:2])
        return value if gemm or len(inputs) == 2 else onnx.op("Add", value, inputs[2])
    a = op.attributes
    more = {} if op.kind == "conv2d" else {"output_padding": a.output_padding}
    kind = "Conv" if op.kind == "conv2d" else "ConvTranspose"
    return onnx.op(kind, *inputs, strides=a.strides, pads=a.pads, dilations=a.dilations, group=a.groups, **more)


def _emit_integer(onnx: OnnxGraph, graph: Graph, op: Op, name: str) -> str:
    """ConvInteger or MatMulInteger, which take uint8, and the bias added."""
    code, (weight, _, *bias) = graph.tensor(op.inputs[0]).quantization, (graph.constants[n] for n in op.inputs[1:])
    assert code is not None
    zero_point = code.zero_point + (128 if graph.tensor(op.inputs[0]).dtype == "int8" else 0)
    codes = onnx.quantize(name, (np.float32(code.scale), zero_point), np.uint8)
    inputs = (codes, onnx.constant(weight), onnx.constant(zero_point, np.uint8))
    a = op.attributes
    value = onnx.op("MatMulInteger", *inputs) if op.kind == "dense" else onnx.op(
        "ConvInteger", *inputs, strides=a.strides, pads=a.pads, dilations=a.dilations, group=a.groups
    )  # fmt: skip
    shape = (-1,) if op.kind == "dense" else (-1, 1, 1)
    return onnx.op("Add", value, onnx.constant(bias[0].reshape(shape))) if bias else value


def _coefficients(onnx: OnnxGraph, value: np.ndarray, scales: np.ndarray, axis: int) -> str:
    if len(scales) == 1:
        return onnx.dequantize(onnx.constant(value), scales[0], 0, value.dtype)
    return onnx.dequantize(onnx.constant(value), scales, np.zeros(len(scales)), value.dtype, axis=axis)


def _spread(onnx: OnnxGraph, weight: np.ndarray, scales: np.ndarray, groups: int) -> str:
    """The weight ``[in, out / groups, kh, kw]`` in float, as no axis of it has the scales of all groups."""
    per_group = np.repeat(scales.reshape(groups, 1, -1, 1, 1), len(weight) // groups, axis=1)
    return onnx.constant(weight.astype(np.float32) * per_group.reshape(*weight.shape[:2], 1, 1))


EMIT = dict.fromkeys(("conv2d", "conv_transpose2d", "dense"), emit_matrix)
