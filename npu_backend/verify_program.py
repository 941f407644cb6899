"""Verifiers of what has an order and addresses: schedule, placement, semaphores, program."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence

from npu_backend.box import Box, subtract_all
from npu_backend.encoding import decode
from npu_backend.isa import Engine
from npu_backend.passes.barriers import BARRIER
from npu_backend.passes.synchronize import Synchronized, engine_of
from npu_backend.program import Program
from npu_backend.stages import ALIGNMENT_BYTES, Access, Buffer, Placed, Scheduled, Step
from npu_backend.verify_error import VerificationError


def verify_scheduled(scheduled: Scheduled, *, thorough: bool) -> None:
    """Steps touch living buffers of their own core; run in order, they read only what was written before."""
    for position, step in enumerate(scheduled.steps):
        where = f"schedule: step {position} of layer {step.layer} {step.origin} core {step.core}"
        if not step.instructions:
            raise VerificationError(f"{where} has no instruction")
        for access in (*step.reads, *step.writes):
            if isinstance(access.buffer, int):
                _check_life(scheduled.buffers, access.buffer, position, step, where)
            elif access.buffer not in scheduled.dram.tensors and not access.buffer.startswith(BARRIER):
                raise VerificationError(f"{where} moves {access.buffer}, not in DRAM")
    if thorough:
        _check_written_before_read(scheduled)


def _check_life(buffers: Sequence[Buffer], index: int, position: int, step: Step, where: str) -> None:
    buffer = buffers[index]
    if not (buffer.first_step <= position <= buffer.last_step):
        raise VerificationError(
            f"{where} uses buffer {index} {buffer.label} of steps {buffer.first_step} to {buffer.last_step}"
        )
    if buffer.core != step.core and step.engine is not Engine.NETWORK:
        raise VerificationError(f"{where} uses buffer {index} {buffer.label} of core {buffer.core}")


def _check_written_before_read(scheduled: Scheduled) -> None:
    graph = scheduled.tiled.resident.partitioned.fused.graph
    written: dict[int | str, list[Box]] = {port.tensor: [graph.tensor(port.tensor).box] for port in graph.inputs}
    written.update((name, [graph.tensor(name).box]) for name in graph.constants.keys() & graph.tensors.keys())
    for position, step in enumerate(scheduled.steps):
        for access in step.reads:
            missing = _missing(access.box, written.get(access.buffer, ()))
            if missing:
                raise VerificationError(
                    f"schedule: step {position} of layer {step.layer} {step.origin} core "
                    f"{step.core} reads {_shown(scheduled, access)}, of which nobody wrote {missing[0]}"
                )
        for access in step.writes:
            before = written.setdefault(access.buffer, [])
            if access.is_first and any(box.overlaps(access.box) for box in before):
                raise VerificationError(
                    f"schedule: step {position} of layer {step.layer} {step.origin} core {step.core} is to be the "
                    f"first that writes {_shown(scheduled, access)}, but is not"
                )
            before.append(access.box)
    for port in graph.outputs:
        missing = _missing(graph.tensor(port.tensor).box, written.get(port.tensor, ()))
        if missing:
            raise VerificationError(f"schedule: nobody stores {missing[0]} of output {port.host_name}")


def _missing(box: Box, written: Sequence[Box]) -> tuple[Box, ...]:
    if any(each.contains(box) for each in written):
        return ()
    return subtract_all(box, [each for each in written if each.overlaps(box)])


def _shown(scheduled: Scheduled, access: Access) -> str:
    label = access.buffer if isinstance(access.buffer, str) else scheduled.buffers[access.buffer].label
    return f"{label} {access.box}"


def verify_placed(placed: Placed, *, thorough: bool) -> None:
    """Buffers lie inside their scratchpads, aligned; no two that live at the same time overlap."""
    del thorough
    cores = placed.scheduled.tiled.resident.partitioned.machine.cores
    if len(placed.addresses) != len(placed.scheduled.buffers):
        raise VerificationError(f"place: {len(placed.addresses)} addresses of {len(placed.scheduled.buffers)} buffers")
    for index, (buffer, address) in enumerate(zip(placed.scheduled.buffers, placed.addresses, strict=True)):
        bound, end = cores[buffer.core].spm_bytes, address + buffer.size_bytes
        if address < 0 or end > bound or address % ALIGNMENT_BYTES != 0:
            raise VerificationError(
                f"place: buffer {index} {buffer.label} core {buffer.core} at {address}..{end} of {bound}"
            )
    for core in range(len(cores)):
        check_no_overlap(placed.scheduled.buffers, placed.addresses, core)


def check_no_overlap(buffers: Sequence[Buffer], addresses: Sequence[int], core: int) -> None:
    """Walks the steps with the living buffers in order of address, where only neighbours can overlap."""
    own = [index for index, buffer in enumerate(buffers) if buffer.core == core and buffer.size_bytes > 0]
    ending = sorted(own, key=lambda index: buffers[index].last_step)
    living: list[tuple[int, int]] = []
    ended = 0
    for index in sorted(own, key=lambda index: buffers[index].first_step):
        while buffers[ending[ended]].last_step < buffers[index].first_step:
            past = addresses[ending[ended]], ending[ended]
            del living[bisect_left(living, past)]
            ended += 1
        entry = addresses[index], index
        position = bisect_left(living, entry)
        for address, other in living[max(0, position - 1) : position + 1]:
            low, high = sorted(((address, other), entry))
            if low[0] + buffers[low[1]].size_bytes > high[0]:
                texts = (_placed_text(buffers[i], i, at) for at, i in (low, high))
                raise VerificationError(f"place: core {core}: " + " overlaps ".join(texts))
        insort(living, entry)


def _placed_text(buffer: Buffer, index: int, address: int) -> str:
    return (
        f"buffer {index} {buffer.label} at {address}..{address + buffer.size_bytes} in steps {buffer.first_step} to "
        f"{buffer.last_step}"
    )


def verify_synchronized(synchronized: Synchronized, *, thorough: bool) -> None:
    """Each semaphore goes from one engine to another; each of its tokens is given before it is taken.

    The order of the steps is then an order in which the program can run, so it cannot deadlock. That the order also
    covers every hazard is what the emulator's check of races proves.
    """
    del thorough
    steps = synchronized.placed.scheduled.steps
    given: Counter[int] = Counter()
    taken: Counter[int] = Counter()
    ends: dict[int, tuple[int | None, int | None]] = {}
    for position, (step, waits, signals) in enumerate(
        zip(steps, synchronized.waits, synchronized.signals, strict=True)
    ):
        where = f"synchronize: step {position} of layer {step.layer} {step.origin} core {step.core}"
        for semaphore in waits:
            taken[semaphore] += 1
            if taken[semaphore] > given[semaphore]:
                raise VerificationError(
                    f"{where} takes token {taken[semaphore]} of "
                    f"semaphore {semaphore}, of which {given[semaphore]} are given before"
                )
            _check_end(ends, semaphore, engine_of(step), where, giver=False)
        for semaphore in signals:
            given[semaphore] += 1
            _check_end(ends, semaphore, engine_of(step), where, giver=True)
    for semaphore in given:
        if given[semaphore] != taken[semaphore]:
            raise VerificationError(
                f"synchronize: semaphore {semaphore} is given {given[semaphore]} tokens, {taken[semaphore]} are taken"
            )


def _check_end(
    ends: dict[int, tuple[int | None, int | None]], semaphore: int, engine: int, where: str, *, giver: bool
) -> None:
    gives, takes = ends.get(semaphore, (None, None))
    known = gives if giver else takes
    if known not in (None, engine):
        raise VerificationError(
            f"{where}: engine {engine} {'gives' if giver else 'takes'} semaphore {semaphore} of engine {known}"
        )
    ends[semaphore] = (engine, takes) if giver else (gives, engine)


def verify_program(program: Program, *, thorough: bool) -> None:
    """Ports and constants lie inside DRAM; as many tokens are given as taken."""
    dram_bytes = int(program.machine["dram_bytes"])
    if len(program.constants) > dram_bytes:
        raise VerificationError(f"emit: {len(program.constants)} bytes of constants in {dram_bytes} of DRAM")
    for port in program.ports:
        if not (0 <= port.dram < dram_bytes):
            raise VerificationError(f"emit: port {port.name} at {port.dram} of {dram_bytes} of DRAM")
    if thorough:
        _check_tokens(program)


def _check_tokens(program: Program) -> None:
    tokens: Counter[int] = Counter()
    for stream in program.streams.values():
        for instruction in decode(stream):
            if instruction.name in ("SIGNAL", "WAIT"):
                semaphore = instruction.values["semaphore"]
                assert isinstance(semaphore, int)
                tokens[semaphore] += 1 if instruction.name == "SIGNAL" else -1
    count = int(program.machine["semaphore_count"])
    for semaphore, balance in tokens.items():
        if balance != 0 or semaphore >= count:
            raise VerificationError(f"emit: semaphore {semaphore} of {count} ends with {balance} tokens")
