"""Exchange: the moves between cores as steps."""

from __future__ import annotations

from collections.abc import Iterable

from npu_backend.box import Box
from npu_backend.isa import Engine
from npu_backend.ops.base import LoweredInstruction, Operand
from npu_backend.passes.lower import dense_operand
from npu_backend.passes.steps import StepBuilder
from npu_backend.passes.transfers import load_box, send_box, store_box
from npu_backend.stages import Access, Fetch, Move, Step


def exchange(builder: StepBuilder, moves: Iterable[Move], fetches: Iterable[Fetch]) -> None:
    """Moves boxes of resident tensors between cores: first what is sent and stored, then what is loaded from DRAM."""
    for move in moves:
        for reader in move.readers:
            builder.open_resident(move.producer, reader)
        _send(builder, move) if move.direct else _store(builder, move)
    for fetch in fetches:
        _load(builder, fetch)


def _send(builder: StepBuilder, move: Move) -> None:
    own, reads = _at(builder, move.producer, move.source, move.box)
    there = [_at(builder, move.producer, reader, move.box, is_first=True) for reader in move.readers]
    instructions = send_box(own, [(operand, reader) for (operand, _), reader in zip(there, move.readers)])
    writes = tuple(access for _, access in there)
    is_multicast = len(move.readers) > 1
    group = builder.new_groups(len(instructions) // len(move.readers)) if is_multicast else None
    _step(builder, move.producer, move.source, Engine.NETWORK, instructions, reads, writes, group)


def _store(builder: StepBuilder, move: Move) -> None:
    """Into DRAM, unless it is there already, or the layer stores it anyway."""
    tensor = builder.fused.output(builder.fused.layers[move.producer])
    if tensor.name in builder.stored or (tensor.name, move.box) in builder.put_into_dram:
        return
    builder.put_into_dram.add((tensor.name, move.box))
    own, reads = _at(builder, move.producer, move.source, move.box)
    instructions = store_box(tensor, builder.dram.tensors[tensor.name], own)
    _step(builder, move.producer, move.source, Engine.STORE, instructions, reads, (Access(tensor.name, move.box),))


def _load(builder: StepBuilder, fetch: Fetch) -> None:
    tensor = builder.fused.output(builder.fused.layers[fetch.producer])
    there, writes = _at(builder, fetch.producer, fetch.reader, fetch.box, is_first=True)
    instructions = load_box(tensor, builder.dram.tensors[tensor.name], there)
    reads = Access(tensor.name, fetch.box)
    _step(builder, fetch.producer, fetch.reader, Engine.LOAD, instructions, reads, (writes,))


def _at(builder: StepBuilder, producer: int, core: int, box: Box, *, is_first: bool = False) -> tuple[Operand, Access]:
    """A box in a core's resident buffer; of what a core lacks, nothing is there before it is moved."""
    name = builder.fused.layers[producer].output
    buffer, held = builder.resident[name, core], builder.resident_box(name, core)
    return dense_operand(builder.fused, buffer, name, held, box), Access(buffer, box, is_first)


def _step(
    builder: StepBuilder, producer: int, core: int, engine: Engine, instructions: tuple[LoweredInstruction, ...],
    reads: Access, writes: tuple[Access, ...], group: int | None = None,
) -> None:  # fmt: skip
    name = builder.fused.layers[producer].name
    builder.step(Step(core, engine, instructions, (reads,), writes, producer, name, group))
