"""Routes: everybody gets what it lacks, by the better way, the urgent first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from npu_backend.cost import CostModel
from npu_backend.isa import Engine
from npu_backend.machine import Machine, load_machine
from npu_backend.network_types import Bus, Crossbar
from npu_backend.passes.route import LAYERS_AHEAD, route
from npu_backend.passes.ways import Ways
from npu_backend.pipeline import compile_graph
from npu_backend.runtime import Emulator
from npu_backend.stages import Fetch, Move, Routed
from npu_backend.strategies import STRATEGIES
from npu_backend.verify_error import VerificationError
from npu_backend.verify_route import verify_routed
from tests.e2e.random_graphs import network
from tests.passes.networks import Network, machine, stages

Sent = TypeVar("Sent")
HALO = STRATEGIES["halo"].alone


def network_of(target: Machine, **changes: object) -> Machine:
    return replace(target, network=replace(target.network, **changes))  # type: ignore[arg-type]


def bus16() -> Machine:
    mesh = load_machine("mesh16")
    return replace(mesh, network=Bus(topology="bus", bytes_per_cycle=64, cores_reach_each_other=True, multicast=False,
                                     clock_mhz=1000, hop_latency_ns=5))  # fmt: skip


def crossbar16() -> Machine:
    mesh = load_machine("mesh16")
    return replace(mesh, network=Crossbar(topology="crossbar", link_bytes_per_cycle=16, cores_reach_each_other=True,
                                          multicast=True, clock_mhz=1000, hop_latency_ns=5))  # fmt: skip


TARGETS: dict[str, Callable[[], Machine]] = {
    "exynos2100": lambda: machine("exynos2100", 3, 1 << 17),
    "exynos2200": lambda: machine("exynos2200", 2, 1 << 17),
    "biglittle": lambda: machine("biglittle", 2, 1 << 17),
    "ring4": lambda: machine("ring4", 4, 1 << 17),
    "mesh16": lambda: machine("mesh16", 7, 1 << 17),
    "torus16": lambda: machine("torus16", 9, 1 << 17),
    "bus16": lambda: bus16().take(5),
    "crossbar16": lambda: crossbar16().take(6),
}


def chain(rows: int = 24, layers: int = 3) -> Routed:
    """Convolutions of 3 x 3 by rows on ring4."""
    net = Network("chain")
    name = net.source((1, rows, 16, 16))
    for _ in range(layers):
        name = net.conv(name, 16, (3, 3))
    net.output(name, "y")
    return stages(net.freeze(), machine("ring4", 4, 1 << 18))["route"]  # type: ignore[no-any-return]


def moves_of(routed: Routed) -> list[Move]:
    return [move for moves in routed.moves for move in moves]


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("seed", range(3))
def test_everybody_gets_what_it_lacks_and_the_program_ends(name: str, seed: int) -> None:
    """The verifier, which runs after the pass, finds nothing; the order of a program changes no way."""
    graph, target = network(np.random.default_rng(seed)), TARGETS[name]()
    made: dict[str, object] = {}
    program = compile_graph(graph, target, HALO, made.__setitem__, check=True)
    with Emulator(program.to_bytes()) as emulator:
        assert emulator.time().total_ns > 0
    routed = made["route"]
    assert isinstance(routed, Routed)
    naive = route(routed.tiled, CostModel(target), scheduled=False)
    verify_routed(naive, thorough=True)
    assert set(moves_of(naive)) == set(moves_of(routed))


def test_halos_go_straight_to_the_neighbours() -> None:
    routed = chain()
    assert moves_of(routed)
    for move in moves_of(routed):
        assert move.direct
        assert [abs(reader - move.source) for reader in move.readers] == [1]
        assert move.box.shape[1] == 1


def test_without_links_everything_goes_through_dram() -> None:
    net = Network("chain")
    net.output(net.conv(net.conv(net.source((1, 24, 16, 16)), 16, (3, 3)), 16, (3, 3)), "y")
    routed = stages(net.freeze(), network_of(machine("ring4", 4, 1 << 18), cores_reach_each_other=False))["route"]
    assert moves_of(routed)
    assert not any(move.direct for move in moves_of(routed))
    assert any(routed.fetches)


def gathered(multicast: bool) -> list[Move]:
    """What cores that computed channels send for a layer that each computes by rows."""
    net = Network("gather")
    wide = net.conv(net.source((1, 8, 8, 64)), 256, (3, 3))
    net.output(net.dense(net.add("global_average_pool", net.conv(wide, 16), name="mean"), 64), "y")
    target = network_of(load_machine("mesh16").take(16), multicast=multicast)
    return moves_of(stages(net.freeze(), target)["route"])


def test_what_several_lack_is_one_multicast_where_there_are_any() -> None:
    assert any(len(move.readers) > 1 for move in gathered(multicast=True))
    assert all(len(move.readers) == 1 for move in gathered(multicast=False) if move.direct)


def test_what_is_not_read_soon_waits() -> None:
    """A map that is read far behind its layer, by other parts, starts that many layers before its reader."""
    net = Network("skip")
    first = net.conv(net.source((1, 24, 16, 16)), 16, (3, 3))
    name = first
    for _ in range(LAYERS_AHEAD + 3):
        name = net.relu(net.conv(name, 16))
    late = net.conv(first, 16, (3, 3))
    net.output(net.sum(name, late), "y")
    routed: Routed = stages(net.freeze(), machine("ring4", 4, 1 << 19))["route"]
    fused = routed.tiled.resident.partitioned.fused
    slots = {(slot, move.producer) for slot, moves in enumerate(routed.moves) for move in moves}
    assert any(slot > producer for slot, producer in slots)
    for slot, producer in slots:
        readers = fused.readers[fused.layers[producer].output]
        assert slot in {max(producer, reader - LAYERS_AHEAD) for reader in readers}


def test_a_box_that_several_hold_comes_from_the_less_busy() -> None:
    ways = Ways(CostModel(load_machine("ring4")), 1, False, 1e9)
    first = ways.choose(4096, (0, 2), (1,))
    second = ways.choose(4096, (0, 2), (1,))
    assert {first.source, second.source} == {0, 2}


def test_a_busy_engine_leaves_what_is_in_dram_already_to_dram() -> None:
    ways = Ways(CostModel(network_of(load_machine("mesh16"), multicast=False)), 1, True, 0.0)
    assert ways.choose(64, (0,), (1,)).direct
    ways.taken_ns[0, Engine.NETWORK] = 1e6
    assert not ways.choose(64, (0,), (1,)).direct


def test_broken_routes_are_told() -> None:
    routed = chain()
    slot = next(index for index, moves in enumerate(routed.moves) if moves)
    move = routed.moves[slot][0]

    def changed(moves: tuple[Move, ...]) -> Routed:
        return replace(routed, moves=(*routed.moves[:slot], moves, *routed.moves[slot + 1 :]))

    others = routed.moves[slot][1:]
    with pytest.raises(VerificationError, match="does not come"):
        verify_routed(changed(others), thorough=False)
    with pytest.raises(VerificationError, match="it computes"):
        verify_routed(changed((replace(move, source=move.readers[0]), *others)), thorough=False)
    with pytest.raises(VerificationError, match="twice"):
        verify_routed(changed((move, move, *others)), thorough=True)


def test_what_nobody_reads_is_told() -> None:
    routed = chain()
    slot = next(index for index, moves in enumerate(routed.moves) if moves)
    move = routed.moves[slot][0]
    stranger = next(core for core in range(4) if abs(core - move.source) > 1)
    more = replace(move, readers=(stranger,))
    with pytest.raises(VerificationError, match="which computes"):
        verify_routed(replace(routed, moves=with_slot(routed.moves, slot, (*routed.moves[slot], more))), thorough=True)


def test_a_fetch_of_what_is_not_in_dram_is_told() -> None:
    routed = chain()
    slot = next(index for index, moves in enumerate(routed.moves) if moves)
    move, *others = routed.moves[slot]
    fetch = Fetch(move.producer, move.box, move.readers[0])
    changed = replace(routed, moves=with_slot(routed.moves, slot, tuple(others)),
                      fetches=with_slot(routed.fetches, slot, (fetch,)))  # fmt: skip
    with pytest.raises(VerificationError, match="not in DRAM"):
        verify_routed(changed, thorough=False)


def with_slot(
    slots: tuple[tuple[Sent, ...], ...], slot: int, changed: tuple[Sent, ...]
) -> tuple[tuple[Sent, ...], ...]:
    return (*slots[:slot], changed, *slots[slot + 1 :])
