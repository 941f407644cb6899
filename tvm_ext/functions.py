"""Chains of element-wise ONNX operators on one quantised tensor and constant numbers: functions of one code.

TVM's importer spells many of them as several Relax calls; what counts is the ONNX operators, as ONNX Runtime computes
them one by one in float32 between DequantizeLinear and QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from tvm import relax
from tvm.relax.dpl import DFPattern, wildcard

from npu_backend.ops.elementwise import PARAMETER_NAMES
from npu_backend.ops.numerics_core import byte_values, dequantize, quantize
from npu_backend.ops.numerics_eltwise import FLOAT_FUNCTIONS
from npu_backend.ops.numerics_unary import FUNCTIONS
from tvm_ext.matching import (
    Match,
    array_of,
    dtype_of,
    is_call,
    operand_values,
    shape_of,
    variables_in,
)

# ONNX name to a key of FUNCTIONS; the attributes are PARAMETER_NAMES' own, with ONNX's defaults.
_UNARY = {
    "Abs": "abs", "Ceil": "ceil", "Celu": "celu", "Cos": "cos", "Elu": "elu", "Erf": "erf", "Exp": "exp",
    "Floor": "floor", "HardSigmoid": "hard_sigmoid", "HardSwish": "hard_swish", "LeakyRelu": "leaky_relu", "Log": "log",
    "Mish": "mish", "Neg": "negative", "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round", "Selu": "selu",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Softplus": "softplus", "Softsign": "softsign", "Sqrt": "sqrt",
    "Tanh": "tanh", "ThresholdedRelu": "thresholded_relu",
}  # fmt: skip
_DEFAULTS = {
    "celu": (1.0,), "elu": (1.0,), "hard_sigmoid": (0.2, 0.5), "leaky_relu": (0.01,),
    "selu": (1.6732631921768188, 1.0507010221481323), "thresholded_relu": (1.0,),
}  # fmt: skip
_BINARY = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Max": "maximum", "Min": "minimum",
           "PRelu": "prelu"}  # fmt: skip
_OTHER = ("Clip", "Gelu", "Pow")
ONNX_FUNCTIONS = frozenset((*_UNARY, *_BINARY, *_OTHER))
# Relax spells these with one call, which no other pattern has.
RELAX_CALLS = frozenset(f"relax.{name}" for name in (
    "abs", "ceil", "clip", "cos", "erf", "exp", "floor", "log", "negative", "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu",
    "nn.relu", "power", "round", "sigmoid", "sign", "sin", "sqrt", "tanh"))  # fmt: skip


class FunctionOfOne:
    """Matches a quantise call whose value is such a chain; stands where a TVM pattern does."""

    def __init__(self) -> None:
        self.main: DFPattern = wildcard()
        self.x: DFPattern = wildcard()

    def extract_matched_expr(
        self, root: relax.Expr, values: Mapping[relax.Var, relax.Expr]
    ) -> dict[DFPattern, relax.Expr] | None:
        """The call that is quantised and the dequantise call that is read; None where `root` is no such chain."""
        if not is_call(root, "relax.quantize") or not isinstance(root.args[0], relax.Var):
            return None
        reads = _dequantized(root.args[0], values)
        main = values.get(root.args[0])
        if reads is None or main is None or is_call(main, "relax.dequantize"):
            return None
        same_source = {read.args[0] for read in reads}
        if len(same_source) != 1 or shape_of(reads[0]) != shape_of(root):
            return None
        return {self.main: main, self.x: reads[0]}


def _dequantized(last: relax.Var, values: Mapping[relax.Var, relax.Expr]) -> list[relax.Expr] | None:
    """The dequantise calls of computed codes behind a variable; None where anything else is computed."""
    reads, waiting, seen = [], [last], {last}
    while waiting:
        call = values.get(waiting.pop())
        if call is None or not is_call(call):
            return None
        if is_call(call, "relax.dequantize"):
            if isinstance(call.args[0], relax.Var):
                reads.append(call)
            continue
        for read in variables_in(call):
            if read not in seen:
                seen.add(read)
                waiting.append(read)
    return reads or None


def nodes_of(match: Match) -> Sequence[onnx.NodeProto]:
    """The ONNX operators of the chain, in order."""
    return [node for node in match.origin if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]


def is_known(match: Match) -> bool:
    """Whether every operator of the chain can be evaluated on all codes."""
    nodes, numbers = nodes_of(match), _numbers(match)
    if not nodes or any(node.op_type not in ONNX_FUNCTIONS for node in nodes):
        return False
    made = {name for node in nodes for name in node.output}
    reads = {name for node in nodes for name in node.input if name}
    return reads <= made | _x_names(match) | numbers.keys()


def _dequantize_calls(match: Match) -> dict[str, relax.Expr]:
    """The dequantise calls inside, by the ONNX name of what they make."""
    program = match.program
    return {program.sources[v].value: program.values[v] for v in match.inside
            if is_call(program.values[v], "relax.dequantize") and v in program.sources}  # fmt: skip


def _x_names(match: Match) -> frozenset[str]:
    """ONNX names of the dequantised input."""
    calls = _dequantize_calls(match)
    return frozenset(name for name, call in calls.items() if isinstance(call.args[0], relax.Var))


def _numbers(match: Match) -> dict[str, np.ndarray]:
    """Constants of one element by ONNX name."""
    numbers = {name: value for name, value in match.program.constants.items() if value.size == 1}
    for name, call in _dequantize_calls(match).items():
        if array_of(call.args[0]) is not None:
            numbers[name] = operand_values(match.program, call)
    return {name: value.reshape(()) for name, value in numbers.items() if value.size == 1}


def table_of(match: Match) -> np.ndarray:
    """256 codes of the output, by the input's raw byte."""
    x, y, dtype = match.input_codes(), match.output_codes, np.dtype(dtype_of(match.root))
    assert x is not None
    assert y is not None
    values: dict[str, np.ndarray] = dict(_numbers(match))
    real = dequantize(byte_values(dtype), np.float32(x.scale), x.zero_point)
    values.update(dict.fromkeys(_x_names(match), real))
    last = real
    with np.errstate(all="ignore"):
        for node in nodes_of(match):
            last = np.asarray(_evaluate(node, [values.get(name) for name in node.input]), np.float32)
            values[node.output[0]] = last
        codes = quantize(np.broadcast_to(last, real.shape), np.float32(y.scale), y.zero_point, dtype)
    return np.ascontiguousarray(codes)


