"""A readable text of every stage between the passes: for ``--stop-after STAGE --dump`` and for golden tests.

Stable and compact: one line per thing, in the stage's own order, without times of this machine or addresses of objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import singledispatch
from typing import Any

from npu_backend.box import Box
from npu_backend.encoding import decode, format_instruction
from npu_backend.graph import Graph
from npu_backend.isa import Engine
from npu_backend.passes.synchronize import Synchronized
from npu_backend.program import Program
from npu_backend.stages import (
    Access,
    Buffer,
    Fused,
    Move,
    Partitioned,
    Placed,
    Resident,
    Routed,
    Scheduled,
    Step,
    Tiled,
    TilePart,
)


@singledispatch
def stage_text(stage: Any) -> str:
    """The text of what a pass made."""
    raise AssertionError(f"no text for a {type(stage).__name__}")


@stage_text.register
def graph_text(graph: Graph) -> str:
    """Inputs, operators and outputs."""
    return str(graph)


@stage_text.register
def fused_text(fused: Fused) -> str:
    """Every layer: what it reads and computes."""
    lines = [f"layers {fused.graph.name}"]
    for index, layer in enumerate(fused.layers):
        kinds = "+".join(op.kind for op in layer.ops)
        output = fused.output(layer)
        constants = fused.constant_bytes(layer)
        lines.append(f"  {index}: {layer.output} {output.dtype}{list(output.shape)} = {kinds}"
                     f"({', '.join(fused.inputs(layer))})" + (f" constants {constants}" if constants else "")
                     + f"  # {layer.name}")  # fmt: skip
    return _joined(lines)


@stage_text.register
def partitioned_text(partitioned: Partitioned) -> str:
    """Every layer's split: direction, reason, and each core's output box."""
    names = [core.name for core in partitioned.machine.cores]
    lines = [f"splits {partitioned.fused.graph.name} on {partitioned.machine.name}: {', '.join(names)}"]
    for index, (layer, split) in enumerate(zip(partitioned.fused.layers, partitioned.splits, strict=True)):
        boxes = " ".join(map(_box, split.boxes))
        join = partitioned.joins[index]
        stratum = f" stratum {join.stratum}: {join.reason}" if join.reason else ""
        lines.append(f"  {index}: {layer.output} {split.direction} {boxes}  # {split.reason}{stratum}")
    return _joined(lines)


@stage_text.register
def resident_text(resident: Resident) -> str:
    """The tensors that stay in the scratchpads."""
    lines = [f"residencies {resident.partitioned.fused.graph.name}"]
    for name, residency in resident.residencies.items():
        boxes = " ".join(map(_box, residency.boxes))
        lines.append(f"  {name} layers {residency.first_layer}..{residency.last_layer} {boxes}")
    return _joined(lines)


@stage_text.register
def tiled_text(tiled: Tiled) -> str:
    """Every core's tiles of every layer: how many, the largest, working bytes and the estimate."""
    fused = tiled.resident.partitioned.fused
    lines = [f"tilings {fused.graph.name} planned share {tiled.planned_share:.2g}"]
    for index, (layer, tilings) in enumerate(zip(fused.layers, tiled.tilings, strict=True)):
        lines.append(f"  {index}: {layer.output}")
        lines += [f"    core {core}: {_tiles(tiling.parts)}, {tiling.working_bytes} bytes, {tiling.estimate_ns:.0f} ns"
                  for core, tiling in enumerate(tilings) if tiling is not None]  # fmt: skip
    return _joined(lines)


@stage_text.register
def routed_text(routed: Routed) -> str:
    """After every layer, what is on its way: the box, its source and readers, and by which way."""
    fused = routed.tiled.resident.partitioned.fused
    lines = [f"routes {fused.graph.name}"]
    for index, (moves, fetches) in enumerate(zip(routed.moves, routed.fetches, strict=True)):
        lines += [f"  after {index}: {_route(fused, move)}" for move in moves]
        lines += [f"  after {index}: {fused.layers[fetch.producer].output}{_box(fetch.box)} DRAM -> core {fetch.reader}"
                  for fetch in fetches]  # fmt: skip
    return _joined(lines)


def _route(fused: Fused, move: Move) -> str:
    way = ("multicast" if len(move.readers) > 1 else "direct") if move.direct else "through DRAM"
    readers = ", ".join(map(str, move.readers))
    return f"{fused.layers[move.producer].output}{_box(move.box)} core {move.source} -> {readers} {way}"


