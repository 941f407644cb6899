"""Barriers: after every stratum all cores wait for each other, as the cores of Jung et al., CGO 2023, do by default.

A core's first load of a stratum waits for the last store of every core in the stratum before. The order is spoken as
reads and writes of a place that no instruction touches, so that synchronisation needs no second mechanism.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from npu_backend.box import Box
from npu_backend.isa import Engine
from npu_backend.stages import Access, Partitioned, Step

BARRIER = "barrier"


def with_barriers(steps: Sequence[Step], partitioned: Partitioned) -> tuple[Step, ...]:
    """The steps, those at the end and the start of every stratum with more to wait for."""
    done: list[Step] = []
    stored: tuple[Access, ...] = ()
    for number, (_, group) in enumerate(groupby(steps, key=lambda step: partitioned.joins[step.layer].stratum)):
        stratum = list(group)
        for position in _first(enumerate(stratum), Engine.LOAD).values():
            stratum[position] = replace(stratum[position], reads=(*stratum[position].reads, *stored))
        last = list(_first(reversed(list(enumerate(stratum))), Engine.STORE).values())
        name = f"{BARRIER} {number}"
        for place, position in enumerate(last):
            written = Access(name, Box((place,), (place + 1,)))
            stratum[position] = replace(stratum[position], writes=(*stratum[position].writes, written))
        stored = (Access(name, Box((0,), (len(last),))),) if last else ()
        done += stratum
    return tuple(done)


def _first(steps: Iterable[tuple[int, Step]], engine: Engine) -> Mapping[int, int]:
    """The position of every core's first step on an engine."""
    found: dict[int, int] = {}
    for position, step in steps:
        if step.engine is engine:
            found.setdefault(step.core, position)
    return found
