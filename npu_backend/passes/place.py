"""Place: an address for every buffer, so that buffers alive at the same time never overlap.

Largest first, each at the lowest gap that is free during its whole life (greedy by size, as in Pisarchyk and Lee,
"Efficient Memory Management for Deep Neural Net Inference", 2020). Where there is room, a life starts when the engine
that writes the buffer could start: an engine never waits then for another one to leave an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from npu_backend.box import Box
from npu_backend.errors import DoesNotFitError
from npu_backend.isa import Engine
from npu_backend.stages import Placed, Scheduled

_Steps = npt.NDArray[np.int64]

_COMPUTE = (Engine.MATRIX, Engine.VECTOR)

# How often the lives around a buffer that finds no room are cut back before all are.
_REPAIRS = 8


def place(scheduled: Scheduled) -> Placed:
    """Addresses in the order of the buffers.

    Raises DoesNotFitError when a core's scratchpad is too small for the schedule.
    """
    machine = scheduled.tiled.resident.partitioned.machine
    addresses = [0] * len(scheduled.buffers)
    peaks = []
    sizes = np.array([buffer.size_bytes for buffer in scheduled.buffers], np.int64)
    first = np.array([buffer.first_step for buffer in scheduled.buffers], np.int64)
    earliest = _earliest(scheduled, first)
    last = np.array([buffer.last_step for buffer in scheduled.buffers], np.int64)
    owners = np.array([buffer.core for buffer in scheduled.buffers], np.int64)
    for core, description in enumerate(machine.cores):
        own = np.flatnonzero(owners == core)
        placed = _Core(description.spm_bytes, sizes[own], earliest[own], first[own], last[own]).addresses()
        ends = placed + sizes[own]
        if ends.max(initial=0) > description.spm_bytes:
            layer = scheduled.steps[first[own[int(np.argmax(ends))]]].layer
            raise DoesNotFitError(layer, core, int(ends.max()), description.spm_bytes)
        peaks.append(int(ends.max(initial=0)))
        for index, address in zip(own.tolist(), placed.tolist()):
            addresses[index] = address
    return Placed(scheduled, tuple(addresses), tuple(peaks))


def _earliest(scheduled: Scheduled, first: _Steps) -> _Steps:
    """For every buffer the step after which its first writer could start: its engine is free, its inputs are there."""
    earliest = first.copy()
    written: dict[int, list[tuple[int, Box]]] = {}
    busy: dict[tuple[int, Engine], int] = {}
    for number, step in enumerate(scheduled.steps):
        inputs = [
            _latest(written.get(read.buffer, ()), read.box) for read in step.reads if isinstance(read.buffer, int)
        ]
        start = max([busy.get((step.core, step.engine), -1), *inputs]) + 1
        busy[step.core, step.engine] = number
        for access in step.writes:
            if isinstance(access.buffer, int):
                if access.buffer not in written and step.engine in _COMPUTE:
                    earliest[access.buffer] = min(earliest[access.buffer], start)
                written.setdefault(access.buffer, []).append((number, access.box))
    return earliest


def _latest(writes: Sequence[tuple[int, Box]], box: Box) -> int:
    """The last step that wrote into a box, or -1."""
    return next((number for number, other in reversed(writes) if other.overlaps(box)), -1)


@dataclass(frozen=True)
class _Core:
    """One core's buffers: sizes in bytes, the step from which each is wanted, and the first and last that need it."""

    spm_bytes: int
    sizes: _Steps
    wanted: _Steps
    first: _Steps
    last: _Steps

    def addresses(self) -> _Steps:
        """Lives start where they are wanted, or where they must if not all fit; ends may lie beyond the scratchpad."""
        wanted = self.wanted.copy()
        for _ in range(_REPAIRS):
            address, stuck = self._place(wanted)
            if stuck is None:
                return address
            around = (wanted <= self.last[stuck]) & (self.last >= self.first[stuck])
            wanted[around] = self.first[around]
        return self._place(self.first)[0]

    def _place(self, wanted: _Steps) -> tuple[_Steps, int | None]:
        """Addresses, and the first buffer that finds no room; with all lives at their shortest, all are placed."""
        address = np.full(len(self.sizes), -1, np.int64)
        for index in np.lexsort((self.first, -self.sizes)).tolist():
            for first in (wanted, self.first):
                address[index] = self._gap(address, index, first)
                if address[index] + self.sizes[index] <= self.spm_bytes:
                    break
            else:
                if wanted is not self.first:
                    return address, index
        return address, None

    def _gap(self, address: _Steps, index: int, first: _Steps) -> int:
        """The lowest address that is free from the buffer's step in `first` to its last."""
        alive = (address >= 0) & (first <= self.last[index]) & (self.last >= first[index])
        alive[index] = False
        neighbours = np.flatnonzero(alive)
        order = neighbours[np.argsort(address[neighbours], kind="stable")]
        return _lowest_gap(address[order].tolist(), self.sizes[order].tolist(), int(self.sizes[index]))


def _lowest_gap(starts: list[int], sizes: list[int], wanted: int) -> int:
    position = 0
    for start, size in zip(starts, sizes):
        if start - position >= wanted:
            break
        position = max(position, start + size)
    return position
