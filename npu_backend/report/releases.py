"""What released each instruction last, and how much of a transfer is its way: read from the times of a run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npu_backend.program import DRAM_NODE, Program
from npu_backend.report.instructions import Booleans, Instructions, Integers

Floats = npt.NDArray[np.float64]


def released_by(program: Program, instructions: Instructions, spans: Floats) -> tuple[Integers, Booleans]:
    """For every instruction the one that let it start or end, -1 for none, and which were released by a signal.

    A WAIT that stood still was released by the SIGNAL that it took; a load that several cores are given at once, by
    what the last of them did before; all others by the instruction before them on their engine.
    """
    before = _before_on_engine(instructions)
    _meet(before, instructions, spans)
    signals = np.zeros(len(before), np.bool_)
    waits, taken, arrival_ns = _taken_signals(program, instructions, spans)
    stood = (spans[waits, 1] > spans[waits, 0]) & (spans[waits, 1] == arrival_ns)
    signals[waits[stood]] = True
    before[waits[stood]] = taken[stood]
    return before, signals


def _before_on_engine(instructions: Instructions) -> Integers:
    """The last instruction before each on its engine, -1 for none; the sends of a multicast are as one."""
    before = np.arange(len(instructions.core)) - 1
    streams = np.stack([instructions.core, instructions.engine])
    before[np.flatnonzero((np.diff(streams, prepend=-1) != 0).any(axis=0))] = -1
    sends = np.flatnonzero((instructions.group >= 0) & (instructions.destination >= 0))
    _, first, place = np.unique(instructions.group[sends], return_index=True, return_inverse=True)
    before[sends] = before[sends[first]][place]
    return before


def _meet(before: Integers, instructions: Instructions, spans: Floats) -> None:
    """In `before`, the loads of a multicast follow the core that came to it last; who came with it, its own."""
    loads = np.flatnonzero(instructions.are("LOAD_MULTICAST"))
    came_ns = np.where(before[loads] >= 0, spans[before[loads], 1], 0.0)
    order = np.lexsort((-came_ns, instructions.group[loads]))
    _, first, place = np.unique(instructions.group[loads][order], return_index=True, return_inverse=True)
    last = order[first][place[np.argsort(order)]]
    before[loads] = np.where(came_ns < came_ns[last], before[loads[last]], before[loads])


def _taken_signals(program: Program, instructions: Instructions, spans: Floats) -> tuple[Integers, Integers, Floats]:
    """Every WAIT, the SIGNAL that it took, and when that arrived: those of a semaphore are taken as they arrive."""
    waits, signals = np.flatnonzero(instructions.are("WAIT")), np.flatnonzero(instructions.are("SIGNAL"))
    arrival_ns = spans[signals, 1] + _signal_ns(program, instructions, waits, signals)
    waits = waits[np.lexsort((spans[waits, 0], spans[waits, 1], instructions.semaphore[waits]))]
    order = np.lexsort((arrival_ns, instructions.semaphore[signals]))
    awaited, signalled = instructions.semaphore[waits], instructions.semaphore[signals[order]]
    rank = np.arange(len(waits)) - np.searchsorted(awaited, awaited)
    chosen = order[np.searchsorted(signalled, awaited) + rank]
    return waits, signals[chosen], arrival_ns[chosen]


def _signal_ns(program: Program, instructions: Instructions, waits: Integers, signals: Integers) -> Floats:
    """How long each SIGNAL travels: inside its core where nobody else waits for it."""
    semaphores = program.machine["semaphore_count"]
    lowest, highest = np.full(semaphores, np.iinfo(np.int64).max), np.full(semaphores, -1)
    np.minimum.at(lowest, instructions.semaphore[waits], instructions.core[waits])
    np.maximum.at(highest, instructions.semaphore[waits], instructions.core[waits])
    semaphore, core = instructions.semaphore[signals], instructions.core[signals]
    stays = (highest[semaphore] < 0) | ((lowest[semaphore] == core) & (highest[semaphore] == core))
    signal_ns: float = program.machine["signal_ns"]
    cross_signal_ns: float = program.machine["cross_signal_ns"]
    return np.where(stays, signal_ns, cross_signal_ns)


def transfer_delays_ns(program: Program, instructions: Instructions) -> Floats:
    """From the start of each instruction until its first byte flows; 0 for what is no transfer."""
    dram = len(program.cores)
    loads, stores, sends = instructions.loads, instructions.are("STORE"), instructions.destination >= 0
    source = np.where(loads, dram, instructions.core)
    destination = np.where(sends, instructions.destination, np.where(stores, dram, instructions.core))
    setup_ns = _longest_of_group(_setup_ns(program)[instructions.core], instructions.group)
    way_ns = _longest_of_group(_way_ns(program)[source, destination], instructions.group)
    dram_ns = np.where(sends, 0.0, program.machine["dram_latency_ns"])
    # In the order of the emulator's sum.
    delays_ns: Floats = np.where(sends | stores | loads, setup_ns + way_ns + dram_ns, 0.0)
    return delays_ns


def _longest_of_group(times_ns: Floats, group: Integers) -> Floats:
    """A multicast is as late as the latest of its members."""
    longest = np.zeros(int(group.max(initial=-1)) + 2)
    np.maximum.at(longest, group, times_ns)
    return np.where(group >= 0, longest[group], times_ns)


def _setup_ns(program: Program) -> Floats:
    """Of each core's DMA."""
    return np.array([core["dma_setup_cycles"] * 1000.0 / core["clock_mhz"] for core in program.cores])


def _way_ns(program: Program) -> Floats:
    """Latency of the path from one core to another; the last row and column are DRAM's."""
    dram = len(program.cores)
    way_ns = np.zeros((dram + 1, dram + 1))
    for path in reversed(program.paths):
        ends = (dram if path[end] == DRAM_NODE else path[end] for end in ("source", "destination"))
        way_ns[tuple(ends)] = path["latency_ns"]
    return way_ns
