"""Input regions of every operator: output boxes depend on nothing outside them; parts need no more than wholes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npu_backend.box import Box
from npu_backend.graph import Graph, Op
from npu_backend.ops import spec_of
from tests.ops.case import Case, build, draw, operator
from tests.ops.cases import CASES

REGIONS = [case for case in CASES if case.dtype != "int8"]


def boxes(graph: Graph, op: Op, within: Box) -> st.SearchStrategy[Box]:
    """Boxes inside `within` that divide only the axes the operator allows, on the multiples it asks for."""
    allowed = spec_of(op).split_axes(graph, op)
    return st.tuples(*(_interval(*within.interval(axis), allowed.get(axis)) for axis in range(within.rank))).map(
        lambda intervals: Box(tuple(low for low, _ in intervals), tuple(high for _, high in intervals))
    )


def _interval(start: int, stop: int, multiple: int | None) -> st.SearchStrategy[tuple[int, int]]:
    if multiple is None:
        return st.just((start, stop))
    cuts = [*range(start, stop, multiple), stop]
    last = len(cuts) - 1
    return st.integers(0, last - 1).flatmap(
        lambda low: st.integers(low + 1, last).map(lambda high: (cuts[low], cuts[high]))
    )


@pytest.mark.parametrize("case", REGIONS, ids=str)
@settings(max_examples=3)
@given(data=st.data())
def test_output_box_needs_only_its_input_boxes(case: Case, data: st.DataObject) -> None:
    graph = build(case)
    op, rng = operator(graph), np.random.default_rng(case.seed)
    tensors = [graph.tensor(name) for name in graph.activations(op)]
    inputs = [draw(rng, tensor.shape, tensor.dtype) for tensor in tensors]
    out_box = data.draw(boxes(graph, op, graph.tensor(op.output).box))
    needed = spec_of(op).input_boxes(graph, op, out_box)
    hidden = []
    for tensor, value, box in zip(tensors, inputs, needed, strict=True):
        assert tensor.box.contains(box), (str(tensor.box), str(box))
        garbage, inside = draw(rng, tensor.shape, tensor.dtype), slices(box)
        garbage[inside] = value[inside]
        hidden.append(garbage)
    whole, part = (spec_of(op).reference(graph, op, values)[slices(out_box)] for values in (inputs, hidden))
    np.testing.assert_array_equal(part, whole, f"output box {out_box}")


@pytest.mark.parametrize("case", REGIONS, ids=str)
@settings(max_examples=6)
@given(data=st.data())
def test_parts_of_a_box_need_no_more_than_the_box(case: Case, data: st.DataObject) -> None:
    graph = build(case)
    op = operator(graph)
    whole = data.draw(boxes(graph, op, graph.tensor(op.output).box))
    part = data.draw(boxes(graph, op, whole))
    spec = spec_of(op)
    pairs = zip(spec.input_boxes(graph, op, whole), spec.input_boxes(graph, op, part), strict=True)
    for outer, inner in pairs:
        assert outer.contains(inner), f"{part} in {whole} needs {inner}, the whole {outer}"


def slices(box: Box) -> tuple[slice, ...]:
    return tuple(map(slice, box.starts, box.stops))
