"""What Relax lowers an ONNX node to: the TIR functions of its host form, as stages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import onnx
import tvm
from tvm import relax

from tvm_ext.kernel_plans import Kernels, OperandSource, Plan, Source
from tvm_ext.tir_plans import PlanBuilder
from tvm_ext.whole import HOST_FORM


def kernels_of(host_forms: Mapping[str, tvm.IRModule], spm_bytes: int) -> Kernels:
    """Plans of nodes by what TVM would run on the host."""
    return Kernels(partial(_plan, host_forms), spm_bytes)


def _plan(host_forms: Mapping[str, tvm.IRModule], node: onnx.NodeProto) -> Plan:
    """Raises ValueError for what has no TIR, or TIR that is no stages."""
    form = host_forms.get(node.name)
    if form is None:
        raise ValueError("TVM does not compute it")
    return _Planner(relax.transform.LegalizeOps()(form)).plan()


class _Planner:
    """What each variable of the lowered function is."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.module, self.function, self.builder = module, module[HOST_FORM], PlanBuilder()
        self.known: dict[Any, Source | tuple[Source, ...]] = {
            parameter: OperandSource(index) for index, parameter in enumerate(self.function.params)
        }

    def plan(self) -> Plan:
        """All bindings, one after the other."""
        for binding in (binding for block in self.function.body.blocks for binding in block.bindings):
            self.known[binding.var] = self._value(binding.value)
        result = self._value(self.function.body.body)
        return self.builder.plan(result if isinstance(result, tuple) else (result,))

    def _value(self, value: Any) -> Any:
        if isinstance(value, relax.Var):
            return self.known[value]
        if isinstance(value, tvm.ir.GenericConst):
            return value.value.numpy()
        if isinstance(value, relax.Tuple):
            return tuple(self._value(item) for item in value.fields)
        if isinstance(value, relax.TupleGetItem):
            return self._value(value.tuple_value)[value.index]
        if isinstance(value, tvm.ir.Call) and getattr(value.op, "name", "") == "relax.call_tir":
            results = self._called(value)
            return results[0] if len(results) == 1 else results
        raise ValueError(f"TVM lowers it to {getattr(getattr(value, 'op', value), 'name', type(value).__name__)}")

    def _called(self, call: Any) -> tuple[Source, ...]:
        function, arguments = self.module[call.args[0]], [self._value(each) for each in call.args[1].fields]
        return self.builder.call(function, str(call.args[0].name_hint), arguments)
