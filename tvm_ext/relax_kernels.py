"""What Relax lowers an ONNX node to: the TIR functions of its host form, as stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import onnx
import tvm
from tvm import relax

from tvm_ext import tir_api as api
from tvm_ext.kernel_plans import Kernels, OperandSource, Plan, Source, StageSource, Step
from tvm_ext.tir_stages import stages_of
from tvm_ext.whole import HOST_FORM


def kernels_of(host_forms: Mapping[str, tvm.IRModule], spm_bytes: int) -> Kernels:
    """Plans of nodes by what TVM would run on the host."""
    return Kernels(partial(_plan, host_forms), spm_bytes)


def _plan(host_forms: Mapping[str, tvm.IRModule], node: onnx.NodeProto) -> Plan:
    """Raises ValueError for what has no TIR, or TIR that is no stages."""
    form = host_forms.get(node.name)
    if form is None:
        raise ValueError("TVM does not compute it")
    return _Planner(relax.transform.LegalizeOps()(form), node).plan()


class _Planner:
    """The steps so far, and what each variable of the lowered function is."""

    def __init__(self, module: tvm.IRModule, node: onnx.NodeProto) -> None:
        self.module, self.node = module, node
        self.function = module[HOST_FORM]
        self.steps: list[Step] = []
        self.known: dict[Any, Source | tuple[Source, ...]] = {
            parameter: OperandSource(index) for index, parameter in enumerate(self.function.params)
        }

    def plan(self) -> Plan:
        for binding in (binding for block in self.function.body.blocks for binding in block.bindings):
            self.known[binding.var] = self._value(binding.value)
        result = self._value(self.function.body.body)
        return Plan(tuple(self.steps), result if isinstance(result, tuple) else (result,))

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
            return self._stages(value)
        raise ValueError(f"TVM lowers it to {getattr(getattr(value, 'op', value), 'name', type(value).__name__)}")

    def _stages(self, call: Any) -> Any:
        function = self.module[call.args[0]]
        arguments = [self._value(each) for each in call.args[1].fields]
        buffers = api.parameters_of(function)
        held: list[tuple[Any, Source]] = list(zip(buffers, arguments))
        for stage in stages_of(function, str(call.args[0].name_hint)):
            sources = tuple(next(source for buffer, source in held if buffer.same_as(each)) for each in stage.inputs)
            self.steps.append(Step(stage, sources, tuple(map(api.element_type, stage.inputs)),
                                   tuple(map(api.shape_of, stage.inputs))))  # fmt: skip
            held.append((stage.output, StageSource(len(self.steps) - 1)))
        results = [*self._results(held, buffers[len(arguments) :])]
        return results[0] if len(results) == 1 else tuple(results)

    def _results(self, held: list[tuple[Any, Source]], buffers: list[Any]) -> Iterator[Source]:
        for output in buffers:
            found = [source for buffer, source in held if buffer.same_as(output)]
            if not found:
                raise ValueError("one of its outputs is written by no stage")
            yield found[-1]
