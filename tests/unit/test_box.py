"""Boxes against sets of points."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npu_backend.box import Box, split_interval, steps, subtract_all

RANK = 3
intervals = st.tuples(st.integers(-2, 5), st.integers(-2, 5))
boxes = st.tuples(*[intervals] * RANK).map(lambda axes: Box(tuple(a for a, _ in axes), tuple(b for _, b in axes)))


def points(box: Box) -> set[tuple[int, ...]]:
    return set(product(*map(range, box.starts, box.stops)))


@given(boxes)
def test_size_and_emptiness(box: Box) -> None:
    assert box.size == len(points(box))
    assert box.is_empty == (not points(box))


@given(boxes, boxes)
def test_intersect_and_overlaps(one: Box, other: Box) -> None:
    assert points(one.intersect(other)) == points(one) & points(other)
    assert one.overlaps(other) == bool(points(one) & points(other))


@given(boxes, boxes)
def test_contains(one: Box, other: Box) -> None:
    assert one.contains(other) == (points(other) <= points(one))


@given(boxes, boxes)
def test_hull_is_the_smallest_box_that_holds_both(one: Box, other: Box) -> None:
    hull = one.hull(other)
    both = points(one) | points(other)
    assert both <= points(hull)
    for axis in range(RANK) if both else ():
        positions = [point[axis] for point in both]
        assert hull.interval(axis) == (min(positions), max(positions) + 1)


@given(boxes, boxes)
def test_subtract_leaves_disjoint_pieces_of_the_rest(one: Box, other: Box) -> None:
    pieces = one.subtract(other)
    assert sum(piece.size for piece in pieces) == len(points(one) - points(other))
    assert set().union(*map(points, pieces)) == points(one) - points(other)


@given(boxes, st.lists(boxes, max_size=5))
def test_subtract_all(box: Box, others: list[Box]) -> None:
    pieces = subtract_all(box, others)
    rest = points(box).difference(*map(points, others))
    assert set().union(*map(points, pieces)) == rest
    assert sum(piece.size for piece in pieces) == len(rest)


@given(boxes, st.tuples(*[st.integers(-3, 3)] * RANK))
def test_translate_and_back(box: Box, offsets: tuple[int, ...]) -> None:
    moved = box.translate(offsets)
    assert points(moved) == {tuple(p + o for p, o in zip(point, offsets, strict=True)) for point in points(box)}
    assert moved.relative_to(Box(offsets, offsets)) == box


@given(boxes, st.permutations(range(RANK)))
def test_permute(box: Box, axes: list[int]) -> None:
    assert points(box.permute(axes)) == {tuple(point[axis] for axis in axes) for point in points(box)}


def test_with_interval_and_text() -> None:
    box = Box.whole((2, 3)).with_interval(1, 1, 2)
    assert box == Box((0, 1), (2, 2))
    assert str(box) == "[0:2, 1:2]"


def test_split_interval() -> None:
    assert split_interval(3, 10, [4, 0, 3]) == [(3, 7), (7, 7), (7, 10)]
    with pytest.raises(AssertionError, match="3"):
        split_interval(0, 3, [1, 1])


@given(st.integers(-5, 5), st.integers(0, 20), st.integers(1, 7))
def test_steps_cover_an_interval(start: int, length: int, step: int) -> None:
    parts = steps(start, start + length, step)
    assert [i for low, high in parts for i in range(low, high)] == list(range(start, start + length))
    assert all(high - low <= step for low, high in parts)
