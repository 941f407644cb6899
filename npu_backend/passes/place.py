"""Place: an address for every buffer, so that buffers alive at the same time never overlap.

Largest first, each at the lowest gap that is free during its whole life (greedy by size, as in Pisarchyk and Lee,
"Efficient Memory Management for Deep Neural Net Inference", 2020).
"""

from __future__ import annotations

import numpy as np

from npu_backend.errors import DoesNotFitError
from npu_backend.stages import Placed, Scheduled


def place(scheduled: Scheduled) -> Placed:
    """Addresses in the order of the buffers.

    Raises DoesNotFitError when a core's scratchpad is too small for the schedule.
    """
    machine = scheduled.tiled.resident.partitioned.machine
    addresses = [0] * len(scheduled.buffers)
    peaks = []
    for core, description in enumerate(machine.cores):
        own = [index for index, buffer in enumerate(scheduled.buffers) if buffer.core == core]
        placed = _place_core(scheduled, own)
        for index, address in zip(own, placed):
            addresses[index] = address
        ends = [address + scheduled.buffers[index].size_bytes for index, address in zip(own, placed)]
        peaks.append(max(ends, default=0))
        if peaks[-1] > description.spm_bytes:
            worst = own[int(np.argmax(ends))]
            layer = scheduled.steps[scheduled.buffers[worst].first_step].layer
            raise DoesNotFitError(layer, core, peaks[-1], description.spm_bytes)
    return Placed(scheduled, tuple(addresses), tuple(peaks))


def _place_core(scheduled: Scheduled, own: list[int]) -> list[int]:
    """Addresses of one core's buffers, in the order of `own`."""
    sizes = np.array([scheduled.buffers[index].size_bytes for index in own], np.int64)
    first = np.array([scheduled.buffers[index].first_step for index in own], np.int64)
    last = np.array([scheduled.buffers[index].last_step for index in own], np.int64)
    address = np.full(len(own), -1, np.int64)
    for index in sorted(range(len(own)), key=lambda i: (-sizes[i], first[i])):
        neighbours = np.flatnonzero((address >= 0) & (first <= last[index]) & (last >= first[index]))
        order = neighbours[np.argsort(address[neighbours], kind="stable")]
        address[index] = _lowest_gap(address[order].tolist(), sizes[order].tolist(), int(sizes[index]))
    return [int(value) for value in address]


def _lowest_gap(starts: list[int], sizes: list[int], wanted: int) -> int:
    position = 0
    for start, size in zip(starts, sizes):
        if start - position >= wanted:
            break
        position = max(position, start + size)
    return position
