"""Reside and tile: what stays fits beside the tiles, and tiles fit beside what stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npu_backend.cost import CostModel
from npu_backend.errors import CapacityError
from npu_backend.graph import Graph
from npu_backend.passes.fuse import fuse
from npu_backend.passes.legalize import legalize
from npu_backend.passes.partition import partition
from npu_backend.passes.reside import TILE_SHARE, reside
from npu_backend.pipeline import compile_graph
from npu_backend.stages import Partitioned, Resident, Scheduled, Tiled
from npu_backend.strategies import STRATEGIES
from tests.e2e.random_graphs import network
from tests.passes.networks import Network, block, machine, stages

HALO = STRATEGIES["halo"]


def partitioned(graph: Graph, spm_bytes: int = 1 << 16, cores: int = 3) -> Partitioned:
    return partition(fuse(legalize(graph)), CostModel(machine("mesh16", cores, spm_bytes)), HALO)


@pytest.mark.parametrize("spm_bytes", [1 << 12, 1 << 14, 1 << 17])
@pytest.mark.parametrize("seed", range(8))
def test_residents_leave_the_tiles_their_share(seed: int, spm_bytes: int) -> None:
    resident = reside(partitioned(network(np.random.default_rng(seed)), spm_bytes), HALO)
    for index in range(len(resident.partitioned.splits)):
        for core in range(3):
            assert resident.bytes_at(index, core) <= spm_bytes * (1 - TILE_SHARE)


def test_everything_stays_where_there_is_room() -> None:
    stage = partitioned(block(), 1 << 20)
    outputs = {layer.output for layer in stage.fused.layers} - stage.fused.graph.output_names
    assert set(reside(stage, HALO).residencies) == outputs


def test_nothing_stays_without_forwarding_or_room_or_when_spilled() -> None:
    stage = partitioned(block(), 1 << 20)
    assert not reside(stage, replace(HALO, forward=False)).residencies
    assert not reside(partitioned(block(), 64), HALO).residencies
    assert "pool" not in reside(stage, HALO, frozenset(["pool"])).residencies


def test_a_core_holds_its_part_and_its_readers_halo() -> None:
    net = Network("halo")
    wide = net.conv(net.source((1, 30, 20, 16)), 16)
    net.output(net.conv(wide, 16, (5, 1)), "y")
    stage = partition(fuse(net.freeze()), CostModel(machine("exynos2100", 2)), STRATEGIES["spatial"])
    boxes = reside(stage, HALO).residencies[wide].boxes
    cut = stage.splits[1].boxes[0]
    assert cut is not None
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert (boxes[0].interval(1), boxes[1].interval(1)) == ((0, cut.stops[1] + 2), (cut.stops[1] - 2, 30))


def test_a_tensor_leaves_after_the_last_reader_there_is_room_for() -> None:
    net = Network("far")
    early = net.conv(net.source((1, 32, 32, 16)), 16)
    net.output(net.conv(early, 16, (3, 3)), "rows")
    net.output(net.conv(early, 512, (3, 3)), "channels")
    stage = partition(fuse(net.freeze()), CostModel(machine("exynos2100", 2, 18_432)), HALO)
    assert [split.direction for split in stage.splits] == ["rows", "rows", "channels"]
    resident = reside(stage, HALO)
    kept = resident.residencies[early]
    # A core's rows of the 16 KiB fit in 80 percent of the scratchpad, all rows do not.
    assert kept.last_layer == 1
    assert resident.in_scratchpad(early, 1) is kept
    assert resident.in_scratchpad(early, 2) is None


@pytest.mark.parametrize("spm_bytes", [1 << 12, 1 << 13, 1 << 15])
def test_tiles_fit_beside_what_is_resident(spm_bytes: int) -> None:
    tiled: Tiled = stages(block(), machine(spm_bytes=spm_bytes))["tile"]
    for index, tilings in enumerate(tiled.tilings):
        for core, tiling in enumerate(tilings):
            if tiling is not None:
                free = spm_bytes - tiled.resident.bytes_at(index, core)
                assert tiling.working_bytes <= free * tiled.planned_share


def test_a_reduction_is_cut_where_one_block_of_weights_does_not_fit() -> None:
    net = Network("deep")
    net.output(net.conv_channels_first(net.source((1, 512, 4, 4)), 32), "y")
    made = stages(net.freeze(), machine(cores=1, spm_bytes=48 * 1024), "single")
    parts = made["tile"].tilings[0][0].parts
    assert {part.reduction.total for part in parts} == {512}
    labels = [buffer.label for buffer in made["schedule"].buffers]
    assert "accumulators" in labels


def test_what_cannot_fit_names_the_demand_the_bound_and_the_lever() -> None:
    with pytest.raises(CapacityError, match=r"needs \d+ bytes, core npu0 has room for \d+ of its 1024; .*spm_bytes"):
        compile_graph(block(), machine(spm_bytes=1024), HALO)


def test_spilled_tensors_go_through_dram() -> None:
    """With little room some tensor is stored that a large scratchpad keeps."""

    def stored(spm_bytes: int) -> set[str]:
        scheduled: Scheduled = stages(block(), machine(cores=1, spm_bytes=spm_bytes))["schedule"]
        return {access.buffer for step in scheduled.steps for access in step.writes if isinstance(access.buffer, str)}

    assert stored(1 << 17) == {"classes"}
    assert stored(1 << 12) > {"classes"}


def test_resident_bytes_count_living_tensors_only() -> None:
    resident: Resident = stages(block(), machine(cores=1, spm_bytes=1 << 17), "single")["reside"]
    stem = resident.residencies["stem"]
    held = stem.boxes[0]
    assert held is not None
    later = resident.bytes_at(stem.last_layer + 1, 0)
    # Layer 3 reads the stem and the depthwise output and makes its own; layer 4 has its own and its input.
    assert resident.bytes_at(stem.last_layer, 0) - later >= held.size - 4 * 4 * 24
