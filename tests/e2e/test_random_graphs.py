"""Random networks on random machines: the emulator equals the NumPy reference, every element, with all checks on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npu_backend.errors import CapacityError
from npu_backend.graph import Graph
from npu_backend.machine import Machine, load_machine
from npu_backend.pipeline import compile_graph
from npu_backend.reference import evaluate
from npu_backend.runtime import Emulator
from npu_backend.strategies import STRATEGIES, Strategy
from tests.e2e.random_graphs import network
from tests.ops.case import draw

FAST, ALL = 30, 300
MACHINES = (("exynos2100", 1), ("exynos2100", 2), ("exynos2100", 3), ("mesh16", 4), ("mesh16", 7), ("ring4", 4),
            ("biglittle", 2), ("exynos2200", 2), ("torus16", 9), ("mesh64", 16))  # fmt: skip
SPM_BYTES = (1 << 15, 1 << 16, 1 << 17, 1 << 20)
DIVIDING = tuple(strategy for strategy in STRATEGIES.values() if strategy.name != "single")


def check(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph, machine, strategy = network(rng), pick_machine(rng), pick_strategy(rng)
    port = graph.inputs[0]
    tensor = graph.tensor(port.tensor)
    inputs = {port.host_name: draw(rng, port.host_shape(tensor), tensor.dtype)}
    try:
        program = compile_graph(graph, machine, strategy, check=True)
    except CapacityError:
        assert machine.cores[0].spm_bytes == SPM_BYTES[0], "no tile fits a scratchpad that is large enough"
        return
    compare(program.to_bytes(), inputs, evaluate(graph, inputs))


def compare(program: bytes, inputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    with Emulator(program) as emulator:
        actual = emulator.run(inputs, check=True)
        assert emulator.time().total_ns > 0
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, name)


def pick_machine(rng: np.random.Generator) -> Machine:
    name, cores = MACHINES[int(rng.integers(len(MACHINES)))]
    machine = load_machine(name)
    return machine.take(min(cores, len(machine.cores))).with_spm_bytes(int(rng.choice(SPM_BYTES)))


def pick_strategy(rng: np.random.Generator) -> Strategy:
    return replace(DIVIDING[int(rng.integers(len(DIVIDING)))].alone, forward=bool(rng.integers(4)))


@pytest.mark.parametrize("seed", range(FAST))
def test_network(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FAST, ALL))
def test_more_networks(seed: int) -> None:
    check(seed)


def test_networks_are_of_every_kind() -> None:
    graphs: list[Graph] = [network(np.random.default_rng(seed)) for seed in range(FAST)]
    kinds = {op.kind for graph in graphs for op in graph.ops}
    assert kinds >= {"conv2d", "conv_transpose2d", "dense", "pool2d", "binary", "concat", "resize2d", "pad", "slice",
                     "unary", "global_average_pool"}  # fmt: skip
    assert min(len(graph.ops) for graph in graphs) >= 5
