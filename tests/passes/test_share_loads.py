"""Loads that several cores make are one multicast, and no order of them waits for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from npu_backend.isa import Engine
from npu_backend.ops.base import Address, LoweredInstruction
from npu_backend.passes.dram import lay_out_dram
from npu_backend.passes.steps import StepBuilder
from npu_backend.pipeline import compile_graph
from npu_backend.runtime import Emulator
from npu_backend.stages import Scheduled, Step
from npu_backend.strategies import STRATEGIES
from tests.e2e.random_graphs import network
from tests.passes.networks import block, machine, stages


def load(core: int, dram: int, name: str = "LOAD") -> Step:
    values: dict[str, Any] = {"dram": dram, "spm": Address(0, 0), "run_bytes": 64, "counts": (1, 1, 1, 1),
                              "dram_strides": (0, 0, 0, 0), "spm_strides": (0, 0, 0, 0)}  # fmt: skip
    return Step(core, Engine.LOAD, (LoweredInstruction(name, values),), (), (), 0, "node")


def groups(steps: list[Step], *, multicast: bool = True) -> list[int | None]:
    target = machine("mesh16", 4)
    target = replace(target, network=replace(target.network, multicast=multicast))
    routed = stages(block(), target)["route"]
    builder = StepBuilder(routed, lay_out_dram(routed.tiled), frozenset(), 0.0)
    builder.steps += steps
    builder.share_loads(0)
    return [step.group for step in builder.steps]


def test_cores_that_load_the_same_share_a_group() -> None:
    assert groups([load(0, 0), load(0, 64), load(1, 0), load(1, 64), load(2, 128)]) == [0, 1, 0, 1, None]


def test_without_multicast_nobody_does() -> None:
    assert groups([load(0, 0), load(1, 0)], multicast=False) == [None, None]


def test_another_order_is_not_joined() -> None:
    """Core 1 takes the second first: both in one group each would wait for each other."""
    assert groups([load(0, 0), load(0, 64), load(1, 64), load(1, 0)]) == [None, 0, 0, None]


def test_loads_by_index_and_twice_by_one_core_stay_alone() -> None:
    assert groups([load(0, 0, "LOAD_ROWS"), load(1, 0, "LOAD_ROWS"), load(2, 0), load(2, 0)]) == [None] * 4


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5])
def test_programs_with_multicasts_end(seed: int) -> None:
    graph = network(np.random.default_rng(seed))
    made: dict[str, Any] = {}
    program = compile_graph(
        graph, machine("mesh16", 9, 1 << 17), STRATEGIES["halo"].alone, made.__setitem__, check=True
    )
    with Emulator(program.to_bytes()) as emulator:
        assert emulator.time().total_ns > 0
    scheduled = made["schedule"]
    assert isinstance(scheduled, Scheduled)
    assert any(step.group is not None for step in scheduled.steps)
