"""What Relay lowers an ONNX node to: the TIR function of every operator of its form, as stages."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relay
from tvm.relay.backend.te_compiler import lower_to_primfunc
from tvm.relay.frontend.common import fold_constant

from tvm_ext.kernel_plans import Kernels, OperandSource, Plan
from tvm_ext.relay_host import host_triple
from tvm_ext.relay_import import REFUSALS, NodeForm, RelayModel, reason_of
from tvm_ext.relay_structured import constant
from tvm_ext.tir_plans import PlanBuilder
from tvm_ext.values import Variable


def kernels_of(imported: RelayModel, spm_bytes: int) -> Kernels:
    """Plans of nodes by what TVM would run on the host."""
    return Kernels(partial(_plan, imported), spm_bytes)


def _plan(imported: RelayModel, node: onnx.NodeProto) -> Plan:
    """Raises ValueError for what has no TIR, or TIR that is no stages."""
    form = imported.forms[node.name]
    if form.refusal is not None:
        raise ValueError("TVM does not compute it")
    reads = [imported.named[name] for name in form.operands]
    variables = list(dict.fromkeys(value for value in reads if isinstance(value, Variable)))
    try:
        function = _lowered(form)
        operands = [OperandSource(variables.index(value)) for value in reads if isinstance(value, Variable)]
        return _Planner(function, operands).plan()
    except REFUSALS as error:
        raise ValueError(reason_of(error)) from error


def _lowered(form: NodeForm) -> relay.Function:
    """The node as a function of what it reads, down to operators that TVM knows how to compute."""
    function = relay.Function(list(form.operands.values()), relay.Tuple(list(form.results.values())))
    passes = (
        relay.transform.InferType(),
        relay.qnn.transform.CanonicalizeOps(),
        relay.transform.SimplifyInference(),
        relay.transform.InferType(),
    )
    return tvm.transform.Sequential(passes, opt_level=3)(tvm.IRModule.from_expr(function))["main"]


class _Planner:
    """The steps so far, and what each expression of the lowered function is."""

    def __init__(self, function: relay.Function, operands: list[OperandSource]) -> None:
        self.function, self.builder = function, PlanBuilder()
        self.known: dict[relay.Expr, Any] = dict(zip(function.params, operands, strict=True))

    def plan(self) -> Plan:
        order: list[relay.Expr] = []
        relay.analysis.post_order_visit(self.function.body, order.append)
        for expression in order:
            if not isinstance(expression, tvm.ir.Op) and expression not in self.known:
                self.known[expression] = self._value(expression)
        return self.builder.plan(self.known[self.function.body])

    def _value(self, value: relay.Expr) -> Any:
        """A source, or a tuple of sources."""
        if isinstance(value, relay.Constant):
            return value.data.numpy()
        if isinstance(value, relay.Tuple):
            return tuple(self.known[item] for item in value.fields)
        if isinstance(value, relay.TupleGetItem):
            return self.known[value.tuple_value][value.index]
        if isinstance(value, relay.Call) and isinstance(value.op, tvm.ir.Op):
            return self._stages(value)
        raise ValueError(f"TVM lowers it to {type(value).__name__}")

    def _stages(self, call: relay.Call) -> Any:
        parameters: list[relay.Var] = []
        sources: list[Any] = []
        arguments = [self._argument(each, parameters, sources) for each in call.args]
        alone = relay.Function(parameters, relay.Call(call.op, arguments, call.attrs, call.type_args))
        if all(isinstance(source, np.ndarray) for source in sources):
            return _computed(alone, sources)
        results = self.builder.call(_lowered_alone(alone), call.op.name, sources)
        return results if isinstance(call.checked_type, relay.TupleType) else results[0]

    def _argument(self, value: relay.Expr, parameters: list[relay.Var], sources: list[Any]) -> relay.Expr:
        """Variables in the place of what an operator reads, a tuple's tensors one by one."""
        known, kind = self.known[value], value.checked_type
        is_tuple = isinstance(kind, relay.TupleType)
        made = [
            relay.Var(f"operand{len(parameters) + i}", each)
            for i, each in enumerate(kind.fields if is_tuple else [kind])
        ]
        parameters += made
        sources += known if is_tuple else [known]
        return relay.Tuple(made) if is_tuple else made[0]


def _computed(function: relay.Function, arrays: Sequence[np.ndarray]) -> Any:
    """The result of a function, or its results."""
    constants = dict(zip(function.params, map(constant, arrays), strict=True))
    result = fold_constant(relay.bind(function.body, constants))
    if isinstance(result, relay.Tuple):
        return tuple(item.data.numpy() for item in result.fields)
    return result.data.numpy()


def _lowered_alone(function: relay.Function) -> tvm.tir.PrimFunc:
    """The function of one operator."""
    module = tvm.IRModule.from_expr(function.with_attr("Primitive", tvm.tir.IntImm("int32", 1)))
    # It warns of what is not fast on a processor.
    typed = relay.transform.InferType()(module)["main"]
    try:
        with _quiet("strategy"):
            return lower_to_primfunc(typed, _target())
    except tvm.TVMError as error:
        # TVM says so with the text of the whole function.
        if "Failed to convert the Relay function" not in str(error):
            raise
        raise ValueError(f"TVM does not lower {function.body.op.name} to loops over elements") from error


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@cache
def _target() -> tvm.target.Target:
    """No processor's: the plain way to compute an operator, without a layout or an intrinsic."""
    return tvm.target.Target({"kind": "llvm", "keys": ["generic"], "mtriple": host_triple()})
