"""Synchronise: the semaphores that keep the order which data demands, and no others.

Every pair of engines that must wait for one another has a semaphore of its own, so its tokens are taken in the order in
which they are given. A vector clock per step leaves out every wait that earlier waits already imply (Fidge, 1988).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from npu_backend.box import Box
from npu_backend.isa import Engine
from npu_backend.stages import Access, Placed, Step

ENGINES = len(Engine)

# For every engine of all cores, how many of its steps are finished.
_Clock = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Synchronized:
    """For every step, the semaphores it waits for before and signals after."""

    placed: Placed
    waits: tuple[tuple[int, ...], ...]
    signals: tuple[tuple[int, ...], ...]
    semaphore_count: int


def synchronize(placed: Placed) -> Synchronized:
    """Orders the engines."""
    cores = len(placed.scheduled.tiled.resident.partitioned.machine.cores)
    clocks = _Clocks(cores * ENGINES)
    hazards = _Hazards(placed, cores * ENGINES)
    for index, step in enumerate(placed.scheduled.steps):
        engine = engine_of(step)
        clocks.add(index, engine, hazards.before(step, clocks.now[engine]))
        hazards.add(index, step, clocks.sequence[index])
    waits = tuple(tuple(semaphores) for semaphores in clocks.waits)
    signals = tuple(tuple(semaphores) for semaphores in clocks.signals)
    return Synchronized(placed, waits, signals, len(clocks.semaphores))


def engine_of(step: Step) -> int:
    """Number of the step's engine among all engines of all cores."""
    return step.core * ENGINES + step.engine


@dataclass
class _Clocks:
    """What every engine knows to be finished, and the semaphores that tell it."""

    engines: int
    sequence: list[int] = field(default_factory=list)
    waits: list[list[int]] = field(default_factory=list)
    signals: list[list[int]] = field(default_factory=list)
    semaphores: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Row e: for each engine, how many of its steps are finished before engine e's next step starts.
        self.now = np.zeros((self.engines, self.engines), np.int32)
        # Per engine, its steps in order, and what it knows of the others at the end of each. Few steps learn anything;
        # the rest share the array of the step before.
        self.steps: list[list[int]] = [[] for _ in range(self.engines)]
        self.known: list[list[_Clock]] = [[] for _ in range(self.engines)]

    def add(self, index: int, engine: int, needed: Mapping[int, int]) -> None:
        """Appends a step that needs the first ``needed[e]`` steps of every engine e to be finished."""
        clock = self.now[engine]
        waits: list[int] = []
        # Latest steps first: what they imply need not be waited for.
        for other in sorted(needed, key=lambda e: -self.steps[e][needed[e] - 1]):
            if needed[other] <= clock[other]:
                continue
            semaphore = self.semaphores.setdefault((other, engine), len(self.semaphores))
            waits.append(semaphore)
            self.signals[self.steps[other][needed[other] - 1]].append(semaphore)
            np.maximum(clock, self.known[other][needed[other] - 1], out=clock)
            clock[other] = needed[other]
        self.waits.append(waits)
        self.signals.append([])
        self.steps[engine].append(index)
        self.sequence.append(len(self.steps[engine]))
        self.known[engine].append(clock.copy() if waits or not self.known[engine] else self.known[engine][-1])
        clock[engine] = len(self.steps[engine])


