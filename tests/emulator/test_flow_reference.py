"""The emulator's transfers, which share the network as fluids, held to a network that moves flit by flit.

Random sets on every topology: completion times differ by at most 5% on average and 15% at worst.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from npu_backend.isa import Engine
from tests.emulator.flit_reference import FlitNetwork, FlitTransfer, Hop, Turns, finish_times_ns
from tests.emulator.flow_cases import NETWORKS, Comparison, Physics, compare_sets, random_tasks

AVERAGE_ERROR, WORST_ERROR = 0.05, 0.15
# A transfer that takes so many times as long as alone is contended; at least half must be.
CONTENDED_STRETCH, CONTENDED_SHARE = 1.3, 0.5


def check(rows: Sequence[Comparison]) -> None:
    errors = np.abs([row.signed_error for row in rows])
    worst = rows[int(errors.argmax())]
    assert errors.mean() <= AVERAGE_ERROR
    assert errors.max() <= WORST_ERROR, worst
    assert np.mean([row.stretch >= CONTENDED_STRETCH for row in rows]) >= CONTENDED_SHARE


@pytest.mark.parametrize("topology", NETWORKS)
def test_twenty_sets(topology: str) -> None:
    check(compare_sets(topology, range(20)))


def test_sets_hold_all_kinds_of_transfers() -> None:
    tasks = [task for seed in range(20) for task in random_tasks(seed, cores=8)]
    kinds = Counter((task.engine, task.is_multicast) for task in tasks)
    assert min(kinds[engine, False] for engine in (Engine.LOAD, Engine.STORE, Engine.NETWORK)) > len(tasks) / 5
    assert min(kinds[engine, True] for engine in (Engine.LOAD, Engine.NETWORK)) > len(tasks) / 25


def test_smaller_flits_and_buffers_come_nearer() -> None:
    """What the clock leaves out is what buffers hold."""
    coarse, fine = (
        np.mean([abs(row.signed_error) for row in compare_sets("one-way ring", range(20), Physics(flit_bytes=flit))])
        for flit in (16, 4)
    )
    assert fine < coarse / 2


@pytest.mark.slow
@pytest.mark.parametrize("topology", NETWORKS)
def test_five_hundred_sets(topology: str) -> None:
    check(compare_sets(topology, range(500)))


# The reference itself, where the times are known: flits of 16 bytes.


def path(*resources: int, latency_ns: float = 0) -> tuple[Hop, ...]:
    return tuple(Hop(resource, latency_ns) for resource in resources)


def transfer(size_bytes: int, *paths: tuple[Hop, ...], release_ns: float = 0) -> FlitTransfer:
    return FlitTransfer(release_ns, size_bytes, paths)


def test_a_lone_transfer_gets_its_narrowest_resource_behind_the_latency() -> None:
    # The first flit takes 5 ns at each of three links, the other 99 come at 8 bytes a ns.
    times = finish_times_ns(FlitNetwork((16, 8, 16)), [transfer(1600, path(0, 1, 2, latency_ns=5), release_ns=100)])
    assert times == pytest.approx([100 + 15 + 99 * 2], abs=1)


def test_two_transfers_take_turns() -> None:
    times = finish_times_ns(FlitNetwork((16,)), [transfer(1600, path(0)), transfer(3200, path(0))])
    assert times == pytest.approx([200, 300], abs=2)


def test_a_blocked_transfer_leaves_its_turns_to_others() -> None:
    # Resource 1 lets 4 bytes a ns through, so that the other transfer has 12 of resource 0.
    times = finish_times_ns(FlitNetwork((16, 4)), [transfer(1600, path(0, 1)), transfer(4800, path(0))])
    assert times == pytest.approx([400, 400], abs=15)


def test_a_tree_crosses_each_resource_once_at_the_pace_of_its_slowest_branch() -> None:
    network = FlitNetwork((16, 16, 4))
    times = finish_times_ns(network, [transfer(1600, path(0, 1), path(0, 2)), transfer(4800, path(0))])
    assert times == pytest.approx([400, 400], abs=15)


# Three sources in a row (0, 1, 2) to one receiver: each has its own link (3, 4, 5) into the row.
ROW = FlitNetwork((16,) * 6)
PARKING = [transfer(16000, path(3, 0, 1, 2)), transfer(16000, path(4, 1, 2)), transfer(16000, path(5, 2))]


def test_turns_of_transfers_are_fair() -> None:
    assert finish_times_ns(ROW, PARKING) == pytest.approx([3000] * 3, rel=0.01)


def test_turns_of_ports_favour_those_who_join_last() -> None:
    # A half for the last, a quarter for each of the others; then a half each.
    turns = FlitNetwork((16,) * 6, turns=Turns.PORTS)
    assert finish_times_ns(turns, PARKING) == pytest.approx([3000, 3000, 2000], rel=0.01)
