"""Place: random lives never overlap, and the verifier sees every overlap."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npu_backend.errors import DoesNotFitError
from npu_backend.passes.place import place
from npu_backend.stages import Buffer, Scheduled
from npu_backend.verify import VerificationError
from npu_backend.verify_program import check_no_overlap
from tests.passes.networks import block, machine, stages

STEPS = 12
ROOM = 1 << 20


@cache
def template() -> Scheduled:
    """Steps that touch no buffer, so that any lives may be given."""
    scheduled: Scheduled = stages(block(), machine(spm_bytes=ROOM))["schedule"]
    return replace(scheduled, steps=tuple(replace(step, reads=(), writes=()) for step in scheduled.steps))


def life(core: int, units: int, start: int, length: int) -> Buffer:
    return Buffer(core, units * 64, "b", start, min(start + length, STEPS))


buffers = st.lists(
    st.builds(life, st.integers(0, 1), st.integers(1, 40), st.integers(0, STEPS), st.integers(0, 6)), max_size=25
)


def meet(one: Buffer, other: Buffer) -> bool:
    return one.core == other.core and one.first_step <= other.last_step and other.first_step <= one.last_step


def overlaps(lives: list[Buffer], addresses: list[int]) -> bool:
    return any(
        meet(lives[i], lives[j])
        and addresses[i] < addresses[j] + lives[j].size_bytes and addresses[j] < addresses[i] + lives[i].size_bytes
        for i, j in combinations(range(len(lives)), 2)
    )  # fmt: skip


@settings(max_examples=200)
@given(buffers)
def test_living_buffers_never_overlap(lives: list[Buffer]) -> None:
    placed = place(replace(template(), buffers=tuple(lives)))
    assert not overlaps(lives, list(placed.addresses))
    for core, peak in enumerate(placed.peak_bytes):
        ends = [a + b.size_bytes for a, b in zip(placed.addresses, lives, strict=True) if b.core == core]
        assert peak == max(ends, default=0)


@given(buffers)
def test_the_peak_is_at_least_what_lives_at_once(lives: list[Buffer]) -> None:
    placed = place(replace(template(), buffers=tuple(lives)))
    for core, peak in enumerate(placed.peak_bytes):
        living = [sum(b.size_bytes for b in lives if b.core == core and b.first_step <= step <= b.last_step)
                  for step in range(STEPS + 1)]  # fmt: skip
        assert max(living) <= peak <= sum(b.size_bytes for b in lives if b.core == core)


@settings(max_examples=300)
@given(buffers, st.randoms(use_true_random=False))
def test_the_verifier_sees_every_overlap(lives: list[Buffer], random: object) -> None:
    addresses = [64 * random.randrange(60) for _ in lives]  # type: ignore[attr-defined]
    found = False
    for core in (0, 1):
        try:
            check_no_overlap(lives, addresses, core)
        except VerificationError:
            found = True
    assert found == overlaps(lives, addresses)


def test_gaps_are_used_again() -> None:
    lives = [life(0, 10, 0, 2), life(0, 10, 3, 2), life(0, 4, 0, 12)]
    placed = place(replace(template(), buffers=tuple(lives)))
    assert placed.addresses == (0, 0, 640)


def test_too_much_at_once_names_layer_core_and_bytes() -> None:
    lives = (life(1, ROOM // 128, 0, 3), life(1, ROOM // 128 + 1, 2, 3))
    with pytest.raises(DoesNotFitError) as caught:
        place(replace(template(), buffers=lives))
    assert (caught.value.core, caught.value.demand_bytes, caught.value.room_bytes) == (1, ROOM + 64, ROOM)