class _Hazards:
    """Which steps touched what: per buffer the boxes read and written, and per address who was there before."""

    # Buffer to engine to what the engine did there, in order: its sequence number and the box.
    _Touched = dict[int | str, dict[int, list[tuple[int, Box]]]]

    def __init__(self, placed: Placed, engines: int) -> None:
        self.placed, self.engines = placed, engines
        self.read: _Hazards._Touched = {}
        self.written: _Hazards._Touched = {}
        self.last: dict[int, _Clock] = {}
        self.inherited: dict[int, _Clock] = {}
        machine = placed.scheduled.tiled.resident.partitioned.machine
        self.retired = [_Retired(engines) for _ in machine.cores]
        self.ending = self._ending()

    def _ending(self) -> dict[int, list[int]]:
        """Step to the buffers whose life ends with it."""
        ending: dict[int, list[int]] = {}
        for number, buffer in enumerate(self.placed.scheduled.buffers):
            ending.setdefault(buffer.last_step, []).append(number)
        return ending

    def before(self, step: Step, finished: _Clock) -> dict[int, int]:
        """For other engines, how many of their steps must be finished before this one.

        `finished` is what the step's own engine knows already; older steps need not be looked at.
        """
        needed: dict[int, int] = {}
        own, known = engine_of(step), finished.tolist()
        for access, is_write in _accesses(step):
            for touched in () if access.is_first else (self.written, self.read) if is_write else (self.written,):
                for engine, done in touched.get(access.buffer, {}).items():
                    after = needed.get(engine, known[engine])
                    if done[-1][0] > after and engine != own:
                        needed[engine] = max(after, _latest_conflict(done, access.box, after))
            if is_write and isinstance(access.buffer, int):
                inherited = self._inherited(access.buffer)
                for engine in np.flatnonzero(inherited > finished).tolist():
                    needed[engine] = max(needed.get(engine, 0), int(inherited[engine]))
        return needed

    def _inherited(self, buffer: int) -> _Clock:
        """Steps of earlier buffers at the same addresses."""
        if buffer not in self.inherited:
            start, size = self.placed.addresses[buffer], self.placed.scheduled.buffers[buffer].size_bytes
            core = self.placed.scheduled.buffers[buffer].core
            self.inherited[buffer] = self.retired[core].overlapping(start, start + size)
        return self.inherited[buffer]

    def add(self, index: int, step: Step, sequence: int) -> None:
        """Notes what a step touched, and retires the buffers that end with it."""
        engine = engine_of(step)
        for access, is_write in _accesses(step):
            touched = self.written if is_write else self.read
            touched.setdefault(access.buffer, {}).setdefault(engine, []).append((sequence, access.box))
            if isinstance(access.buffer, int):
                if access.buffer not in self.last:
                    self.last[access.buffer] = np.zeros(self.engines, np.int32)
                self.last[access.buffer][engine] = sequence
        for buffer in self.ending.get(index, ()):
            if buffer in self.last:
                description, start = self.placed.scheduled.buffers[buffer], self.placed.addresses[buffer]
                last = np.maximum(self.last.pop(buffer), self._inherited(buffer))
                self.retired[description.core].add(start, start + description.size_bytes, last)
                for kept in (self.inherited, self.read, self.written):
                    kept.pop(buffer, None)


def _latest_conflict(done: list[tuple[int, Box]], box: Box, after: int) -> int:
    """The newest step after so many that touched some of `box`, or 0."""
    for sequence, other in reversed(done):
        if sequence <= after:
            return 0
        if other.overlaps(box):
            return sequence
    return 0


class _Retired:
    """Address ranges of one scratchpad that no living buffer holds any more, with the last steps that used each."""

    def __init__(self, engines: int) -> None:
        self.ranges: list[tuple[int, int, _Clock]] = []
        self.engines = engines

    def overlapping(self, start: int, stop: int) -> _Clock:
        """The last step of every engine in any part of the range."""
        last = np.zeros(self.engines, np.int32)
        for low, high, steps in self.ranges:
            if low < stop and start < high:
                np.maximum(last, steps, out=last)
        return last

    def add(self, start: int, stop: int, last: _Clock) -> None:
        """Replaces what was known of the range: `last` already includes it."""
        kept = []
        for low, high, steps in self.ranges:
            kept += [(a, b, steps) for a, b in ((low, min(high, start)), (max(low, stop), high)) if a < b]
        self.ranges = [*kept, (start, stop, last)]


def _accesses(step: Step) -> Iterator[tuple[Access, bool]]:
    yield from ((access, False) for access in step.reads)
    yield from ((access, True) for access in step.writes)
