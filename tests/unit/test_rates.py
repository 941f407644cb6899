"""A machine that cannot multiply a graph's data type is refused by name, with those that can."""

from __future__ import annotations

import numpy as np
import pytest

from npu_backend.errors import UnsupportedError
from npu_backend.graph import Graph, GraphBuilder, Tensor
from npu_backend.machine import load_machine
from npu_backend.ops import append_op
from npu_backend.ops.attributes import ConvAttributes, ReshapeAttributes
from npu_backend.pipeline import compile_graph
from npu_backend.rates import check_rates
from npu_backend.strategies import strategy_named


def half_graph(*, multiplies: bool) -> Graph:
    b = GraphBuilder("half")
    x = b.input(Tensor("x", (1, 4, 4, 3), "float16"), "x")
    if multiplies:
        weight = b.constant("w", np.ones((5, 3, 1, 1), np.float16))
        y = append_op(b, "conv2d", (x, weight), ConvAttributes((1, 1), (0,) * 4, (1, 1), 1), name="conv0",
                      dtype="float16")  # fmt: skip
    else:
        y = append_op(b, "reshape", (x,), ReshapeAttributes((1, 48)), name="flat", dtype="float16")
    b.output(y, "y")
    return b.freeze()


def test_refusal_names_operator_machine_and_levers() -> None:
    machine = load_machine("exynos2100")
    with pytest.raises(UnsupportedError) as caught:
        compile_graph(half_graph(multiplies=True), machine, strategy_named("base"))
    for part in ("conv2d conv0", "float16", "exynos2100", "exynos2200", "mesh16", "ring4", "--quantize int8"):
        assert part in str(caught.value)
    check_rates(half_graph(multiplies=False), machine)


@pytest.mark.parametrize("name", ["exynos2200", "mesh16", "ring4", "biglittle"])
def test_named_machines_multiply_it(name: str) -> None:
    check_rates(half_graph(multiplies=True), load_machine(name))
