"""From matches to the element-wise operators of the NPU graph."""

from __future__ import annotations

from npu_backend.ops import attributes as a
from tvm_ext.convert import Lowering, clip_bounds
from tvm_ext.matching import Match, array_of, is_call, shape_of


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


def unary(match: Match, graph: Lowering) -> str:
    """Relu, Clip, Sigmoid, Tanh and LeakyRelu."""
    function = {"relax.nn.relu": "relu", "relax.nn.leakyrelu": "leaky_relu"}.get(match.main.op.name)
    parameters: tuple[float, ...] = ()
    if function == "leaky_relu":
        parameters = (float(match.attrs.alpha),)
    elif is_call(match.main, "relax.clip"):
        parameters = clip_bounds(match)
    attributes = a.UnaryAttributes(function or match.main.op.name.removeprefix("relax."), parameters)
    return graph.emit(match, "unary", [graph.input(match)], attributes)


def hard_sigmoid(match: Match, graph: Lowering) -> str:
    """HardSigmoid, which TVM's importer spells as clip(alpha * x + beta, 0, 1)."""
    alpha, beta = array_of(match.parts["product"].args[0]), array_of(match.parts["sum"].args[1])
    assert alpha is not None
    assert beta is not None
    attributes = a.UnaryAttributes("hard_sigmoid", (float(alpha), float(beta)))
    return graph.emit(match, "unary", [graph.input(match)], attributes)


def hard_swish(match: Match, graph: Lowering) -> str:
    """HardSwish, which TVM's importer spells as x * (clip(x + 3, 0, 6) / 6)."""
    return graph.emit(match, "unary", [graph.input(match)], a.UnaryAttributes("hard_swish"))


def identity(match: Match, graph: Lowering) -> str:
    """A change of scale."""
    return graph.emit(match, "unary", [graph.input(match)], a.UnaryAttributes("identity"))


def _is_repeated(shape: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether a broadcast repeats the operand along the innermost axis that is longer than 1."""
    aligned = (1,) * (len(output) - len(shape)) + shape
    return next((have == 1 for have, want in zip(reversed(aligned), reversed(output), strict=True) if want > 1), False)
