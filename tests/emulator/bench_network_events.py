"""Time of the emulator's clock per simulated event, on meshes of more and more cores.

Every core loads, computes, sends to its neighbours, stores, and waits for what the neighbours sent; DRAM has four ports
and the same bandwidth on every mesh. ``python -m tests.emulator.bench_network_events [--rounds N]`` prints one row a
mesh: cores, events, nanoseconds of processor time an event, and the milliseconds to open a program of one instruction
and to time it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from npu_backend.isa import Engine, Instruction
from npu_backend.machine import Machine, Mesh, load_machine
from npu_backend.network import MachineRecords, machine_records
from npu_backend.runtime import Emulator
from tests.emulator.replay import assemble, conv, load, send, signal, store, wait

SIDES = (1, 2, 4, 8)
Streams = dict[tuple[int, Engine], list[Instruction]]


def mesh(side: int) -> Machine:
    """The mesh16 with `side` rows and columns, memory at its corners."""
    machine = load_machine("mesh16")
    assert isinstance(machine.network, Mesh)
    last = side * side - 1
    corners = tuple(dict.fromkeys((0, side - 1, last + 1 - side, last)))
    cores = tuple(replace(machine.cores[0], name=f"npu{index}", spm_bytes=1 << 20) for index in range(side * side))
    return replace(machine, cores=cores, network=replace(machine.network, rows=side, columns=side,
                                                         memory_nodes=corners))  # fmt: skip


def neighbours(side: int, core: int) -> Iterator[int]:
    """Nodes beside a core on the mesh."""
    row, column = divmod(core, side)
    for r, c in ((row, column + 1), (row, column - 1), (row + 1, column), (row - 1, column)):
        if 0 <= r < side and 0 <= c < side:
            yield r * side + c


def exchange(side: int, rounds: int) -> Streams:
    """Every core's streams; sizes differ from core to core, so that transfers do not all end together."""
    streams: Streams = defaultdict(list)
    numbers = count()
    cores = range(side * side)
    loaded, computed, stored = ({core: next(numbers) for core in cores} for _ in range(3))
    arrived = {(a, b): next(numbers) for a in cores for b in neighbours(side, a)}
    for core in cores:
        beside = list(neighbours(side, core))
        for turn in range(rounds):
            streams[core, Engine.LOAD] += [load(1024 + 64 * ((7 * core + turn) % 16)), signal(loaded[core])]
            waits = [wait(arrived[other, core]) for other in beside] if turn else []
            streams[core, Engine.MATRIX] += [wait(loaded[core]), *waits, conv(4, 4, 16, 16), signal(computed[core]),
                                             signal(stored[core])]  # fmt: skip
            streams[core, Engine.STORE] += [wait(stored[core]), store(512, dram=1 << 20, spm=1 << 19)]
            streams[core, Engine.NETWORK].append(wait(computed[core]))
            for other in beside:
                sent = send(256 + 32 * ((5 * core + other + turn) % 8), other, spm=1 << 19, destination_spm=1 << 12)
                streams[core, Engine.NETWORK] += [sent, *([signal(arrived[core, other])] if turn + 1 < rounds else [])]
    return streams


def seconds(work: object, repeats: int) -> float:
    """The fastest of several runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.thread_time()
        work()  # type: ignore[operator]
        best = min(best, time.thread_time() - start)
    return best


def opening_ms(records: MachineRecords) -> tuple[float, float]:
    """Milliseconds to open a program of one instruction, and to time it."""
    data = assemble(records, {(0, Engine.LOAD): [load(64)]})
    opened = seconds(lambda: Emulator(data).close(), 5)
    with Emulator(data) as emulator:
        return 1e3 * opened, 1e3 * seconds(emulator.time, 5)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="nanoseconds of the clock per simulated event")
    parser.add_argument("--rounds", type=int, default=100, help="of loading, computing and sending on every core")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of the meshes")
    options = parser.parse_args()
    sys.stdout.write("cores   events  ns/event  open ms  empty ms\n")
    for side in options.sides:
        records = machine_records(mesh(side))
        with Emulator(assemble(records, exchange(side, options.rounds))) as emulator:
            events, spent = emulator.time().events, seconds(emulator.time, 3)
        opened, empty = opening_ms(records)
        row = f"{side * side:5} {events:8} {1e9 * spent / events:9.0f} {opened:8.2f} {empty:9.2f}\n"
        sys.stdout.write(row)


if __name__ == "__main__":
    main()
