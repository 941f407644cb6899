"""A layer's parts: who hands on what; and grids, part by part."""

from __future__ import annotations

from math import prod

from hypothesis import given
from hypothesis import strategies as draw

from npu_backend.box import Box
from npu_backend.passes.cuts import Cut, Grid
from npu_backend.stages import Split

EXTENT = 12


@draw.composite
def boxes(generator: draw.DrawFn) -> Box:
    bounds = [sorted(generator(draw.lists(draw.integers(0, EXTENT), min_size=2, max_size=2, unique=True)))
              for _ in range(2)]  # fmt: skip
    return Box(tuple(low for low, _ in bounds), tuple(high for _, high in bounds))


@given(parts=draw.lists(draw.none() | boxes(), min_size=1, max_size=5).filter(any), box=boxes())
def test_owners_hold_every_computed_element_of_a_box_once(parts: list[Box | None], box: Box) -> None:
    split = Split("rows", tuple(parts), "")
    expected = [
        (core, owned.intersect(box))
        for core, pieces in enumerate(split.owned)
        for owned in pieces
        if owned.overlaps(box)
    ]
    assert split.owners(box) == expected
    computed = {index for part in parts if part is not None for index in elements(part.intersect(box))}
    handed_on = [index for _, piece in split.owners(box) for index in elements(piece)]
    assert sorted(handed_on) == sorted(computed)


def elements(box: Box) -> list[tuple[int, int]]:
    rows, columns = (range(*box.interval(axis)) for axis in (0, 1))
    return [(row, column) for row in rows for column in columns]


@given(parts=draw.lists(boxes(), min_size=1, max_size=4))
def test_parts_share_nothing_when_none_overlap(parts: list[Box]) -> None:
    overlap = any(one.overlaps(other) for number, one in enumerate(parts) for other in parts[:number])
    assert Split("rows", tuple(parts), "").shares_nothing != overlap


@given(rows=draw.integers(1, 5), columns=draw.integers(1, 5), multiple=draw.sampled_from([1, 4]))
def test_the_parts_of_a_grid_fill_its_box(rows: int, columns: int, multiple: int) -> None:
    grid = Grid(Box.whole((7, EXTENT)), (Cut("rows", 0, 1, rows), Cut("channels", 1, multiple, columns)))
    assert grid.boxes == tuple(map(grid.box, range(grid.part_count)))
    assert sum(box.size for box in grid.boxes) == grid.whole.size
    assert grid.part_count == prod(grid.counts)
    for axis in (0, 1):
        assert grid.slices(axis) == len({box.interval(axis) for box in grid.boxes})
