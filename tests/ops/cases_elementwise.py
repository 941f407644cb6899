"""Cases and ONNX forms of the element-wise operators: unary, binary, select, table and the conversions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx.helper import np_dtype_to_tensor_dtype

from npu_backend.graph import Graph, Op
from npu_backend.ops.attributes import BinaryAttributes, UnaryAttributes
from npu_backend.ops.numerics_unary import FUNCTIONS, PARAMETER_NAMES
from tests.ops.case import Case, Shape, in_form, in_forms
from tests.ops.onnx_reference import Graph as OnnxGraph


def unary(function: str, *parameters: float, shape: Shape = (1, 9, 7, 21), **more: Any) -> Case:
    more.setdefault("output_code", (0.02, 30))
    return Case("unary", more.pop("label", function), (shape,), UnaryAttributes(function, parameters), **more)


def binary(function: str, label: str, *shapes: Shape, **more: Any) -> Case:
    if function == "multiply":
        more.setdefault("output_code", (0.08, 110))
    return Case("binary", label, shapes, BinaryAttributes(function), **more)


def select(label: str, *shapes: Shape, **more: Any) -> Case:
    return Case("select", label, shapes, dtypes=("bool", "", ""), **more)


# In every form, and in 8 bits only.
IN_ALL_FORMS = (
    unary("identity"), unary("clip", -0.4, 1.3), unary("sigmoid"), unary("elu", 0.7), unary("power", 2.0),
    unary("negative"), binary("add", "add", (1, 9, 11, 19), (1, 9, 11, 19)),
    binary("multiply", "multiply-gate", (1, 8, 9, 40), (1, 1, 1, 40)),
    binary("subtract", "subtract-rank3", (3, 1, 40), (3, 17, 1)),
    binary("divide", "divide", (1, 9, 8, 21), (1, 9, 8, 21)),
    binary("prelu", "prelu-rank5", (2, 3, 5, 4, 7), (1, 3, 1, 1, 1)),
    binary("add", "add-constant-channels", (2, 5, 6, 37), (1, 1, 1, 37), constant_at=(1,)),
    binary("less", "less", (2, 7, 1, 19), (1, 7, 5, 19), output_dtype="bool"),
    select("channels", (1, 1, 1, 37), (2, 5, 6, 37), (2, 5, 6, 37)),
)  # fmt: skip
IN_BYTES = (
    unary("relu"), unary("leaky_relu", 0.1), unary("tanh"), unary("hard_sigmoid", 0.2, 0.5), unary("hard_swish"),
    unary("log"), unary("reciprocal"), unary("softplus"),
    Case("table", "random", ((2, 7, 5, 19),), constants=lambda rng: (rng.integers(0, 256, 256).astype(np.uint8),)),
    binary("add", "add-rank2", (17, 133), (17, 133)),
    binary("add", "add-channel", (2, 5, 6, 37), (1, 1, 1, 37)),
    binary("multiply", "multiply", (2, 7, 5, 16), (2, 7, 5, 16)),
    binary("multiply", "multiply-map", (1, 1, 1, 35), (1, 9, 8, 1)),
    *(binary(function, function, (1, 9, 8, 21), (1, 9, 8, 21))
      for function in ("subtract", "maximum", "minimum", "prelu")),
    binary("divide", "divide-gate", (1, 8, 9, 40), (1, 1, 1, 40)),
    binary("add", "add-constant", (1, 9, 11, 19), (1, 9, 11, 19), constant_at=(1,)),
    binary("multiply", "multiply-constant-scalar", (17, 133), (1, 1), constant_at=(1,)),
    binary("multiply", "multiply-constant-rows", (1, 9, 1, 1), (2, 9, 7, 19), constant_at=(0,)),
    *(binary(function, f"{function}-float", (1, 9, 8, 21), (1, 1, 1, 21), constant_at=(1,),
             constant_dtype="float32", output_code=(0.3, 110))
      for function in ("add", "multiply", "subtract", "divide", "maximum", "minimum", "prelu")),
    binary("divide", "divide-float-left", (1, 8, 1), (5, 8, 70), constant_at=(0,), constant_dtype="float32",
           output_code=(0.3, 110)),
    binary("subtract", "subtract-float-map", (1, 6, 7, 1), (2, 6, 7, 13), constant_at=(0,), constant_dtype="float32",
           output_code=(0.3, 110)),
    binary("greater", "greater-constant", (17, 133), (1, 1), constant_at=(1,), output_dtype="bool"),
)  # fmt: skip
CODED = (*IN_ALL_FORMS, *IN_BYTES)

_HALF_MASK: dict[str, Any] = {"dtype": "float16", "output_dtype": "bool"}
_MASK: dict[str, Any] = {"dtype": "bool", "output_dtype": "bool"}
TO_BOOL = ("not", "is_nan", "is_inf")
FLOATS = (
    *(unary(name, *((0.7,) if name == "power" else ()), label=f"{name}-half", dtype="float16")
      for name in FUNCTIONS if name not in ("identity", *TO_BOOL)),
    *(unary(name, **_HALF_MASK) for name in ("is_nan", "is_inf")),
    unary("not", shape=(5, 31), spm_bytes=256, **_MASK),
    unary("exp", shape=(3, 2, 1, 5, 2, 7), label="rank6", dtype="float16"),
    unary("tanh", label="of-codes", dtype="int8", output_dtype="float16"),
    unary("gelu", label="to-codes", dtype="float16", output_dtype="uint8"),
    *(binary(function, f"{function}-half", (2, 9, 1, 21), (1, 9, 8, 1), dtype="float16")
      for function in ("multiply", "maximum", "minimum", "power", "fmod")),
    *(binary(function, function, (5, 1, 31), (1, 7, 31), dtype="float16", output_dtype="bool")
      for function in ("equal", "greater", "greater_or_equal", "less_or_equal")),
    *(binary(function, function, (5, 1, 31), (1, 7, 31), **_MASK) for function in ("and", "or", "xor")),
    *(binary(function, f"{function}-integers", (3, 41), (3, 41), dtype=dtype, spm_bytes=1024)
      for function, dtype in (("add", "int64"), ("multiply", "int32"), ("subtract", "int64"), ("maximum", "int32"))),
    *(binary(function, f"{function}-constant", (3, 41), (1, 41), dtype="int64", constant_at=(1,))
      for function in ("modulo", "fmod", "divide")),
    binary("equal", "equal-integers", (3, 41), (3, 1), dtype="int64", output_dtype="bool", spm_bytes=1024),
    binary("add", "mixed", (2, 5, 6, 7), (1, 1, 6, 7), dtype="uint8", output_dtype="float16", constant_at=(1,),
           constant_dtype="float16"),
    binary("multiply", "rank6", (2, 1, 3, 5, 2, 7), (2, 3, 1, 5, 2, 1), dtype="float16"),
    select("integers", (5, 1), (5, 31), (1, 31), dtype="int64"),
    select("booleans", (5, 31), (5, 31), (5, 31), dtype="bool", spm_bytes=512),
    select("mixed", (2, 7, 5, 19), (1, 1, 1, 1), (2, 7, 5, 19), dtype="uint8", output_dtype="float16",
           constant_at=(1,), constant_dtype="float16"),
)  # fmt: skip

CONVERSIONS = tuple(
    case
    for dtype in ("uint8", "int8")
    for case in (
        Case("quantize", f"to-{dtype}", ((1, 9, 7, 21),), dtype="float32", output_dtype=dtype),
        Case("dequantize", "rank4", ((1, 9, 7, 21),), dtype=dtype, output_dtype="float32"),
        Case("dequantize", "rank2", ((9, 101),), dtype=dtype, output_dtype="float32"),
    )
)
CASTS = tuple(
    Case("cast", f"{source}-{output}", ((1, 9, 7, 21),), dtype=source, output_dtype=output)
    for source, output in (
        ("float32", "float16"), ("float16", "float32"), ("float16", "int32"), ("int32", "float16"), ("int64", "int32"),
        ("bool", "float16"), ("float16", "bool"), ("int32", "int64"),
    )
)  # fmt: skip

CASES: tuple[Case, ...] = (
    *in_forms(IN_ALL_FORMS),
    *IN_BYTES,
    *(in_form(case, "int8") for case in IN_BYTES),
    *FLOATS,
    *CONVERSIONS,
    *CASTS,
)

_UNARY = {
    "hard_sigmoid": "HardSigmoid", "hard_swish": "HardSwish", "leaky_relu": "LeakyRelu", "negative": "Neg",
    "thresholded_relu": "ThresholdedRelu", "is_nan": "IsNaN", "is_inf": "IsInf",
}  # fmt: skip
_BINARY = {
    "add": "Add", "multiply": "Mul", "subtract": "Sub", "divide": "Div", "maximum": "Max", "minimum": "Min",
    "prelu": "PRelu", "power": "Pow", "modulo": "Mod", "fmod": "Mod", "equal": "Equal", "greater": "Greater",
    "greater_or_equal": "GreaterOrEqual", "less": "Less", "less_or_equal": "LessOrEqual", "and": "And", "or": "Or",
    "xor": "Xor",
}  # fmt: skip


def _gelu(onnx: OnnxGraph, x: str, inner: str) -> str:
    """Half of x * (1 + inner)."""
    return onnx.op("Mul", onnx.op("Mul", x, onnx.constant(0.5, np.float32)),
                   onnx.op("Add", inner, onnx.constant(1, np.float32)))  # fmt: skip


def _gelu_tanh(onnx: OnnxGraph, x: str) -> str:
    cube = onnx.op("Mul", onnx.op("Pow", x, onnx.constant(3, np.float32)), onnx.constant(0.044715, np.float32))
    inner = onnx.op("Mul", onnx.op("Add", x, cube), onnx.constant((2 / np.pi) ** 0.5, np.float32))
    return _gelu(onnx, x, onnx.op("Tanh", inner))


# What ONNX has in several nodes, or only in later operator sets.
_COMPOSED: dict[str, Callable[[OnnxGraph, str], str]] = {
    "identity": lambda onnx, x: x,
    "silu": lambda onnx, x: onnx.op("Mul", x, onnx.op("Sigmoid", x)),
    "mish": lambda onnx, x: onnx.op("Mul", x, onnx.op("Tanh", onnx.op("Softplus", x))),
    "gelu": lambda onnx, x: _gelu(onnx, x, onnx.op("Erf", onnx.op("Mul", x, onnx.constant(0.5**0.5, np.float32)))),
    "gelu_tanh": _gelu_tanh,
}


def emit_unary(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    function, parameters = op.attributes.function, op.attributes.parameters
    if function in _COMPOSED:
        return _COMPOSED[function](onnx, names[0])
    if function in ("clip", "power"):
        kind = {"clip": "Clip", "power": "Pow"}[function]
        return onnx.op(kind, names[0], *(onnx.constant(value, np.float32) for value in parameters))
    kind = _UNARY.get(function, function.capitalize())
    return onnx.op(kind, names[0], **dict(zip(PARAMETER_NAMES.get(function, ()), parameters, strict=False)))


def emit_binary(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    function = op.attributes.function
    return onnx.op(_BINARY[function], *names, **({"fmod": 1} if function == "fmod" else {}))


def emit_select(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    if graph.tensor(op.output).dtype != "bool":
        return onnx.op("Where", *names)
    # ONNX Runtime has no Where of booleans.
    condition, left, right = names
    return onnx.op("Or", onnx.op("And", condition, left), onnx.op("And", onnx.op("Not", condition), right))


EMIT: dict[str, Callable[[OnnxGraph, Graph, Op, Sequence[str]], str]] = {
    "unary": emit_unary,
    "binary": emit_binary,
    "select": emit_select,
    "quantize": lambda onnx, graph, op, names: names[0],
    "dequantize": lambda onnx, graph, op, names: names[0],
    "cast": lambda onnx, graph, op, names: onnx.op(
        "Cast", names[0], to=np_dtype_to_tensor_dtype(np.dtype(graph.tensor(op.output).dtype))
    ),
}
