"""Parts along one or two axes: they cover the whole, and the estimate takes the better ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npu_backend.box import Box
from npu_backend.cost import CostModel
from npu_backend.machine import load_machine
from npu_backend.passes.cuts import grids
from npu_backend.passes.divide import Divider
from npu_backend.passes.partition import partition
from npu_backend.stages import Fused, Partitioned
from npu_backend.strategies import STRATEGIES
from tests.passes.networks import machine, one_layer

extents = st.integers(1, 40)


@given(extents, extents, st.integers(1, 8), st.integers(4, 24))
def test_grids_cover_the_whole_in_disjoint_multiples(rows: int, columns: int, blocks: int, cores: int) -> None:
    whole = Box.whole((1, rows, columns, 16 * blocks))
    axes = {"rows": (1, 1), "columns": (2, 1), "channels": (3, 16)}
    for grid in grids(whole, axes, cores):
        assert len(grid.boxes) <= cores
        assert sum(box.size for box in grid.boxes) == whole.size
        assert not any(box.is_empty or box.starts[3] % 16 for box in grid.boxes)
        assert grid.boxes[0].size == max(box.size for box in grid.boxes)
        if len(grid.boxes) < 12:
            assert not any(one.overlaps(other) for one, other in combinations(grid.boxes, 2))


def conv(size: int, inputs: int, outputs: int, kernel: int = 3) -> Fused:
    return one_layer(lambda net: net.conv(net.source((1, size, size, inputs)), outputs, (kernel, kernel)))


def divided(fused: Fused, name: str = "mesh16", *, multicast: bool = True) -> Partitioned:
    target = load_machine(name)
    target = replace(target, network=replace(target.network, multicast=multicast))
    return partition(fused, CostModel(target), STRATEGIES["halo"])


def test_few_rows_are_divided_along_columns_too() -> None:
    split = divided(conv(8, 64, 64)).splits[0]
    assert " x " in split.direction
    assert sum(box is not None for box in split.boxes) == 16
    assert "estimate" in split.reason


def test_much_weight_is_divided_by_channels_where_every_core_would_load_it() -> None:
    """The same layer; with multicast the weights cross DRAM once whatever the parts."""
    fused = conv(14, 256, 256)
    assert "channels" in divided(fused, multicast=False).splits[0].direction


@pytest.mark.parametrize("multicast", [True, False])
@pytest.mark.parametrize(("size", "inputs", "outputs"), [(56, 16, 32), (14, 64, 128), (7, 128, 320), (3, 16, 16)])
def test_no_single_direction_is_estimated_better(size: int, inputs: int, outputs: int, multicast: bool) -> None:
    fused = conv(size, inputs, outputs)
    target = load_machine("mesh16")
    divider = Divider(fused, CostModel(replace(target, network=replace(target.network, multicast=multicast))))
    (layer,) = fused.layers
    axes = {"rows": (1, 1), "columns": (2, 1), "channels": (3, 16)}
    taken = divider.split(layer, axes, {}, None)
    for direction, axis in axes.items():
        single = divider.split(layer, {direction: axis}, {}, None)
        assert total_us(taken.reason) <= total_us(single.reason) + 0.011


def total_us(reason: str) -> float:
    """The two figures of "... estimate: 1.50 us of work, 2.00 us of loads", which are rounded."""
    words = reason.split()
    return sum(float(word) for word, unit in pairwise(words) if unit == "us")


@pytest.mark.parametrize(("name", "cores"), [("exynos2100", 3), ("biglittle", 2), ("ring4", 4)])
def test_few_or_unequal_cores_keep_to_the_heuristics(name: str, cores: int) -> None:
    split = partition(conv(30, 16, 32), CostModel(machine(name, cores)), STRATEGIES["halo"]).splits[0]
    assert split.direction == "rows"
    assert split.reason.startswith("h1")


def test_a_chain_keeps_its_parts() -> None:
    """Two layers that only need their own pixels are divided alike: nothing moves between them."""
    first, *others = divided(one_layer(lambda net: net.conv(net.conv(net.source((1, 28, 28, 16)), 32), 32))).splits
    assert [split.boxes for split in others] == [first.boxes]
