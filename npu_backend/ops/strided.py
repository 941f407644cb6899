"""Element-wise instructions over strided operands of any rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from npu_backend.ops.base import Address, LoweredInstruction

AXES = 4


def collapse(counts: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Drops axes of extent 1 and merges neighbours that every operand walks without a gap."""
    kept: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, count in enumerate(counts):
        if count == 1:
            continue
        if kept and all(own[-1] == given[axis] * count for own, given in zip(steps, strides)):
            kept[-1] *= count
            for own, given in zip(steps, strides):
                own[-1] = given[axis]
            continue
        kept.append(count)
        for own, given in zip(steps, strides):
            own.append(given[axis])
    return kept, steps


def blocks(
    counts: Sequence[int], strides: Sequence[Sequence[int]], axes: int = AXES
) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]], list[int]]]:
    """Counts and strides of at most `axes` axes, with each operand's byte offset, one per step of the outer axes."""
    kept, steps = collapse(counts, strides)
    outer = max(0, len(kept) - axes)
    pad = axes - (len(kept) - outer)
    inner_counts = (*([1] * pad), *kept[outer:])
    inner_strides = [(*([0] * pad), *own[outer:]) for own in steps]
    for index in product(*(range(count) for count in kept[:outer])):
        offsets = [sum(i * step for i, step in zip(index, own)) for own in steps]
        yield inner_counts, inner_strides, offsets


Runs = tuple[int, tuple[int, ...], list[tuple[int, ...]], list[int]]


def runs(counts: Sequence[int], strides: Sequence[Sequence[int]], itemsize: int, axes: int = AXES) -> Iterator[Runs]:
    """Run bytes, `axes` outer counts, every side's strides and offsets; an element is the innermost axis, of bytes."""
    for inner, steps, offsets in blocks((*counts, itemsize), [(*side, 1) for side in strides], axes):
        # The innermost axis is contiguous bytes on every side, unless a single byte was dropped from strided elements.
        contiguous = all(step[-1] == 1 for step in steps)
        if contiguous:
            yield inner[-1], (1, *inner[:-1]), [(0, *step[:-1]) for step in steps], offsets
        else:
            yield 1, inner, steps, offsets


def elementwise(
    name: str,
    counts: Sequence[int],
    operands: Mapping[str, tuple[Address, Sequence[int]]],
    fields: Mapping[str, object],
) -> tuple[LoweredInstruction, ...]:
    """Instructions of an element-wise opcode; `operands` maps an address field to its address and byte strides.

    The stride field of operand ``input`` is ``input_strides`` and so on.
    """
    lowered = []
    strides = [steps for _, steps in operands.values()]
    for inner_counts, inner_strides, offsets in blocks(counts, strides):
        values: dict[str, object] = {"counts": inner_counts, **fields}
        for (field, (address, _)), steps, offset in zip(operands.items(), inner_strides, offsets):
            values[field] = address + offset
            values[f"{field}_strides"] = steps
        lowered.append(LoweredInstruction(name, values))
    return tuple(lowered)
