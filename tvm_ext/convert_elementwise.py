"""From matches to the element-wise operators of the NPU graph."""

from __future__ import annotations

import numpy as np

from npu_backend.ops import attributes as a
from tvm_ext.convert import Lowering, clip_bounds
from tvm_ext.functions import function_of, nodes_of, table_of
from tvm_ext.matching import Match, is_call, shape_of


def binary(match: Match, graph: Lowering) -> str:
    """Add, Mul, Sub, Div, Max and Min, with what activation follows."""
    operands = [graph.operand(match, index) for index in range(2)]
    function = match.main.op.name.removeprefix("relax.")
    if function == "add" and _is_repeated(shape_of(match.main.args[0]), match.output_shape):
        # ONNX Runtime's add rounds the right operand's product first, and swaps the two where it repeats the left.
        operands.reverse()
    result = graph.emit(match, "binary", operands, a.BinaryAttributes(function))
    if "relu" in match.parts:
        return graph.emit(match, "unary", [result], a.UnaryAttributes("relu"), label="relu")
    if "clip" in match.parts:
        return graph.emit(match, "unary", [result], a.UnaryAttributes("clip", clip_bounds(match)), label="clip")
    return result


def prelu(match: Match, graph: Lowering) -> str:
    """PRelu with a slope for each index of one axis."""
    shape = [1] * len(match.output_shape)
    shape[int(match.attrs.axis)] = -1
    slope = graph.constant_operand(match, match.operands[1], "slope", shape)
    return graph.emit(match, "binary", [graph.operand(match, 0), slope], a.BinaryAttributes("prelu"))


def function_of_one(match: Match, graph: Lowering) -> str:
    """Relu, Clip, LeakyRelu, PRelu, Elu, Selu, Celu, ThresholdedRelu, Sigmoid, HardSigmoid, HardSwish, Tanh, Softplus,
    Softsign, Mish, Gelu, Erf, Exp, Log, Sqrt, Reciprocal, Pow, Neg, Abs, Sign, Sin, Cos, Floor, Ceil, Round, and chains
    of them with Add, Sub, Mul, Div, Max and Min of the same tensor and constant numbers, as one table.
    """
    nodes = nodes_of(match)
    named = function_of(nodes[0]) if len(nodes) == 1 else None
    if named is not None:
        return graph.emit(match, "unary", [graph.input(match)], a.UnaryAttributes(*named))
    if is_call(match.main, "relax.clip") and len(nodes) == 1:
        bounds = tuple(float(bound.value) for bound in match.main.args[1:3])
        return graph.emit(match, "unary", [graph.input(match)], a.UnaryAttributes("clip", bounds))
    table = graph.builder.constant(f"{match.node.name}.table", table_of(match).view(np.uint8))
    return graph.emit(match, "table", [graph.input(match), table])


def identity(match: Match, graph: Lowering) -> str:
    """A change of scale."""
    return graph.emit(match, "unary", [graph.input(match)], a.UnaryAttributes("identity"))


def _is_repeated(shape: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether a broadcast repeats the operand along the innermost axis that is longer than 1."""
    aligned = (1,) * (len(output) - len(shape)) + shape
    return next((have == 1 for have, want in zip(reversed(aligned), reversed(output), strict=True) if want > 1), False)
