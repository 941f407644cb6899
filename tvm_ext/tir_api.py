"""TIR under the names that both generations of TVM give it: the one place where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import tvm

from tvm_ext.generation import RELAX, generation

if generation() == RELAX:
    import tvm_ffi
    from tvm import s_tir
    from tvm import sym as arith
    from tvm import tirx as tir
    from tvm.ir import PointerType, PrimType

    _Schedule: Any = s_tir.Schedule
    _ScheduleError: Any = s_tir.ScheduleError
    _structural_equal: Any = tvm_ffi.structural_equal
    _ANNOTATION = "tirx.noalias"
else:
    from tvm import arith, tir
    from tvm.ir import PointerType, PrimType

    _Schedule = tir.Schedule
    _ScheduleError = tir.ScheduleError
    _structural_equal = tvm.ir.structural_equal
    _ANNOTATION = "tir.noalias"

__all__ = ["arith", "tir"]

Expr = Any
_REDUCTION = 2
_PLACES = "npu_places"
_OPERATORS = (
    "exp", "exp2", "log", "sqrt", "rsqrt", "pow", "tanh", "sigmoid", "erf", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "asinh", "acosh", "atanh", "atan2", "fmod", "log2", "log10", "log1p",
)  # fmt: skip


def blocks_of(function: Any) -> list[Any]:
    """The blocks of a function in order, those that only move or map elements inlined into their readers.

    Raises ValueError for a function that is one opaque block.
    """
    schedule = _Schedule(function)
    get_root = getattr(schedule, "get_sblock", None) or schedule.get_block
    try:
        root = get_root("root")
    except _ScheduleError as error:
        calls = "call_packed" in function.script()
        block = function.body.block.name_hint
        raise ValueError("it calls TVM's runtime" if calls else f"{block} is no expression of one element") from error
    for block in schedule.get_child_blocks(root):
        try:
            schedule.compute_inline(block)
        # A block that cannot be inlined, for it reduces or is an output, stays.
        except _ScheduleError:
            continue
    return [schedule.get(block) for block in schedule.get_child_blocks(root)]


def parameters_of(function: Any) -> list[Any]:
    """The buffers of a function's parameters in order."""
    buffer_map = getattr(function, "buffer_map", None)
    return [buffer_map[each] if buffer_map is not None else each for each in function.params]


def is_reduction(iter_var: Any) -> bool:
    """Whether a block's variable is summed over."""
    return int(iter_var.iter_type) == _REDUCTION


def kind_of(expression: Expr) -> str:
    """The class of an expression, loads under one name."""
    name = type(expression).__name__
    return "BufferLoad" if name == "TensorLoad" else name


def dtype_of(expression: Expr) -> str:
    """Data type of a scalar expression or variable."""
    return str(expression.ty if generation() == RELAX else expression.dtype)


def element_type(buffer: Any) -> str:
    """Data type of a buffer's elements."""
    return str(buffer.dtype)


def shape_of(buffer: Any) -> tuple[int, ...]:
    """Static extents of a buffer; raises ValueError where one is not known."""
    return tuple(constant(extent) for extent in buffer.shape)


def constant(expression: Expr) -> int:
    """The number in an expression; raises ValueError where it is no constant."""
    if isinstance(expression, int):
        return expression
    if kind_of(expression) != "IntImm":
        raise ValueError(f"{expression} is no constant")
    return int(expression.value)


def buffer_of(load: Expr) -> Any:
    """What a load reads."""
    return load.source if type(load).__name__ == "TensorLoad" else load.buffer


def operator_of(call: Expr) -> str:
    """The name of a call's operator, without TVM's prefix."""
    return str(call.op.name).rpartition(".")[2] if hasattr(call.op, "name") else str(call.op)


def equal(left: Expr, right: Expr) -> bool:
    """Whether two expressions of the same variables are spelled alike."""
    return bool(_structural_equal(left, right))


def is_special(call: Expr) -> bool:
    """Whether a call takes many steps: a root, an exponential and the like."""
    return operator_of(call) in _OPERATORS


