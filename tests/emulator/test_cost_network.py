"""The cost model's view of the network, beside the clock."""

from __future__ import annotations

import pytest

from npu_backend.cost import CostModel
from npu_backend.isa import Engine
from npu_backend.machine import load_machine, machine_names
from npu_backend.network import machine_records
from npu_backend.program import DRAM_NODE
from tests.emulator.replay import machine, replay, send_multicast


@pytest.mark.parametrize("name", machine_names())
def test_cost_model_and_clock_agree_on_a_lone_multicast(name: str) -> None:
    on = load_machine(name)
    cost = CostModel(on)
    for core in range(0, len(on.cores), 3):
        others = [other for other in range(len(on.cores)) if cost.reaches(core, other)][::2]
        if others:
            timing, _ = replay(on, {(core, Engine.NETWORK): send_multicast(0, 4117, *others)})
            assert timing.total_ns == pytest.approx(cost.send_ns(core, others, 4117))


def test_a_multicast_to_one_is_a_send() -> None:
    cost = CostModel(machine(3))
    assert cost.send_ns(0, [2], 1000) == cost.transfer_ns(0, 1000, 1000, to_core=2) == 10 + 2 + 1000 / 50


def test_resources_that_limit() -> None:
    """On the crossbar of the tests the ports of 10 bytes/ns limit before the links of 50 and the DMA of 100."""
    cost, records = CostModel(machine(3)), machine_records(machine(3))
    names = [row["name"] for row in records.resources]
    assert [names[step] for step in cost.path_resources(DRAM_NODE, 1)] == ["dram", "core1.in", "core1.memory"]
    assert cost.resource_bytes_per_ns[names.index("core1.memory")] == 10
    # What enters a core by its link is loads, which its port limits, and what others send: neither covers the other.
    assert [names[step] for step in cost.path_resources(0, 2)] == ["core0.out", "core2.in"]


@pytest.mark.parametrize("name", machine_names())
def test_every_resource_left_out_has_a_narrower_one_on_each_path(name: str) -> None:
    on = load_machine(name)
    cost, records = CostModel(on), machine_records(on)
    widths = cost.resource_bytes_per_ns
    for row in records.paths:
        steps = records.path_steps[row["first_step"] : row["first_step"] + row["step_count"]]
        kept = cost.path_resources(row["source"], row["destination"])
        assert set(kept) <= set(steps)
        assert min(widths[step] for step in kept) == min(widths[step] for step in steps)