def function_of(node: onnx.NodeProto) -> tuple[str, tuple[float, ...]] | None:
    """Function and parameters of an operator of one tensor, as UnaryAttributes has them; None for all others."""
    if node.op_type == "Gelu":
        return ("gelu_tanh" if _attributes(node).get("approximate") == b"tanh" else "gelu"), ()
    function = _UNARY.get(node.op_type)
    if function is None:
        return None
    given, names = _attributes(node), PARAMETER_NAMES.get(function, ())
    defaults = _DEFAULTS.get(function, ())
    return function, tuple(float(given.get(name, default)) for name, default in zip(names, defaults, strict=True))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _evaluate(node: onnx.NodeProto, operands: Sequence[np.ndarray | None]) -> np.ndarray:
    """The operator in float32; operands left out are None."""
    x, *others = operands
    assert x is not None
    named = function_of(node)
    if named is not None:
        return FUNCTIONS[named[0]](x, *named[1])
    if node.op_type == "Clip":
        low, high = (float(others[i]) if i < len(others) and others[i] is not None else bound  # type: ignore[arg-type]
                     for i, bound in enumerate((-np.inf, np.inf)))  # fmt: skip
        return FUNCTIONS["clip"](x, low, high)
    if node.op_type == "Pow":
        return FUNCTIONS["power"](x, float(others[0]))  # type: ignore[arg-type]
    for operand in others:
        assert operand is not None
        x = FLOAT_FUNCTIONS[_BINARY[node.op_type]](x.astype(np.float32), operand.astype(np.float32))
    return x
