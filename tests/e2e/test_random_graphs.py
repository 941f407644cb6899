"""Random networks on random machines: the emulator equals the NumPy reference, every element, with all checks on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npu_backend.errors import CapacityError
from npu_backend.graph import Graph
from npu_backend.machine import Machine, load_machine
from npu_backend.pipeline import compile_graph
from npu_backend.reference import evaluate
from npu_backend.runtime import Emulator
from npu_backend.strategies import STRATEGIES, Strategy
from npu_backend.verify import verify
from tests.e2e.random_graphs import networks
from tests.ops.cases import draw

MACHINES = [("exynos2100", 1), ("exynos2100", 2), ("exynos2100", 3), ("mesh16", 4), ("mesh16", 7), ("ring4", 4),
            ("biglittle", 2)]  # fmt: skip
SPM_BYTES = [1 << 16, 1 << 17, 1 << 20]

machines = st.builds(
    lambda machine, spm_bytes: load_machine(machine[0]).take(machine[1]).with_spm_bytes(spm_bytes),
    st.sampled_from(MACHINES),
    st.sampled_from(SPM_BYTES),
)
strategies = st.builds(
    lambda strategy, forward: replace(strategy, forward=forward),
    st.sampled_from([strategy for strategy in STRATEGIES.values() if strategy.name != "single"]),
    st.sampled_from([True, True, True, False]),
)


def verified(_: str, stage: object) -> None:
    verify(stage, thorough=True)


def check(graph: Graph, machine: Machine, strategy: Strategy) -> None:
    rng = np.random.default_rng(len(graph.ops))
    port = graph.inputs[0]
    tensor = graph.tensor(port.tensor)
    inputs = {port.host_name: draw(rng, port.host_shape(tensor), tensor.dtype)}
    try:
        program = compile_graph(graph, machine, strategy, verified)
    except CapacityError:
        assert machine.cores[0].spm_bytes == SPM_BYTES[0], "no tile fits a scratchpad that is large enough"
        return
    expected = evaluate(graph, inputs)
    with Emulator(program.to_bytes()) as emulator:
        actual = emulator.run(inputs, check=True)
        assert emulator.time().total_ns > 0
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, name)


quiet = settings(suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow, HealthCheck.filter_too_much])


@settings(quiet, max_examples=15)
@given(networks(), machines, strategies)
def test_some_networks(graph: Graph, machine: Machine, strategy: Strategy) -> None:
    check(graph, machine, strategy)


@pytest.mark.slow
@settings(quiet, max_examples=150)
@given(networks(), machines, strategies)
def test_many_networks(graph: Graph, machine: Machine, strategy: Strategy) -> None:
    check(graph, machine, strategy)
