"""Constant tensors through the passes: stored in their readers' order, and as tables where they are single numbers."""

from __future__ import annotations

import numpy as np
import pytest

from npu_backend.graph import Graph
from npu_backend.passes.legalize import legalize
from npu_backend.passes.tabulate import tabulate
from npu_backend.reference import evaluate
from tests.ops.case import build, draw_inputs
from tests.ops.cases import CASES


def graph_of(label: str) -> Graph:
    return build(next(case for case in CASES if str(case) == f"binary-{label}-uint8"))


def test_a_constant_lies_in_the_order_of_its_reader() -> None:
    graph = graph_of("multiply-constant-rows-turned")
    legal = legalize(graph)
    assert [op.kind for op in legal.ops] == ["binary"]
    (name,) = legal.constant_tensors
    # Logical [1, 9, 1, 1] is [n, c, h, w], which is stored [n, h, w, c].
    assert legal.tensor(name).shape == (1, 1, 1, 9)
    np.testing.assert_array_equal(legal.constants[name].reshape(-1), graph.constants["c0"].reshape(-1))


@pytest.mark.parametrize("label", ["multiply-constant-scalar", "add-constant-channels"])
def test_a_single_number_becomes_a_table(label: str) -> None:
    graph = graph_of(label)
    tabulated, inputs = tabulate(graph), draw_inputs(graph, 1)
    np.testing.assert_array_equal(evaluate(tabulated, inputs)["y"], evaluate(graph, inputs)["y"])
    assert ("table" in [op.kind for op in tabulated.ops]) == (label == "multiply-constant-scalar")
