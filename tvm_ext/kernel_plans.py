"""Operators of the vector processor: what TVM lowers an ONNX node to, as stages that become kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx

from npu_backend.box import Box
from npu_backend.graph import CODES
from npu_backend.kernels import MAX_OPERANDS, TileFunction
from npu_backend.ops import append_op
from npu_backend.ops.attributes import KernelAttributes
from npu_backend.program import MAX_RANK
from tvm_ext.lowering import ElementType, Lowering
from tvm_ext.matching import PLAIN, Match

# Of the scratchpad: what a tile of one element may take, its loads twice.
_SHARE = 0.5


@dataclass(frozen=True)
class OperandSource:
    """What a stage reads: the node's computed operand of this number."""

    index: int


@dataclass(frozen=True)
class StageSource:
    """What a stage reads: the output of an earlier one."""

    index: int


Source = OperandSource | StageSource | np.ndarray


class StageFunction(TileFunction, Protocol):
    """A stage as a front end makes it."""

    inputs: Sequence[Any]


@dataclass(frozen=True)
class Step:
    """A stage, where its inputs come from, and their data types."""

    function: TileFunction
    sources: tuple[Source, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Plan:
    """The stages of a node in order, and which of them are its outputs."""

    steps: tuple[Step, ...]
    results: tuple[Source, ...]

    def needed(self, result: int) -> Iterator[int]:
        """The stages that one of the outputs takes, in order."""
        waiting, found = [self.results[result]], set()
        while waiting:
            source = waiting.pop()
            if isinstance(source, StageSource) and source.index not in found:
                found.add(source.index)
                waiting.extend(self.steps[source.index].sources)
        yield from sorted(found)


@dataclass(frozen=True)
class Kernels:
    """The plans of a model's nodes, made when they are asked for.

    `make` raises ValueError that says why a node cannot be lowered to kernels. `spm_bytes`: the smallest scratchpad.
    """

    make: Callable[[onnx.NodeProto], Plan]
    spm_bytes: int
    _plans: dict[str, Plan | str] = field(default_factory=dict)

    def plan(self, node: onnx.NodeProto) -> Plan | str:
        """The plan of a node, or why there is none."""
        if node.name not in self._plans:
            try:
                plan = self.make(node)
                self._plans[node.name] = _objection(plan, self.spm_bytes) or plan
            except ValueError as error:
                self._plans[node.name] = str(error)
        return self._plans[node.name]


def _objection(plan: Plan, spm_bytes: int) -> str | None:
    """Why a plan cannot be run, None where it can."""
    if not all(isinstance(result, StageSource) for result in plan.results):
        return "one of its outputs is known or an input"
    for step in plan.steps:
        if len(step.sources) + 1 > MAX_OPERANDS:
            return f"{step.function.name} has {len(step.sources) + 1} operands, a kernel up to {MAX_OPERANDS}"
        if any(len(shape) > MAX_RANK for shape in (*step.shapes, step.function.shape)):
            return f"{step.function.name} has tensors of more than {MAX_RANK} axes"
        if not step.sources:
            return f"{step.function.name} reads nothing"
        if 0 in step.function.shape:
            return f"{step.function.name} makes nothing"
        least = _least_bytes(step)
        if least > spm_bytes * _SHARE:
            return (f"{step.function.name} needs {least} bytes of a scratchpad of {spm_bytes} for one element of its"
                    " output: use a machine with more, or a smaller model")  # fmt: skip
    return None


def _least_bytes(step: Step) -> int:
    """Of a tile of one element."""
    box = Box((0,) * len(step.function.shape), (1,) * len(step.function.shape))
    boxes = step.function.input_boxes(box)
    loaded = sum(each.size * np.dtype(dtype).itemsize for each, dtype in zip(boxes, step.dtypes, strict=True))
    return loaded + np.dtype(step.function.dtype).itemsize


def convert(match: Match, graph: Lowering) -> str:
    """Anything that TVM can lower, stage by stage, on the vector processor of every core."""
    kernels = match.program.kernels
    assert kernels is not None
    plan = kernels.plan(match.node)
    assert isinstance(plan, Plan), plan
    name = match.program.sources[match.root].value
    number = [output for output in match.node.output if output].index(name)
    result = plan.results[number]
    assert isinstance(result, StageSource)
    made: dict[int, str] = {}
    for index in plan.needed(number):
        step = plan.steps[index]
        inputs = [_tensor(match, graph, made, source, dtype, f"stage{index}.operand{i}")
                  for i, (source, dtype) in enumerate(zip(step.sources, step.dtypes, strict=True))]  # fmt: skip
        made[index] = _emit(match, graph, step, inputs, is_last=index == result.index)
    return made[result.index]


def _tensor(match: Match, graph: Lowering, made: Mapping[int, str], source: Source, dtype: str, label: str) -> str:
    if isinstance(source, StageSource):
        return made[source.index]
    if isinstance(source, OperandSource):
        tensor = graph.tensors[match.inputs[source.index]]
        return tensor if graph.type_of(tensor).dtype == dtype else graph.typed(match, tensor, ElementType(dtype))
    return graph.builder.constant_tensor(f"{match.node.name}.{label}", source, PLAIN if dtype in CODES else None)


def _emit(match: Match, graph: Lowering, step: Step, inputs: Sequence[str], *, is_last: bool) -> str:
    codes = None
    if step.function.dtype in CODES:
        codes = match.output_codes or PLAIN if is_last else PLAIN
    return append_op(
        graph.builder, "kernel", inputs, KernelAttributes(step.function),
        name=match.node.name if is_last else step.function.name, dtype=step.function.dtype, quantization=codes,
        origin=tuple(name for name, _ in match.origins),
    )  # fmt: skip
