"""Synchronize: every hazard is ordered, no wait is idle, and the engines never block for good."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from npu_backend.passes.synchronize import Synchronized, engine_of
from npu_backend.stages import Access, Placed, Step
from tests.e2e.random_graphs import network
from tests.passes.networks import block, machine, stages

TARGETS = [("exynos2100", 3, 1 << 16), ("mesh16", 4, 1 << 16), ("exynos2100", 1, 1 << 15)]


@cache
def synchronized(seed: int) -> Synchronized:
    name, cores, spm_bytes = TARGETS[seed % len(TARGETS)]
    graph = block() if seed == 0 else network(np.random.default_rng(seed))
    result: Synchronized = stages(graph, machine(name, cores, spm_bytes))["synchronize"]
    return result


@pytest.fixture(params=range(6), ids=lambda seed: f"seed{seed}")
def stage(request: pytest.FixtureRequest) -> Synchronized:
    return synchronized(request.param)


@dataclass(frozen=True)
class Token:
    """A wait: the step that takes the token and the step that gave it."""

    semaphore: int
    taker: int
    giver: int


def tokens(stage: Synchronized) -> list[Token]:
    """Every wait, with the signal its token comes from: the n-th taken is the n-th given."""
    given: dict[int, list[int]] = {}
    for step, semaphores in enumerate(stage.signals):
        for semaphore in semaphores:
            given.setdefault(semaphore, []).append(step)
    taken: Counter[int] = Counter()
    result = []
    for step, semaphores in enumerate(stage.waits):
        for semaphore in semaphores:
            result.append(Token(semaphore, step, given[semaphore][taken[semaphore]]))
            taken[semaphore] += 1
    return result


def orders(stage: Synchronized) -> list[set[int]]:
    """For every step, the steps that are finished before it starts, by its engine's order and by tokens."""
    before: list[set[int]] = []
    last: dict[int, int] = {}
    waits: dict[int, list[int]] = {}
    for token in tokens(stage):
        waits.setdefault(token.taker, []).append(token.giver)
    for index, step in enumerate(stage.placed.scheduled.steps):
        engine = engine_of(step)
        direct = [*waits.get(index, []), *([last[engine]] if engine in last else [])]
        before.append(set(direct).union(*(before[each] for each in direct)))
        last[engine] = index
    return before


def places(placed: Placed, access: Access) -> tuple[object, int, int]:
    """Memory, first byte and end of what an access may touch."""
    if isinstance(access.buffer, str):
        return access.buffer, 0, 1
    buffer, address = placed.scheduled.buffers[access.buffer], placed.addresses[access.buffer]
    return buffer.core, address, address + buffer.size_bytes


def conflict(placed: Placed, one: Step, other: Step) -> bool:
    pairs = [(a, b) for a in one.writes for b in (*other.reads, *other.writes)]
    pairs += [(a, b) for a in one.reads for b in other.writes]
    return any(touch(placed, a, b) for a, b in pairs)


def touch(placed: Placed, one: Access, other: Access) -> bool:
    if one.buffer == other.buffer:
        return one.box.overlaps(other.box)
    (memory, low, high), (there, start, stop) = places(placed, one), places(placed, other)
    return memory == there and low < stop and start < high


def test_every_hazard_is_ordered(stage: Synchronized) -> None:
    steps, before = stage.placed.scheduled.steps, orders(stage)
    for i, j in combinations(range(len(steps)), 2):
        if i not in before[j]:
            assert not conflict(stage.placed, steps[i], steps[j]), f"steps {i} and {j}"


def test_no_wait_is_implied_by_others(stage: Synchronized) -> None:
    steps, before = stage.placed.scheduled.steps, orders(stage)
    engines = [engine_of(step) for step in steps]
    for token in tokens(stage):
        earlier = [i for i in range(token.taker) if engines[i] == engines[token.taker]]
        others = [each.giver for each in tokens_of(stage, token.taker) if each != token] + earlier[-1:]
        known = set(others).union(*(before[each] for each in others))
        assert token.giver not in known, f"{token} is implied"


def tokens_of(stage: Synchronized, step: int) -> list[Token]:
    return [token for token in tokens(stage) if token.taker == step]


def test_tokens_balance_and_each_semaphore_joins_two_engines(stage: Synchronized) -> None:
    given = Counter(semaphore for semaphores in stage.signals for semaphore in semaphores)
    taken = Counter(semaphore for semaphores in stage.waits for semaphore in semaphores)
    assert given == taken
    assert set(given) == set(range(stage.semaphore_count))
    engines = [engine_of(step) for step in stage.placed.scheduled.steps]
    ends: dict[int, set[tuple[int, int]]] = {}
    for token in tokens(stage):
        ends.setdefault(token.semaphore, set()).add((engines[token.giver], engines[token.taker]))
    assert all(len(pairs) == 1 for pairs in ends.values())


@pytest.mark.parametrize("order", range(4))
def test_no_order_of_the_engines_deadlocks(stage: Synchronized, order: int) -> None:
    """Engines run whenever they can, in random order; all come to their end and no token is left."""
    rng, steps = np.random.default_rng(order), stage.placed.scheduled.steps
    queues: dict[int, deque[int]] = {}
    for index, step in enumerate(steps):
        queues.setdefault(engine_of(step), deque()).append(index)
    store: Counter[int] = Counter()
    while queues:
        ready = [e for e, queue in queues.items() if all(store[s] > 0 for s in stage.waits[queue[0]])]
        assert ready, f"{len(queues)} engines wait for each other"
        engine = int(rng.choice(ready))
        step = queues[engine].popleft()
        store.subtract(stage.waits[step])
        store.update(stage.signals[step])
        if not queues[engine]:
            del queues[engine]
    assert not any(store.values())