def children(expression: Expr) -> Iterator[Expr]:
    """The expressions that one is made of; raises ValueError for a kind that kernels do not know."""
    kind = kind_of(expression)
    if kind in _BINARY:
        yield from (expression.a, expression.b)
    elif kind in ("Cast", "Let"):
        yield expression.value
        if kind == "Let":
            yield expression.body
    elif kind in ("Not", "BitwiseNot"):
        yield expression.a
    elif kind == "Select":
        yield from (expression.condition, expression.true_value, expression.false_value)
    elif kind == "Call":
        yield from expression.args
    elif kind == "BufferLoad":
        yield from expression.indices
    elif kind not in ("IntImm", "FloatImm", "Var", "StringImm"):
        raise ValueError(f"TIR has a {kind}")


_BINARY = (
    "Add", "Sub", "Mul", "Div", "Mod", "FloorDiv", "FloorMod", "Min", "Max", "EQ", "NE", "LT", "LE", "GT", "GE", "And",
    "Or", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "LShift", "RShift",
)  # fmt: skip


def rebuilt(expression: Expr, parts: Sequence[Expr]) -> Expr:
    """The expression of other parts, in the order of `children`."""
    kind = kind_of(expression)
    if kind in _BINARY or kind in ("Not", "BitwiseNot"):
        return type(expression)(*parts)
    if kind == "Cast":
        return tir.Cast(dtype_of(expression), parts[0])
    if kind == "Select":
        return tir.Select(*parts)
    if kind == "Call":
        if generation() == RELAX:
            return tvm.ir.Call(expression.op, list(parts), expression.attrs, expression.ty_args, ret_ty=expression.ty)
        return tir.Call(dtype_of(expression), expression.op, list(parts))
    if kind == "Let":
        return tir.Let(expression.var, *parts)
    return expression


def replaced(expression: Expr, named: Sequence[tuple[Any, Expr]]) -> Expr:
    """The expression with others in place of variables."""
    if kind_of(expression) == "Var":
        return next((value for variable, value in named if variable.same_as(expression)), expression)
    return rebuilt(expression, [replaced(part, named) for part in children(expression)])


def stores_of(statement: Any) -> list[Any]:
    """The stores of a statement that is nothing else, one after the other, what it names put in where it is read.

    Raises ValueError for any other statement.
    """
    found: list[Any] = []
    named: list[tuple[Any, Expr]] = []
    waiting = [statement]
    while waiting:
        current = waiting.pop(0)
        kind = type(current).__name__
        if kind == "SeqStmt":
            waiting[:0] = current.seq
        elif kind in ("Bind", "LetStmt"):
            named.append((current.var, replaced(current.value, named)))
            waiting[:0] = [current.body] if kind == "LetStmt" else []
        elif kind == "BufferStore":
            found.append(tir.BufferStore(current.buffer, replaced(current.value, named), current.indices))
        else:
            raise ValueError(f"it has a {kind}")
    return found


def flat_buffer(name: str, dtype: str, elements: int) -> tuple[Any, Any, list[Any]]:
    """A parameter that is an address, the buffer of so many elements there, and statements that say so."""
    pointer = tir.Var(name, PointerType(PrimType(dtype)))
    if generation() == RELAX:
        buffer = tir.decl_buffer((elements,), dtype, name=f"{name}_data")
        return pointer, buffer, [tir.DeclBuffer(buffer, data=pointer)]
    return pointer, tir.decl_buffer((elements,), dtype, name=f"{name}_data", data=pointer), []


def loops(variables: Sequence[tuple[Any, int]], body: Any) -> Any:
    """The body for every value from 0 of the variables, the last the fastest."""
    for variable, extent in reversed(variables):
        zero, end = (tir.IntImm(dtype_of(variable), value) for value in (0, extent))
        body = tir.For(variable, zero, end, tir.ForKind.SERIAL, body)
    return body


def function_of(parameters: Sequence[Any], statements: Sequence[Any], places: int) -> Any:
    """A function of addresses that lie apart; behind the last so many of them is nothing to keep."""
    body = statements[0] if len(statements) == 1 else tir.SeqStmt(list(statements))
    return tir.PrimFunc(list(parameters), body).with_attr(_ANNOTATION, True).with_attr(_PLACES, places)


def places_of(function: Any) -> int:
    """How many of a function's parameters are places for single elements of its own."""
    return int(function.attrs[_PLACES])
