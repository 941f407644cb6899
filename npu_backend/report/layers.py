"""The share of every layer in a run, from the times of its instructions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.isa import FORMAT_BY_NAME, Engine
from npu_backend.program import Program
from npu_backend.runtime import Timing

_HEADER_BYTES = 8
_FIELD_BYTES = {"u32": 4, "i32": 4, "f32": 4, "u64": 8}
_COMPUTE = (Engine.MATRIX, Engine.VECTOR)
_SYNCHRONIZATION = [FORMAT_BY_NAME[name].code for name in ("WAIT", "SIGNAL")]
_DRAM_TRANSFERS = [FORMAT_BY_NAME[name].code for name in ("LOAD", "STORE")]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LayerFigures:
    """One layer: the ONNX node it is called by, its operators, how it is divided, and what it costs.

    `cycles` (of core 0's clock) is by how much the layer moves the end of the run: from the moment all layers before
    it have computed until it has. The cycles of all layers add up to those of the run. `dram_bytes` is payload;
    `tiles` counts those of each core.
    """

    name: str
    op: str
    split: str
    cycles: int
    latency_us: float
    macs: int
    dram_bytes: int
    cores: int
    tiles: tuple[int, ...]


@dataclass(frozen=True)
class _Instructions:
    """Every instruction of a program in file order: its layer, opcode and engine, and the DRAM bytes it moves."""

    layer: Integers
    opcode: Integers
    engine: Integers
    dram_bytes: Integers


def layer_figures(program: Program, timing: Timing) -> tuple[LayerFigures, ...]:
    """Figures of every layer; `timing` must have spans."""
    assert timing.spans is not None, "time the program with spans"
    rows: list[dict[str, Any]] = program.metadata["layers"]
    instructions = _instructions(program)
    ends_ns = _ends(instructions, timing, len(rows))
    moved = np.zeros(len(rows), np.int64)
    np.add.at(moved, instructions.layer, instructions.dram_bytes)
    # Rounded before the differences, so that the cycles add up.
    cycles = np.diff(np.rint(ends_ns * program.cores[0]["clock_mhz"] / 1000).astype(np.int64), prepend=0)
    latency_us = np.diff(ends_ns, prepend=0.0) / 1000
    return tuple(
        LayerFigures(
            name=row["name"], op=row["op"], split=row["split"], cycles=int(cycles[index]),
            latency_us=float(latency_us[index]), macs=row["macs"], dram_bytes=int(moved[index]),
            cores=row["cores"], tiles=tuple(row["tiles"]),
        )
        for index, row in enumerate(rows)
    )  # fmt: skip


def _ends(instructions: _Instructions, timing: Timing, layers: int) -> npt.NDArray[np.float64]:
    """When each layer and all before it have computed, in ns; what follows the last compute is the last layer's."""
    assert timing.spans is not None
    ends = np.zeros(layers)
    for selected in (_working(instructions), np.isin(instructions.engine, _COMPUTE) & _working(instructions)):
        # Layers that compute are measured by that alone: their stores run beside the next layer.
        computed = np.zeros(layers)
        np.maximum.at(computed, instructions.layer[selected], timing.spans[selected, 1])
        ends = np.where(computed > 0, computed, ends)
    if layers:
        ends[-1] = timing.total_ns
    return np.maximum.accumulate(ends)


def _working(instructions: _Instructions) -> npt.NDArray[np.bool_]:
    return ~np.isin(instructions.opcode, _SYNCHRONIZATION)


def _instructions(program: Program) -> _Instructions:
    layers_of = np.array(program.metadata["origin_layers"], np.int64)
    parts = [(engine, *_scan(stream)) for (_, engine), stream in sorted(program.streams.items())]
    if not parts:
        return _Instructions(*(np.zeros(0, np.int64) for _ in range(4)))
    return _Instructions(
        layer=layers_of[np.concatenate([origin for _, origin, _, _ in parts])],
        opcode=np.concatenate([opcode for _, _, opcode, _ in parts]),
        engine=np.concatenate([np.full(len(origin), engine) for engine, origin, _, _ in parts]),
        dram_bytes=np.concatenate([moved for *_, moved in parts]),
    )


def _scan(stream: bytes) -> tuple[Integers, Integers, Integers]:
    """Origin, opcode and DRAM bytes of every instruction, without decoding the rest."""
    halves, words = np.frombuffer(stream, "<u2"), np.frombuffer(stream, "<u4").astype(np.int64)
    at = np.fromiter(_offsets(halves.tolist()), np.int64)
    opcode = halves[2 * at].astype(np.int64)
    transfers = np.isin(opcode, _DRAM_TRANSFERS)
    moved = np.zeros(len(at), np.int64)
    run, counts = _word_of("LOAD", "run_bytes"), _word_of("LOAD", "counts")
    moved[transfers] = words[at[transfers] + run] * words[at[transfers, None] + counts + np.arange(4)].prod(axis=1)
    return words[at + 1], opcode, moved


def _offsets(halves: list[int]) -> Iterator[int]:
    """Where each instruction starts, in 4-byte words; its second half-word is its size in 8-byte words."""
    offset = 0
    while offset < len(halves):
        yield offset // 2
        offset += 4 * halves[offset + 1]


def _word_of(name: str, field: str) -> int:
    """Place of an instruction's field, in 4-byte words from its start."""
    offset = _HEADER_BYTES
    for entry in FORMAT_BY_NAME[name].fields:
        if entry.name == field:
            return offset // 4
        offset += entry.count * _FIELD_BYTES[entry.type]
    raise AssertionError(f"{name} has no field {field}")
