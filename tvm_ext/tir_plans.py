"""Calls of PrimFuncs one after the other as a plan of stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tvm_ext import tir_api as api
from tvm_ext.kernel_plans import Plan, Source, StageSource, Step
from tvm_ext.tir_moves import moved
from tvm_ext.tir_stages import Stage, stages_of


class PlanBuilder:
    """Collects the stages of calls; what is known when all of it is constant is computed here."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def call(self, function: Any, name: str, arguments: Sequence[Source]) -> tuple[Source, ...]:
        """The results of a PrimFunc for these arguments, in the order of its last parameters.

        Raises ValueError for TIR that is no stages.
        """
        buffers = api.parameters_of(function)
        held: list[tuple[Any, Source]] = list(zip(buffers, arguments))
        for stage in stages_of(function, name):
            sources = tuple(next(source for buffer, source in held if buffer.same_as(each)) for each in stage.inputs)
            held.append((stage.output, self._source(stage, sources)))
        return tuple(_results(held, buffers[len(arguments) :]))

    def plan(self, results: Sequence[Source]) -> Plan:
        """The finished plan."""
        return Plan(tuple(self._steps), tuple(results))

    def _source(self, stage: Stage, sources: tuple[Source, ...]) -> Source:
        known = [source for source in sources if isinstance(source, np.ndarray)]
        result = moved(stage, known) if len(known) == len(sources) else None
        if result is not None:
            return result
        dtypes, shapes = map(api.element_type, stage.inputs), map(api.shape_of, stage.inputs)
        self._steps.append(Step(stage, sources, tuple(dtypes), tuple(shapes)))
        return StageSource(len(self._steps) - 1)


def _results(held: Sequence[tuple[Any, Source]], buffers: Sequence[Any]) -> Iterator[Source]:
    for output in buffers:
        found = [source for buffer, source in held if buffer.same_as(output)]
        if not found:
            raise ValueError("one of its outputs is written by no stage")
        yield found[-1]
