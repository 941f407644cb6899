"""Element-wise functions of one tensor: what an ONNX operator is called on the NPU, and chains as tables.

A chain of such operators between DequantizeLinear and QuantizeLinear is a function of one 8-bit code: ONNX Runtime
computes the operators one by one in float32, so all 256 results are known when the model is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from npu_backend.ops.numerics_binary import FLOAT_FUNCTIONS
from npu_backend.ops.numerics_core import byte_values, dequantize, quantize
from npu_backend.ops.numerics_unary import PARAMETER_NAMES, evaluate, parameters_of
from tvm_ext.matching import Match, Program, attribute_of, dtype_of, values_of

# ONNX name to a key of numerics_unary.FUNCTIONS, whose parameters have ONNX's names and defaults.
UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan", "Atanh": "atanh",
    "Ceil": "ceil", "Celu": "celu", "Cos": "cos", "Cosh": "cosh", "Elu": "elu", "Erf": "erf", "Exp": "exp",
    "Floor": "floor", "HardSigmoid": "hard_sigmoid", "HardSwish": "hard_swish", "IsNaN": "is_nan",
    "LeakyRelu": "leaky_relu", "Log": "log", "Mish": "mish", "Neg": "negative", "Not": "not",
    "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round", "Selu": "selu",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Softplus": "softplus", "Softsign": "softsign",
    "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh", "ThresholdedRelu": "thresholded_relu",
}  # fmt: skip
BINARY = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Max": "maximum", "Min": "minimum",
          "PRelu": "prelu", "Sum": "add"}  # fmt: skip
CHAINED = frozenset((*UNARY, *BINARY, "Clip", "Gelu", "Pow")) - {"IsNaN", "Not"}


def clip_bounds(program: Program, node: onnx.NodeProto) -> tuple[float, float] | None:
    """Low and high of a Relu or Clip; None where they are computed. NaN means no bound, as to ONNX Runtime."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    bounds = []
    for index, name, default in ((1, "min", -float("inf")), (2, "max", float("inf"))):
        operand = program.operand(node.input[index]) if index < len(node.input) else None
        if operand is not None and (operand.is_computed or values_of(operand).size != 1):
            return None
        value = attribute_of(node, name, default) if operand is None else values_of(operand).reshape(())
        bounds.append(default if np.isnan(value) else float(value))
    return bounds[0], bounds[1]


def function_of(program: Program, node: onnx.NodeProto) -> tuple[str, tuple[float, ...]] | None:
    """Function and parameters of an operator of one tensor, as UnaryAttributes has them; None for all others."""
    if node.op_type == "Gelu":
        return ("gelu_tanh" if attribute_of(node, "approximate") == "tanh" else "gelu"), ()
    if node.op_type == "IsInf":
        return "is_inf", (
            float(attribute_of(node, "detect_negative", 1)),
            float(attribute_of(node, "detect_positive", 1)),
        )
    if node.op_type == "Clip":
        bounds = clip_bounds(program, node)
        return None if bounds is None else ("clip", bounds)
    function = UNARY.get(node.op_type)
    if function is None:
        return None
    names, defaults = PARAMETER_NAMES.get(function, ()), parameters_of(function, ())
    return function, tuple(float(attribute_of(node, name, default)) for name, default in zip(names, defaults))


def table_of(match: Match) -> np.ndarray:
    """256 codes of the output of a chain, by the input's raw byte."""
    x, y, dtype = match.input_codes(), match.output_codes, np.dtype(dtype_of(match.root))
    assert x is not None
    assert y is not None
    real = dequantize(byte_values(dtype), np.float32(x.scale), x.zero_point)
    values = {**chain_numbers(match.program, match.nodes), **dict.fromkeys(_x_names(match), real)}
    last = real
    with np.errstate(all="ignore"):
        for node in match.nodes:
            last = np.asarray(_evaluate(match.program, node, [values.get(name) for name in node.input]), np.float32)
            values[node.output[0]] = last
        codes = quantize(np.broadcast_to(last, real.shape), np.float32(y.scale), y.zero_point, dtype)
    return np.ascontiguousarray(codes)


def chain_numbers(program: Program, nodes: Sequence[onnx.NodeProto]) -> Mapping[str, np.ndarray]:
    """The constants of one element that the nodes read, by ONNX name."""
    numbers = {}
    for name in {name for node in nodes for name in node.input}:
        operand = program.operand(name)
        if operand is not None and not operand.is_computed and values_of(operand).size == 1:
            numbers[name] = values_of(operand).reshape(())
    return numbers


def _x_names(match: Match) -> frozenset[str]:
    """ONNX names under which the nodes read the dequantised input."""
    made = {name for node in match.nodes for name in node.output}
    names = {name for node in match.nodes for name in node.input if name not in made}
    return frozenset(name for name in names if (read := match.program.operand(name)) is not None and read.is_computed)


def _evaluate(program: Program, node: onnx.NodeProto, operands: Sequence[np.ndarray | None]) -> np.ndarray:
    """The operator in float32; operands left out are None."""
    x, *others = operands
    assert x is not None
    named = function_of(program, node)
    if named is not None:
        return evaluate(named[0], x, named[1])
    if node.op_type == "Pow":
        return evaluate("power", x, (float(others[0]),))  # type: ignore[arg-type]
    for operand in others:
        assert operand is not None
        x = FLOAT_FUNCTIONS[BINARY[node.op_type]](x.astype(np.float32), operand.astype(np.float32))
    return x
