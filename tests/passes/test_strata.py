"""Strata: Algorithm 2 on a chain, the growth of the parts, and what ends a stratum."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from npu_backend.cost import CostModel
from npu_backend.passes.fit import fit
from npu_backend.passes.fuse import fuse
from npu_backend.passes.legalize import legalize
from npu_backend.passes.order import order
from npu_backend.passes.partition import partition
from npu_backend.passes.strata import strata
from npu_backend.passes.tile import TileSearch
from npu_backend.pipeline import compile_graph
from npu_backend.reference import evaluate
from npu_backend.runtime import Emulator
from npu_backend.stages import Partitioned
from npu_backend.strategies import STRATEGIES
from npu_backend.verify import verify
from tests.e2e.random_graphs import network
from tests.passes.networks import Network, machine

LABELS = ("one", "two", "three")
CORES = 3


@cache
def chain() -> Partitioned:
    """Three convolutions of 3x3, all divided by rows."""
    net = Network("chain")
    name = net.source((1, 30, 30, 16))
    for label in LABELS:
        name = net.conv(name, 16, (3, 3), label=label)
    net.output(name, "y")
    return order(partition(fuse(net.freeze()), CostModel(machine("mesh16", CORES, 1 << 20)), STRATEGIES["halo"]))


def waiting(partitioned: Partitioned, ns: float) -> dict[str, float]:
    return {layer.output: ns for layer in partitioned.fused.layers}


def divided(ns: float, closed: tuple[int, ...] = ()) -> Partitioned:
    stage = chain()
    outputs = frozenset(stage.fused.layers[index].output for index in closed)
    return strata(stage, waiting(stage, ns), outputs, CostModel(stage.machine))


def rows(partitioned: Partitioned, layer: int) -> list[tuple[int, int]]:
    return [box.interval(1) for box in partitioned.splits[layer].boxes if box is not None]


def test_parts_grow_by_the_halo_of_every_layer_behind() -> None:
    made = divided(1e9)
    assert {join.stratum for join in made.joins} == {2}
    own = rows(chain(), 2)
    for layer, halo in ((2, 0), (1, 1), (0, 2)):
        assert rows(made, layer) == [(max(low - halo, 0), min(high + halo, 30)) for low, high in own]
    verify(made, thorough=True)


def test_h8_compares_what_is_computed_again_with_the_waiting_saved() -> None:
    made = divided(1.0)
    assert [join.stratum for join in made.joins] == [0, 1, 2]
    assert made.splits == chain().splits
    assert made.joins[1].reason.startswith("ends, h8: ")
    recompute, saved = made.joins[1].recompute_ns, made.joins[1].synchronization_ns
    assert recompute is not None
    assert saved == 1.0 < recompute


def test_a_closed_tensor_ends_a_stratum() -> None:
    made = divided(1e9, closed=(1,))
    assert [join.stratum for join in made.joins] == [1, 1, 2]
    assert rows(made, 1) == rows(chain(), 1)


@pytest.mark.parametrize(("directions", "reason"), [
    (("rows", "channels", "rows"), "h7: rows before channels"),
    (("rows", "columns", "rows"), "h7: rows before columns"),
])  # fmt: skip
def test_h7_other_directions_end_a_stratum(directions: tuple[str, ...], reason: str) -> None:
    stage = chain()
    splits = tuple(
        replace(split, direction=direction) for split, direction in zip(stage.splits, directions, strict=True)
    )
    changed = replace(stage, splits=splits)
    made = strata(changed, waiting(changed, 1e9), frozenset(), CostModel(stage.machine))
    assert [join.stratum for join in made.joins] == [0, 1, 2]
    assert reason in made.joins[0].reason


def test_h6_only_the_reader_that_comes_next() -> None:
    net = Network("two readers")
    stem = net.conv(net.source((1, 30, 30, 16)), 16, label="stem")
    net.output(net.conv(stem, 16, (3, 3), label="left"), "l")
    net.output(net.conv(stem, 16, (5, 5), label="right"), "r")
    stage = order(partition(fuse(net.freeze()), CostModel(machine(cores=CORES)), STRATEGIES["halo"]))
    made = strata(stage, waiting(stage, 1e9), frozenset(), CostModel(stage.machine))
    assert [join.stratum for join in made.joins] == [1, 1, 2]
    assert "h6: right does not read it" in made.joins[1].reason
    # The other reader, outside, is served by what every core owns: each part holds its own rows too.
    assert all(grown.contains(own) for grown, own in zip(made.splits[0].boxes, stage.splits[0].boxes, strict=True)
               if grown is not None and own is not None)  # fmt: skip


def test_no_room_ends_a_stratum() -> None:
    stage = chain()
    small = replace(stage, machine=stage.machine.with_spm_bytes(1 << 13))
    placed = fit(small, STRATEGIES["stratum"], TileSearch(CostModel(small.machine)), waiting(small, 1e9))
    joins = placed.scheduled.tiled.resident.partitioned.joins
    assert len({join.stratum for join in joins}) > 1


@pytest.mark.parametrize("forward", [True, False], ids=["halo", "barriers"])
@pytest.mark.parametrize("spm_bytes", [1 << 15, 1 << 17])
@pytest.mark.parametrize("seed", range(10))
def test_random_networks_in_strata_are_exact(seed: int, spm_bytes: int, forward: bool) -> None:
    graph = network(np.random.default_rng(seed))
    strategy = replace(STRATEGIES["stratum"], forward=forward, rung_below=None)
    program = compile_graph(graph, machine(cores=CORES, spm_bytes=spm_bytes), strategy, check=True)
    rng = np.random.default_rng(seed)
    tensors = {port.host_name: (port, graph.tensor(port.tensor)) for port in graph.inputs}
    inputs = {name: rng.integers(0, 128, port.host_shape(tensor)).astype(tensor.dtype)
              for name, (port, tensor) in tensors.items()}  # fmt: skip
    with Emulator(program.to_bytes()) as emulator:
        outputs = emulator.run(inputs, check=True)
    for name, expected in evaluate(legalize(graph), inputs).items():
        np.testing.assert_array_equal(outputs[name], expected, name)
