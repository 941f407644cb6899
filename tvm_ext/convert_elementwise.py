"""From matches to the element-wise operators of the NPU graph."""

from __future__ import annotations

import numpy as np

from npu_backend.graph import FLOATS
from npu_backend.ops import attributes as a
from tvm_ext.functions import BINARY, function_of, table_of
from tvm_ext.lowering import ElementType, Lowering
from tvm_ext.matching import Match

# ONNX's comparisons, logic and powers; the rest is `functions.BINARY`.
_BINARY = {
    **BINARY, "Pow": "power", "Mod": "modulo", "Equal": "equal", "Greater": "greater",
    "GreaterOrEqual": "greater_or_equal", "Less": "less", "LessOrEqual": "less_or_equal", "And": "and", "Or": "or",
    "Xor": "xor",
}  # fmt: skip


def binary(match: Match, graph: Lowering) -> str:
    """Functions of two tensors, of more one after the other."""
    function = "fmod" if match.attribute("fmod", 0) else _BINARY[match.node.op_type]
    operands = [graph.read_aligned(match, index) for index in range(len(match.operands))]
    if function == "add" and _is_repeated(match.shape(0), match.output_shape):
        # ONNX Runtime's add rounds the right operand's product first, and swaps the two where it repeats the left.
        operands.reverse()
    attributes = a.BinaryAttributes(function)
    result, *rest = operands
    for index, operand in enumerate(rest):
        last = index + 1 == len(rest)
        result = graph.emit(match, "binary", [result, operand], attributes, label="" if last else f"step{index}",
                            type=None if last else graph.inner_type(match))  # fmt: skip
    if match.activation is None:
        return result
    named = function_of(match.program, match.activation)
    assert named is not None, match.activation.name
    return graph.emit(match, "unary", [result], a.UnaryAttributes(*named), label=named[0])


def mean_of_several(match: Match, graph: Lowering) -> str:
    """Mean of several tensors."""
    result, *rest = (graph.read_aligned(match, index) for index in range(len(match.operands)))
    for index, operand in enumerate(rest):
        result = graph.emit(match, "binary", [result, operand], a.BinaryAttributes("add"), label=f"sum{index}",
                            type=graph.inner_type(match))  # fmt: skip
    number = graph.number(match, 1 / len(match.operands), len(match.output_shape), "share")
    return graph.emit(match, "binary", [result, number], a.BinaryAttributes("multiply"))


def prelu(match: Match, graph: Lowering) -> str:
    """PRelu, the slope constant or computed."""
    operands = [graph.read_aligned(match, index) for index in range(2)]
    return graph.emit(match, "binary", operands, a.BinaryAttributes("prelu"))


def select(match: Match, graph: Lowering) -> str:
    """Where, broadcast."""
    return graph.emit(match, "select", [graph.read_aligned(match, index) for index in range(3)])


def unary(match: Match, graph: Lowering) -> str:
    """Functions of one tensor; between 8-bit codes a table, else in float32."""
    named = function_of(match.program, match.node)
    assert named is not None, match.node.name
    return graph.emit(match, "unary", [graph.read(match)], a.UnaryAttributes(*named))


def chain(match: Match, graph: Lowering) -> str:
    """Chains of functions of one 8-bit tensor and constant numbers, as one table."""
    table = graph.builder.constant(f"{match.node.name}.table", table_of(match).view(np.uint8))
    return graph.emit(match, "table", [graph.read(match), table])


def identity(match: Match, graph: Lowering) -> str:
    """A change of scale."""
    return graph.recode(match, graph.read(match))


def cast(match: Match, graph: Lowering) -> str:
    """Cast between the NPU's data types; integers become float32, for half precision ends at 65504."""
    source, want = graph.read(match), graph.result_type(match)
    have = graph.type_of(source)
    if have.dtype in ("int32", "int64") and want.dtype == "float16":
        want = ElementType("float32")
    if have.dtype in FLOATS and want.codes is not None:
        # Towards zero, where storing a code would round.
        source = graph.typed(match, source, ElementType("int32"))
    return source if have.dtype in FLOATS and want.dtype in FLOATS else graph.typed(match, source, want)


def quantize(match: Match, graph: Lowering) -> str:
    """QuantizeLinear of a float tensor."""
    return graph.emit(match, "quantize", [graph.read(match)])


def dequantize(match: Match, graph: Lowering) -> str:
    """DequantizeLinear to a float tensor."""
    return graph.emit(match, "dequantize", [graph.read(match)])


def _is_repeated(shape: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether a broadcast repeats the operand along the innermost axis that is longer than 1."""
    aligned = (1,) * (len(output) - len(shape)) + shape
    return next((have == 1 for have, want in zip(reversed(aligned), reversed(output), strict=True) if want > 1), False)
