"""The instructions of a program as columns, read from its streams without decoding what a report does not need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from npu_backend.isa import FORMAT_BY_NAME
from npu_backend.program import Program

_HEADER_BYTES = 8
_FIELD_BYTES = {"u32": 4, "i32": 4, "f32": 4, "u64": 8}
SYNCHRONIZATION = ("WAIT", "SIGNAL")
SENDS = ("SEND", "SEND_MULTICAST")
LOADS = ("LOAD", "LOAD_ROWS", "LOAD_MULTICAST")
_MULTICASTS = ("LOAD_MULTICAST", "SEND_MULTICAST")
_TRANSFERS = (*LOADS, "STORE", *SENDS)

Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Instructions:
    """Every instruction of a program in file order, which is that of a timing's spans.

    `moved_bytes` is the payload of transfers, of a multicast on its first instruction. -1 for all others: `semaphore`
    of a WAIT or SIGNAL, `destination` (the core that a send writes to), `group` of a multicast.
    """

    layer: Integers
    origin: Integers
    opcode: Integers
    core: Integers
    engine: Integers
    moved_bytes: Integers
    semaphore: Integers
    destination: Integers
    group: Integers

    @property
    def works(self) -> Booleans:
        """Which instructions occupy an engine."""
        return np.isin(self.opcode, [FORMAT_BY_NAME[name].code for name in SYNCHRONIZATION], invert=True)

    @property
    def loads(self) -> Booleans:
        """Which instructions move data from DRAM."""
        return np.isin(self.opcode, [FORMAT_BY_NAME[name].code for name in LOADS])

    @property
    def repeats(self) -> Booleans:
        """Which sends are of a multicast that an instruction before them stands for."""
        return _repeats(self.group) & (self.destination >= 0)

    @property
    def dram_bytes(self) -> Integers:
        """The payload that each instruction moves over DRAM."""
        return np.where(self.destination >= 0, 0, self.moved_bytes)

    @property
    def waits_abroad(self) -> Booleans:
        """Which instructions wait for what another core signals."""
        signals = self.are("SIGNAL")
        signalling = np.full(int(self.semaphore.max(initial=0)) + 1, -1, np.int64)
        signalling[self.semaphore[signals]] = self.core[signals]
        source = signalling[self.semaphore]
        abroad: Booleans = self.are("WAIT") & (source >= 0) & (source != self.core)
        return abroad

    def are(self, name: str) -> Booleans:
        """Which instructions have this name."""
        return np.equal(self.opcode, FORMAT_BY_NAME[name].code)


def instructions_of(program: Program) -> Instructions:
    """The columns of all the program's streams."""
    layers_of = np.array(program.metadata["origin_layers"], np.int64)
    parts = [(core, engine, *_scan(stream)) for (core, engine), stream in sorted(program.streams.items())]
    if not parts:
        return Instructions(*(np.zeros(0, np.int64) for _ in range(9)))
    origin, opcode, moved_bytes, semaphore, destination, group = map(np.concatenate, list(zip(*parts))[2:])
    moved_bytes[_repeats(group)] = 0
    core, engine = (
        np.concatenate([np.full(len(part[2]), part[index], np.int64) for part in parts]) for index in (0, 1)
    )
    return Instructions(layers_of[origin], origin, opcode, core, engine, moved_bytes, semaphore, destination, group)


def _repeats(group: Integers) -> Booleans:
    """Which instructions are of a multicast group, but not its first."""
    first = np.zeros(len(group), np.bool_)
    first[np.unique(group, return_index=True)[1]] = True
    repeats: Booleans = (group >= 0) & ~first
    return repeats


def _scan(stream: bytes) -> tuple[Integers, Integers, Integers, Integers, Integers, Integers]:
    """Origin, opcode, moved bytes, semaphore, destination and multicast group; -1 where there is none."""
    halves, words = np.frombuffer(stream, "<u2"), np.frombuffer(stream, "<u4").astype(np.int64)
    at = np.fromiter(_offsets(halves.tolist()), np.int64)
    opcode = halves[2 * at].astype(np.int64)
    moved = np.zeros(len(at), np.int64)
    for name in _TRANSFERS:
        chosen = opcode == FORMAT_BY_NAME[name].code
        moved[chosen] = _payload_bytes(words, at[chosen], name)
    semaphore = _field_of(words, at, opcode, SYNCHRONIZATION, "semaphore")
    destination = _field_of(words, at, opcode, SENDS, "destination_core")
    group = _field_of(words, at, opcode, _MULTICASTS, "group")
    return words[at + 1], opcode, moved, semaphore, destination, group


def _field_of(words: Integers, at: Integers, opcode: Integers, names: Sequence[str], field: str) -> Integers:
    """A field of the instructions with these names, -1 for all others."""
    values = np.full(len(at), -1, np.int64)
    for name in names:
        chosen = opcode == FORMAT_BY_NAME[name].code
        values[chosen] = words[at[chosen] + _word_of(name, field)]
    return values


def _payload_bytes(words: Integers, at: Integers, name: str) -> Integers:
    """Bytes moved by the transfers that start at the words `at`: their runs and steps multiplied."""
    moved = np.ones(len(at), np.int64)
    for field in FORMAT_BY_NAME[name].fields:
        if field.name in ("run_bytes", "index_count", "counts"):
            steps = np.arange(field.count) + _word_of(name, field.name)
            moved *= words[at[:, None] + steps].prod(axis=1)
    return moved


def _offsets(halves: list[int]) -> Iterator[int]:
    """Where each instruction starts, in 4-byte words; its second half-word is its size in 8-byte words."""
    offset = 0
    while offset < len(halves):
        yield offset // 2
        offset += 4 * halves[offset + 1]


@cache
def _word_of(name: str, field: str) -> int:
    """Place of an instruction's field, in 4-byte words from its start."""
    offset = _HEADER_BYTES
    for entry in FORMAT_BY_NAME[name].fields:
        if entry.name == field:
            return offset // 4
        offset += entry.count * _FIELD_BYTES[entry.type]
    raise AssertionError(f"{name} has no field {field}")
