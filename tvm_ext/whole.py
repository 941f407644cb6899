"""ONNX operators that Relax says in several calls, kept as one until it is known who runs them.

In ``main`` such an operator is ``call_pure_packed("onnx.<OpType>", operands)``, one value to take or to leave;
attributes are read from the ONNX node. What TVM would have made of it, its host form, waits as a module by the node's
name and takes the call's place where the NPU does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import tvm
from tvm import relax

PREFIX = "onnx."
_CALL = "relax.call_pure_packed"
# The function of a host form; the others in its module are the TIR that it calls.
HOST_FORM = "host_form"


def onnx_call(expression: relax.Expr) -> str | None:
    """The ONNX operator type of such a call, None for anything else."""
    if not isinstance(expression, tvm.ir.Call) or not isinstance(expression.op, tvm.ir.Op):
        return None
    if expression.op.name != _CALL or not expression.args[0].global_symbol.startswith(PREFIX):
        return None
    return str(expression.args[0].global_symbol[len(PREFIX) :])


def whole(op_type: str, operands: Sequence[relax.Expr], host_form: tvm.IRModule) -> relax.Expr:
    """The call that stands for an operator."""
    function = relax.ExternFunc(f"{PREFIX}{op_type}")
    return relax.op.call_pure_packed(function, *operands, ty_args=host_form[HOST_FORM].ret_ty)


def is_one_call(host_form: tvm.IRModule) -> bool:
    """Whether TVM says the operator in one Relax operator, or in none at all."""
    values = [binding.value for binding in _bindings(host_form[HOST_FORM])]
    calls = [value for value in values if not isinstance(value, relax.Var | relax.Tuple)]
    # Further functions are TIR.
    return len(calls) < 2 and len(host_form.functions) == 1


def host_bindings(
    builder: relax.BlockBuilder, binding: relax.VarBinding, host_form: tvm.IRModule
) -> Iterator[relax.VarBinding]:
    """What the host runs in place of a call that nobody took; its TIR functions go into `builder`."""
    functions = {variable: builder.add_func(function, variable.name_hint)
                 for variable, function in host_form.functions.items() if variable.name_hint != HOST_FORM}  # fmt: skip
    copy = relax.utils.copy_with_new_vars(host_form[HOST_FORM])
    operands = dict.fromkeys(operand for operand in binding.value.args[1:] if isinstance(operand, relax.Var))
    bound = copy.bind_params(dict(zip(copy.params, operands, strict=True)))
    for inner in _bindings(bound):
        yield relax.VarBinding(inner.var, _relinked(inner.value, functions))
    yield relax.VarBinding(binding.var, bound.body.body)


def _relinked(value: relax.Expr, functions: Mapping[tvm.ir.GlobalVar, tvm.ir.GlobalVar]) -> relax.Expr:
    """The call with other functions in the place of those it names."""
    if not functions or not isinstance(value, tvm.ir.Call):
        return value
    return relax.Call(value.op, [functions.get(operand, operand) for operand in value.args], value.attrs, value.ty_args)


def _bindings(function: relax.Function) -> Iterator[relax.VarBinding]:
    for block in function.body.blocks:
        yield from block.bindings
