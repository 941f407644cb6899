"""Order: Algorithm 1 on small graphs, and that it is always an order in which the layers can run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npu_backend.cost import CostModel
from npu_backend.passes.fuse import fuse
from npu_backend.passes.legalize import legalize
from npu_backend.passes.order import order
from npu_backend.passes.partition import partition
from npu_backend.stages import Partitioned
from npu_backend.strategies import STRATEGIES
from npu_backend.verify import verify
from tests.e2e.random_graphs import network
from tests.passes.networks import Network, machine


def branches(directions: dict[str, str]) -> Partitioned:
    """Two branches of two layers each behind a stem; the directions are given by name."""
    net = Network("branches")
    stem = net.conv(net.source((1, 32, 32, 16)), 16, label="stem")
    left = net.conv(net.conv(stem, 16, (3, 3), label="left1"), 16, (3, 3), label="left2")
    right = net.conv(net.conv(stem, 16, (3, 3), label="right1"), 16, (3, 3), label="right2")
    net.output(left, "l")
    net.output(right, "r")
    made = partition(fuse(net.freeze()), CostModel(machine()), STRATEGIES["base"])
    splits = tuple(
        replace(split, direction=directions.get(layer.name, "rows"))
        for layer, split in zip(made.fused.layers, made.splits, strict=True)
    )
    return replace(made, splits=splits)


def names(partitioned: Partitioned) -> list[str]:
    return [layer.name for layer in partitioned.fused.layers]


def test_a_map_that_lies_in_place_is_used_next() -> None:
    assert names(order(branches({}))) == ["stem", "left1", "left2", "right1", "right2"]


def test_behind_channels_a_sibling_runs_first() -> None:
    assert names(order(branches({"left1": "channels"}))) == ["stem", "left1", "right1", "right2", "left2"]


def test_without_a_sibling_the_successor_runs() -> None:
    done = names(order(branches({"stem": "channels", "right1": "channels"})))
    assert done == ["stem", "left1", "left2", "right1", "right2"]


@pytest.mark.parametrize("strategy", ["single", "base", "halo"])
@pytest.mark.parametrize("seed", range(12))
def test_every_order_can_run_and_keeps_the_splits(seed: int, strategy: str) -> None:
    before = partition(
        fuse(legalize(network(np.random.default_rng(seed)))), CostModel(machine(cores=3)), STRATEGIES[strategy]
    )
    after = order(before)
    verify(after.fused, thorough=True)
    verify(after, thorough=True)
    pairs = dict(zip((layer.output for layer in before.fused.layers), before.splits, strict=True))
    assert [pairs[layer.output] for layer in after.fused.layers] == list(after.splits)
    assert after.fused.constants is before.fused.constants
