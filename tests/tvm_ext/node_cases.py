"""One-node models of every ONNX operator the NPU takes: the table that the forms are tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from tests.tvm_ext.one_node import normal, one_node

Arrays = Sequence[np.ndarray | None]


@dataclass(frozen=True)
class NodeCase:
    """An operator with its operands; `constants` are those that the model holds."""

    op: str
    operands: Arrays
    constants: tuple[int, ...] = ()
    label: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op}-{self.label}" if self.label else self.op

    def model(self) -> onnx.ModelProto:
        return one_node(self.op, self.operands, self.constants, **self.attributes)


def case(op: str, *operands: np.ndarray | None, constants: tuple[int, ...] = (), label: str = "",
         **attributes: Any) -> NodeCase:  # fmt: skip
    return NodeCase(op, operands, constants, label, attributes)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


IMAGE = normal(2, 6, 9, 8)
SIGNAL = normal(2, 6, 31)
ROWS = normal(2, 5, 12)
POSITIVE = np.abs(normal(2, 6, 9, 8)) + np.float32(0.1)
MASK = normal(9, 8) > 0
CODES = np.random.default_rng(0).integers(0, 256, (2, 5, 12), np.uint8)
SIGNED = np.random.default_rng(1).integers(-128, 128, (12, 7), np.int8)
FILTERS = np.random.default_rng(1).integers(-128, 128, (4, 6, 3, 3), np.int8)
PIXELS = np.random.default_rng(2).integers(0, 256, (1, 6, 9, 8), np.uint8)

_CONVOLUTIONS = (
    case("Conv", IMAGE, normal(8, 6, 3, 3), normal(8), constants=(1, 2), strides=[2, 1], pads=[1, 0, 2, 1]),
    case("Conv", IMAGE, normal(6, 1, 3, 3), constants=(1,), label="depthwise", group=6, auto_pad="SAME_UPPER"),
    case("Conv", IMAGE, normal(8, 3, 3, 3), normal(8), constants=(1, 2), label="grouped", group=2, dilations=[2, 1]),
    case("Conv", SIGNAL, normal(5, 6, 3), normal(5), constants=(1, 2), label="signal", strides=[2], pads=[1, 2]),
    case("ConvTranspose", IMAGE, normal(6, 4, 3, 3), normal(4), constants=(1, 2), strides=[2, 2], pads=[1, 1, 1, 1],
         output_padding=[1, 1]),
    case("ConvTranspose", IMAGE, normal(6, 4, 2, 2), constants=(1,), label="grouped", group=2, strides=[2, 2]),
    case("ConvTranspose", SIGNAL, normal(6, 4, 3), normal(4), constants=(1, 2), label="signal", strides=[2]),
    case("ConvInteger", PIXELS, FILTERS, np.array(117, np.uint8), constants=(1, 2), pads=[1, 1, 1, 1]),
)  # fmt: skip

_PRODUCTS = (
    case("Gemm", normal(5, 12), normal(12, 7), normal(7), constants=(1, 2)),
    case("Gemm", normal(5, 12), normal(7, 12), normal(7), constants=(1, 2), label="scaled", transB=1, alpha=0.5,
         beta=2.0),
    case("Gemm", normal(12, 5), normal(7, 12), normal(5, 1), label="computed", transA=1, transB=1, alpha=0.5, beta=2.0),
    case("Gemm", normal(5, 12), normal(12, 7), normal(5, 7), constants=(1, 2), label="matrix"),
    case("MatMul", ROWS, normal(12, 7), constants=(1,)),
    case("MatMul", ROWS, normal(2, 12, 7), label="computed"),
    case("MatMul", normal(2, 3, 5, 12), normal(3, 12, 7), label="broadcast"),
    case("MatMul", normal(12), normal(2, 12, 7), label="vector"),
    case("MatMul", normal(2, 5, 12), normal(12), label="column"),
    case("MatMul", normal(5, 12), normal(12, 7), constants=(0,), label="constant_left"),
    case("MatMulInteger", CODES, SIGNED, np.array(120, np.uint8), constants=(1, 2)),
    case("MatMulInteger", CODES, SIGNED, np.array(120, np.uint8), np.array(0, np.int8), constants=(1, 3),
         label="computed_zero"),
    case("MatMulInteger", CODES, CODES.transpose(0, 2, 1), np.array(120, np.uint8), np.array(99, np.uint8),
         label="computed"),
)  # fmt: skip

_ANYWHERE = (
    "Abs", "Asinh", "Atan", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish",
    "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign",
    "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_FUNCTIONS = (
    *(case(op, IMAGE) for op in _ANYWHERE),
    *(case(op, np.clip(IMAGE, -0.9, 0.9)) for op in ("Acos", "Asin", "Atanh")),
    case("Acosh", POSITIVE + 1),
    case("IsNaN", np.where(MASK, IMAGE, np.nan).astype(np.float32)),
    case("IsInf", np.where(MASK, IMAGE, -np.inf).astype(np.float32), opset=20),
    *(case(op, POSITIVE) for op in ("Log", "Reciprocal", "Sqrt")),
    case("Gelu", IMAGE, opset=20),
    case("Gelu", IMAGE, label="tanh", opset=20, approximate="tanh"),
    case("Clip", IMAGE, number(-0.5), number(0.75), constants=(1, 2)),
    case("Clip", IMAGE, None, number(0.75), constants=(2,), label="above"),
    case("Not", MASK),
    *(case("Cast", IMAGE * 9, label=name, to=element)
      for name, element in (("half", 10), ("int32", 6), ("int64", 7), ("bool", 9))),
    case("Cast", PIXELS, label="from_pixels", to=1),
    case("Cast", integers(3, -1, 200000).reshape(1, 3), label="from_integers", to=1),
)  # fmt: skip

_PAIRS = (
    *(case(op, IMAGE, normal(6, 1, 1)) for op in ("Add", "Sub", "Mul", "Max", "Min")),
    case("Div", IMAGE, POSITIVE),
    *(case(op, IMAGE, normal(1, 8), normal(9, 1), label="three") for op in ("Max", "Min", "Sum", "Mean")),
    case("Add", IMAGE, number(0.3), constants=(1,), label="number"),
    case("Sub", normal(1, 6, 1, 1), IMAGE, constants=(0,), label="constant_left"),
    case("Pow", POSITIVE, number(1.7), constants=(1,)),
    case("Pow", POSITIVE, IMAGE, label="computed"),
    case("Mod", IMAGE, POSITIVE, label="float", fmod=1),
    case("Mod", integers(7, -7, 9, 4), integers(3, 4, -4, 2), label="integer"),
    case("PRelu", IMAGE, normal(6, 1, 1), constants=(1,)),
    *(case(op, np.rint(IMAGE), np.rint(normal(9, 8)))
      for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *(case(op, MASK, normal(9, 1) > 0) for op in ("And", "Or", "Xor")),
    case("Where", MASK, IMAGE, normal(8)),
    case("Where", MASK, IMAGE, number(-3.4e38), constants=(2,), label="masked"),
)  # fmt: skip

_WINDOWS = (
    case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", IMAGE, label="ceil", kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", IMAGE, label="dilated", kernel_shape=[2, 3], dilations=[2, 2]),
    case("MaxPool", SIGNAL, label="signal", kernel_shape=[3], strides=[2]),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    case("AveragePool", IMAGE, label="padding", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", IMAGE, label="ceil", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1),
    case("AveragePool", IMAGE, label="ceil_padding", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1],
         ceil_mode=1, count_include_pad=1, opset=19),
    case("AveragePool", SIGNAL, label="signal", kernel_shape=[4], strides=[3]),
    case("LpPool", POSITIVE, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    case("LpPool", IMAGE, label="p1", kernel_shape=[2, 2], p=1),
    case("GlobalAveragePool", IMAGE),
    case("GlobalAveragePool", SIGNAL, label="signal"),
    case("GlobalMaxPool", IMAGE),
    case("LRN", IMAGE, size=3, alpha=0.02, bias=1.5),
    case("Resize", IMAGE, None, None, integers(2, 6, 15, 20), constants=(3,), mode="nearest"),
    case("Resize", IMAGE, None, None, integers(2, 6, 15, 20), constants=(3,), label="linear", mode="linear"),
    case("Resize", IMAGE, None, np.array([1, 1, 2, 2], np.float32), constants=(2,), label="scales", mode="nearest",
         coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    case("Resize", IMAGE, None, None, integers(2, 6, 15, 20), constants=(3,), label="cubic", mode="cubic",
         cubic_coeff_a=-0.5),
    case("Resize", IMAGE, None, None, integers(2, 6, 4, 3), constants=(3,), label="antialias", mode="linear",
         antialias=1),
    case("Resize", IMAGE, np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 1.1], np.float32), None, integers(2, 6, 5, 7),
         constants=(1, 3), label="crop", mode="linear", coordinate_transformation_mode="tf_crop_and_resize"),
    case("Resize", SIGNAL, None, np.array([1, 1, 1.7], np.float32), constants=(2,), label="signal", mode="linear"),
    case("Resize", IMAGE, None, np.array([1.3, 0.6], np.float32), constants=(2,), label="axes", mode="nearest",
         axes=[2, 3]),
    case("DepthToSpace", normal(1, 8, 3, 5), blocksize=2),
    case("DepthToSpace", normal(1, 8, 3, 5), label="CRD", blocksize=2, mode="CRD"),
    case("SpaceToDepth", normal(1, 2, 4, 6), blocksize=2),
)  # fmt: skip

_REDUCTIONS = (
    *(case(f"Reduce{name}", POSITIVE, axes, constants=(1,), keepdims=keepdims)
      for name, axes, keepdims in (("Max", integers(1), 1), ("Min", integers(-1, 1), 0), ("Mean", integers(2, 3), 1))),
    *(case(f"Reduce{name}", POSITIVE, integers(0, 2), constants=(1,), label=f"keepdims{keepdims}", keepdims=keepdims)
      for name in ("L1", "L2", "LogSum", "LogSumExp", "SumSquare", "Sum") for keepdims in (0, 1)),
    case("ReduceProd", POSITIVE, integers(3), constants=(1,)),
    case("ReduceSum", IMAGE, label="all", keepdims=0),
    case("ReduceMax", normal(3, 4, 2, 3, 2), integers(1, 3), constants=(1,), label="rank5"),
    *(case(op, IMAGE, label=f"axis{axis}", axis=axis, keepdims=axis % 2)
      for op in ("ArgMax", "ArgMin") for axis in (0, 1, 3)),
    case("ArgMax", np.rint(IMAGE), label="last", axis=1, select_last_index=1),
    *(case(op, IMAGE, label=f"axis{axis}", axis=axis) for op in ("Softmax", "LogSoftmax") for axis in (1, -1)),
    case("LayerNormalization", ROWS, normal(12), normal(12), constants=(1, 2)),
    case("LayerNormalization", ROWS, normal(5, 12), constants=(1,), label="axes", axis=1, epsilon=1e-3),
    case("InstanceNormalization", IMAGE, normal(6), normal(6), constants=(1, 2)),
    case("GroupNormalization", IMAGE, normal(6), normal(6), constants=(1, 2), opset=21, num_groups=3),
    case("MeanVarianceNormalization", IMAGE, opset=13),
    case("LpNormalization", IMAGE, axis=1, p=2),
    case("RMSNormalization", ROWS, normal(12), constants=(1,), opset=23),
)  # fmt: skip

_MOVES = (
    case("Reshape", IMAGE, integers(2, -1, 12), constants=(1,)),
    case("Flatten", IMAGE),
    case("Squeeze", normal(1, 6, 1, 8), integers(0, 2), constants=(1,)),
    case("Unsqueeze", normal(6, 8), integers(0, 3), constants=(1,)),
    case("Transpose", IMAGE, perm=[0, 3, 1, 2]),
    case("Transpose", normal(2, 3, 4, 2, 3), label="rank5", perm=[4, 1, 0, 3, 2]),
    case("Slice", IMAGE, integers(1, -6), integers(100, -1), integers(1, 3), integers(2, 1), constants=(1, 2, 3, 4)),
    case("Slice", IMAGE, integers(-1), integers(-100), integers(2), integers(-2), constants=(1, 2, 3, 4), label="back"),
    case("Pad", IMAGE, integers(0, 0, 1, 2, 0, 0, 3, 0), number(0.5), constants=(1, 2)),
    case("Pad", IMAGE, integers(0, 0, 1, 2, 0, 0, 3, 1), constants=(1,), label="reflect", mode="reflect"),
    case("Pad", IMAGE, integers(0, 0, 1, 2, 0, 0, 3, 0), constants=(1,), label="edge", mode="edge"),
    case("Pad", IMAGE, integers(0, 0, -1, 2, 0, 0, 3, -2), constants=(1,), label="crop"),
    case("Expand", normal(6, 1, 8), integers(2, 6, 9, 1), constants=(1,)),
    case("Tile", normal(2, 3, 4), integers(1, 2, 3), constants=(1,)),
    case("Gather", normal(9, 8), integers(3, 0, -1, 5), constants=(1,)),
    case("Gather", normal(9, 8), integers(3, 0, -1, 5).reshape(2, 2), label="computed", axis=1),
    case("Gather", normal(900, 24), integers(3, 0, -1, 5), constants=(0,), label="embedding"),
    case("Concat", IMAGE, normal(2, 3, 9, 8), axis=1),
    case("Concat", IMAGE, normal(2, 3, 9, 8), constants=(1,), label="constant", axis=-3),
)  # fmt: skip

CASES = (*_CONVOLUTIONS, *_PRODUCTS, *_FUNCTIONS, *_PAIRS, *_WINDOWS, *_REDUCTIONS, *_MOVES)


def is_coded(case: NodeCase) -> bool:
    """Whether every computed operand and the result are floats, which codes can stand for.

    A product with constants that are no codes is one in half precision, whatever surrounds it.
    """
    if case.op in ("Conv", "ConvTranspose", "Gemm", "MatMul") and case.constants:
        return False
    # ONNX says nothing of the shape of these, or they become several operators.
    if case.op in ("GroupNormalization", "MeanVarianceNormalization", "LpNormalization"):
        return False
    computed = [value for i, value in enumerate(case.operands) if value is not None and i not in case.constants]
    outputs = case.model().graph.output
    return all(value.dtype == np.float32 for value in computed) and all(
        value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in outputs
    )
