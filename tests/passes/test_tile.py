"""Tile: what the search remembers."""

from __future__ import annotations

from dataclasses import replace

from npu_backend.cost import CostModel
from npu_backend.passes.fuse import fuse
from npu_backend.passes.partition import partition
from npu_backend.passes.reside import reside
from npu_backend.passes.tile import TileSearch
from npu_backend.strategies import STRATEGIES
from tests.passes.networks import Network, machine


def test_what_is_remembered_of_a_layer_holds_in_another_order() -> None:
    """Plans of one network differ in their order; these two read and write the same boxes, at very different costs."""
    net = Network("siblings")
    source = net.source((1, 24, 24, 32))
    net.output(net.conv(source, 32, label="light"), "l")
    net.output(net.conv(source, 32, (5, 5), label="heavy"), "h")
    strategy, chosen = STRATEGIES["base"], machine(cores=1, spm_bytes=1 << 16)
    made = partition(fuse(net.freeze()), chosen, strategy)
    turned = replace(made, fused=made.fused.reordered([1, 0]), splits=made.splits[::-1])
    search = TileSearch(CostModel(chosen))
    search.tile(reside(made, strategy), 0.9)
    resident = reside(turned, strategy)
    assert search.tile(resident, 0.9) == TileSearch(CostModel(chosen)).tile(resident, 0.9)