@stage_text.register
def scheduled_text(scheduled: Scheduled) -> str:
    """Every step in order: engine, instructions, what it reads and writes; then the places in DRAM."""
    fused = scheduled.tiled.resident.partitioned.fused
    lines = [f"schedule {fused.graph.name} {len(scheduled.steps)} steps, {scheduled.dram.size_bytes} DRAM bytes"]
    lines += [_step(scheduled, index, step) for index, step in enumerate(scheduled.steps)]
    lines += [f"  dram {name} at {offset}" for name, offset in scheduled.dram.tensors.items()]
    return _joined(lines)


@stage_text.register
def placed_text(placed: Placed) -> str:
    """Every buffer's address, size and life; the peak of every core."""
    name = placed.scheduled.tiled.resident.partitioned.fused.graph.name
    lines = [f"placement {name} peaks {' '.join(map(str, placed.peak_bytes))}"]
    buffers = sorted(zip(placed.scheduled.buffers, placed.addresses, strict=True), key=_by_core_and_start)
    lines += [f"  core {buffer.core} {address}+{buffer.size_bytes} steps {buffer.first_step}..{buffer.last_step}"
              f" {buffer.label}" for buffer, address in buffers]  # fmt: skip
    return _joined(lines)


@stage_text.register
def synchronized_text(synchronized: Synchronized) -> str:
    """Every step that waits or signals."""
    steps = synchronized.placed.scheduled.steps
    name = synchronized.placed.scheduled.tiled.resident.partitioned.fused.graph.name
    lines = [f"semaphores {name} {synchronized.semaphore_count}"]
    for index, (step, waits, signals) in enumerate(zip(steps, synchronized.waits, synchronized.signals, strict=True)):
        if waits or signals:
            parts = [f"wait {' '.join(map(str, waits))}"] * bool(waits)
            parts += [f"signal {' '.join(map(str, signals))}"] * bool(signals)
            lines.append(f"  {index}: {_engine(step.core, step.engine)} {', '.join(parts)}")
    return _joined(lines)


@stage_text.register
def program_text(program: Program) -> str:
    """The disassembly of all streams."""
    return _joined(disassembly(program))


def disassembly(program: Program, core: int | None = None, engine: Engine | None = None) -> Iterator[str]:
    """Lines: a head for every stream, then its instructions with byte offset and ONNX node.

    `core` and `engine` select streams. Raises ProgramError for a stream that is not valid.
    """
    for port in program.ports:
        way = "output" if port.is_output else "input"
        yield f"{way} {port.name}: {port.dtype}{list(port.host_shape)} at {port.dram} axes={list(port.storage_axes)}"
    for (number, unit), stream in sorted(program.streams.items()):
        if core in (None, number) and engine in (None, unit):
            yield f"{_engine(number, unit)}: {len(stream)} bytes"
            yield from _instructions(program, stream)


def _instructions(program: Program, stream: bytes) -> Iterator[str]:
    offset = 0
    for instruction in decode(stream):
        known = instruction.origin < len(program.origins)
        origin = program.origins[instruction.origin] if known else f"unknown origin {instruction.origin}"
        yield f"  {offset:06x} {format_instruction(instruction)}  # {origin}"
        # The size in 8-byte words is the instruction's second half-word.
        offset += 8 * int.from_bytes(stream[offset + 2 : offset + 4], "little")


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def _box(box: Box | None) -> str:
    return "-" if box is None else str(box).replace(" ", "")


def _engine(core: int, engine: Engine) -> str:
    return f"core {core} {engine.name.lower()}"


def _tiles(parts: tuple[TilePart, ...]) -> str:
    largest = max(parts, key=lambda part: part.out_box.size)
    sums = {part.reduction.stop - part.reduction.start for part in parts if part.reduction is not None}
    text = f"{len(parts)} tiles up to {'x'.join(map(str, largest.out_box.shape))}"
    return text + (f" summing {max(sums)} channels" if sums else "")


def _step(scheduled: Scheduled, index: int, step: Step) -> str:
    names = [instruction.name for instruction in step.instructions]
    counted = " ".join(
        f"{names.count(name)}x{name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)
    )
    reads, writes = (" ".join(_access(scheduled, access) for access in part) for part in (step.reads, step.writes))
    return f"  {index}: {_engine(step.core, step.engine)} {counted}: {reads} -> {writes}  # {step.origin}"


def _access(scheduled: Scheduled, access: Access) -> str:
    if isinstance(access.buffer, str):
        return f"dram.{access.buffer}{_box(access.box)}"
    return f"{access.buffer}.{scheduled.buffers[access.buffer].label}{_box(access.box)}"


def _by_core_and_start(placed: tuple[Buffer, int]) -> tuple[int, int, int]:
    buffer, address = placed
    return buffer.core, buffer.first_step, address
