"""Tile: what the search remembers, and what cores share."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as draw

from npu_backend.cost import CostModel
from npu_backend.machine_types import Machine
from npu_backend.passes.fuse import fuse
from npu_backend.passes.partition import partition
from npu_backend.passes.reside import reside
from npu_backend.passes.tile import Search, TileSearch
from npu_backend.passes.tile_estimate import Task
from npu_backend.stages import Resident, Tiling
from npu_backend.strategies import STRATEGIES
from tests.passes.networks import Network, machine


def test_what_is_remembered_of_a_layer_holds_in_another_order() -> None:
    """Plans of one network differ in their order; these two read and write the same boxes, at very different costs."""
    net = Network("siblings")
    source = net.source((1, 24, 24, 32))
    net.output(net.conv(source, 32, label="light"), "l")
    net.output(net.conv(source, 32, (5, 5), label="heavy"), "h")
    strategy, chosen = STRATEGIES["base"], machine(cores=1, spm_bytes=1 << 16)
    made = partition(fuse(net.freeze()), CostModel(chosen), strategy)
    turned = replace(made, fused=made.fused.reordered([1, 0]), splits=made.splits[::-1])
    search = TileSearch(CostModel(chosen))
    search.tile(reside(made, strategy), 0.9)
    resident = reside(turned, strategy)
    assert search.tile(resident, 0.9) == TileSearch(CostModel(chosen)).tile(resident, 0.9)


@given(
    rows=draw.integers(4, 30), stride=draw.sampled_from([1, 2]), kernel=draw.sampled_from([1, 3, 5]),
    channels=draw.sampled_from([16, 48, 200]), spm_bytes=draw.sampled_from([1 << 14, 1 << 16]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_cores_find_together_what_each_finds_alone(
    rows: int, stride: int, kernel: int, channels: int, spm_bytes: int
) -> None:
    chosen = _without_multicast(machine("mesh16", cores=4, spm_bytes=spm_bytes))
    resident, cost = _convolution(chosen, rows, channels, kernel, stride), CostModel(chosen)
    together = TileSearch(cost).tile(resident, 0.9).tilings[0]
    assert list(together) == [_alone(resident, cost, core) for core in range(4)]


def _without_multicast(chosen: Machine) -> Machine:
    return replace(chosen, network=replace(chosen.network, multicast=False))


def _alone(resident: Resident, cost: CostModel, core: int) -> Tiling | None:
    box = resident.partitioned.out_box(0, core)
    return None if box is None else Search(Task(resident, cost, 0, core, box), 0.9).best().tiling()


def _convolution(chosen: Machine, rows: int, channels: int, kernel: int, stride: int) -> Resident:
    """A convolution in rows over all cores."""
    net = Network("convolution")
    source = net.source((1, rows, 12, 32))
    net.output(net.conv(source, channels, (kernel, kernel), stride=stride), "y")
    return reside(partition(fuse(net.freeze()), CostModel(chosen), STRATEGIES["spatial"]), STRATEGIES["spatial"])


def test_equal_parts_share_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[Search] = []
    best = Search.best
    monkeypatch.setattr(Search, "best", lambda search: searches.append(search) or best(search))
    chosen = _without_multicast(machine("mesh16", cores=16))
    cost = CostModel(chosen)
    TileSearch(cost).tile(_convolution(chosen, 16, 48, 1, 1), 0.9)
    assert len(searches) == len({cost.kind(core, with_paths=True) for core in range(16)}) < 16


@pytest.mark.parametrize("rows", [15, 16])
def test_with_multicast_all_cores_cut_channels_alike(rows: int) -> None:
    """So that they load the same weights in the same turn; the parts of 15 rows are not equally high."""
    chosen = machine("mesh16", cores=4, spm_bytes=1 << 15)
    tilings = TileSearch(CostModel(chosen)).tile(_convolution(chosen, rows, 200, 5, 1), 0.9).tilings[0]
    cuts = {tuple(dict.fromkeys((part.out_box.interval(3), part.reduction) for part in tiling.parts))
            for tiling in tilings if tiling}  # fmt: skip
    assert len(cuts) == 1
    assert len(cuts.pop()) > 1
