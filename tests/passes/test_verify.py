"""The verifiers: every rule broken once, by hand, on a stage that was right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from npu_backend.box import Box
from npu_backend.encoding import decode
from npu_backend.graph import Graph, Quantization
from npu_backend.ops.base import Reduction
from npu_backend.passes.synchronize import Synchronized
from npu_backend.pipeline import STAGES
from npu_backend.program import Program
from npu_backend.stages import Fused, Layer, Partitioned, Placed, Resident, Scheduled, Tiled, TilePart
from npu_backend.verify import VERIFIERS, VerificationError, verify
from tests.passes.networks import block, machine, stages

EMPTY = Box((0, 0, 0, 0), (0, 0, 0, 0))


@cache
def right() -> dict[str, Any]:
    return stages(block(), machine(spm_bytes=1 << 13))


def retyped(graph: Graph, name: str, **changes: Any) -> Graph:
    return replace(graph, tensors={**graph.tensors, name: replace(graph.tensors[name], **changes)})


def split_of(stage: Partitioned, index: int, *boxes: Box | None) -> Partitioned:
    splits = list(stage.splits)
    splits[index] = replace(splits[index], boxes=boxes)
    return replace(stage, splits=tuple(splits))


def grown(stage: Partitioned) -> Partitioned:
    """The stem's second part one row too long."""
    first, second = stage.splits[0].boxes
    assert second is not None
    return split_of(stage, 0, first, second.with_interval(1, second.starts[1], second.stops[1] + 1))


def shrunk(stage: Partitioned) -> Partitioned:
    first, second = stage.splits[0].boxes
    assert second is not None
    return split_of(stage, 0, first, second.with_interval(1, second.starts[1] + 1, second.stops[1]))


def uneven(stage: Partitioned) -> Partitioned:
    """The classifier cut at a channel that is no multiple of 16."""
    return split_of(stage, 7, Box((0, 0), (1, 5)), Box((0, 5), (1, 33)))


def residency(stage: Resident, **changes: Any) -> Resident:
    name, first = next(iter(stage.residencies.items()))
    return replace(stage, residencies={**stage.residencies, name: replace(first, **changes)})


def small_machine(stage: Resident) -> Resident:
    target = stage.partitioned.machine.with_spm_bytes(64)
    return replace(stage, partitioned=replace(stage.partitioned, machine=target))


def tiling(stage: Tiled, change: Callable[[tuple[TilePart, ...]], tuple[TilePart, ...]]) -> Tiled:
    """The first core's tiles of the first layer, changed."""
    first = stage.tilings[0][0]
    assert first is not None
    row = (replace(first, parts=change(first.parts)), *stage.tilings[0][1:])
    return replace(stage, tilings=(row, *stage.tilings[1:]))


def overlapping(parts: tuple[TilePart, ...]) -> tuple[TilePart, ...]:
    """Two tiles that together have all rows' size, but share a row."""
    columns, rows = parts[0].out_box, max(part.out_box.stops[1] for part in parts)
    cuts = ((0, rows // 2 + 1), (rows // 2, rows - 1))
    return tuple(TilePart(columns.with_interval(1, start, stop)) for start, stop in cuts)


def reduced(*cuts: tuple[int, int]) -> Callable[[tuple[TilePart, ...]], tuple[TilePart, ...]]:
    return lambda parts: (*(TilePart(parts[0].out_box, Reduction(*cut, 160)) for cut in cuts), *parts[1:])


def no_room(stage: Tiled) -> Tiled:
    first = stage.tilings[0][0]
    assert first is not None
    row = (replace(first, working_bytes=1 << 20), *stage.tilings[0][1:])
    return replace(stage, tilings=(row, *stage.tilings[1:]))


def without_step(stage: Scheduled, position: int) -> Scheduled:
    """The step at the position does nothing any more."""
    steps = list(stage.steps)
    steps[position] = replace(steps[position], reads=(), writes=())
    return replace(stage, steps=tuple(steps))


def without_store(stage: Scheduled) -> Scheduled:
    return without_step(stage, max(i for i, step in enumerate(stage.steps) if step.engine.name == "STORE"))


def without_load(stage: Scheduled) -> Scheduled:
    return without_step(
        stage, next(i for i, step in enumerate(stage.steps) if step.reads and step.engine.name == "LOAD")
    )


def first_twice(stage: Scheduled) -> Scheduled:
    """A store's box written once more, as if nothing had been there before."""
    steps = list(stage.steps)
    position = next(i for i, step in enumerate(steps) if step.engine.name == "STORE")
    written = steps[position].writes
    steps[position] = replace(steps[position], writes=(*written, replace(written[0], is_first=True)))
    return replace(stage, steps=tuple(steps))


def short_life(stage: Scheduled) -> Scheduled:
    buffer = stage.buffers[0]
    return replace(stage, buffers=(replace(buffer, last_step=buffer.first_step), *stage.buffers[1:]))


def wrong_core(stage: Scheduled) -> Scheduled:
    index = next(i for i, buffer in enumerate(stage.buffers) if buffer.core == 0)
    buffers = list(stage.buffers)
    buffers[index] = replace(buffers[index], core=1)
    return replace(stage, buffers=tuple(buffers))


def addressed(stage: Placed, index: int, address: int) -> Placed:
    return replace(stage, addresses=(*stage.addresses[:index], address, *stage.addresses[index + 1 :]))


def on_one_place(stage: Placed) -> Placed:
    return replace(stage, addresses=(0,) * len(stage.addresses))


def without(stage: Synchronized, what: str) -> Synchronized:
    """The first wait or signal left out."""
    lists = list(getattr(stage, what))
    index = next(i for i, semaphores in enumerate(lists) if semaphores)
    lists[index] = lists[index][1:]
    return replace(stage, **{what: tuple(lists)})


def waiting_too_early(stage: Synchronized) -> Synchronized:
    return replace(stage, waits=((0,), *stage.waits[1:]))


def other_giver(stage: Synchronized) -> Synchronized:
    """A semaphore given once more by another engine than its own."""
    giver = next(i for i, semaphores in enumerate(stage.signals) if semaphores)
    steps, semaphore = stage.placed.scheduled.steps, stage.signals[giver][0]
    other = next(i for i, step in enumerate(steps)
                 if i > giver and (step.core, step.engine) != (steps[giver].core, steps[giver].engine))  # fmt: skip
    signals = [*stage.signals]
    signals[other] = (*signals[other], semaphore)
    return replace(stage, signals=tuple(signals))


def cut_stream(program: Program) -> Program:
    """A stream that ends with a signal, without it."""
    key = next(key for key, stream in program.streams.items() if [*decode(stream)][-1].name == "SIGNAL")
    signal_bytes = 16
    return replace(program, streams={**program.streams, key: program.streams[key][:-signal_bytes]})


def moved_port(program: Program) -> Program:
    port = replace(program.ports[0], dram=1 << 40)
    return replace(program, ports=(port, *program.ports[1:]))


BROKEN: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "order": ("legalize", lambda g: replace(g, ops=g.ops[::-1]), "graph: dense classes reads flatten, which nobody"),
    "twice": ("legalize", lambda g: replace(g, ops=(g.ops[0], *g.ops)), "graph: conv2d stem writes stem a second"),
    "shape": ("legalize", lambda g: retyped(g, "stem", shape=(1, 9, 8, 25)), "graph: conv2d stem makes"),
    "code": ("legalize", lambda g: retyped(g, "stem", quantization=None), "stem makes uint8 with quantisation None"),
    "weights": ("legalize", lambda g: retyped(g, "x", dtype="float16", quantization=None), "float16 by int8 weights"),
    "scale": ("legalize", lambda g: retyped(g, "flatten", quantization=Quantization(1.0, 0)), "graph: reshape flatten"),
    "axes": ("legalize", lambda g: replace(g, inputs=(replace(g.inputs[0], storage_axes=(0, 1, 1, 2)),)), "has axes"),
    "lost": ("fuse", lambda f: replace(f, layers=f.layers[:-1]), "fuse: layers hold"),
    "layers": ("fuse", lambda f: replace(f, layers=f.layers[::-1]), "fuse: layer 0 classes reads flatten"),
    "follower": ("fuse", lambda f: replace(f, layers=(Layer((*f.layers[0].ops, *f.layers[1].ops)), *f.layers[2:])),
                 "has conv2d expand inside"),
    "outside": ("partition", grown, "partition: layer 0 stem core 1 has"),
    "hole": ("partition", shrunk, "partition: layer 0 stem: no core computes"),
    "units": ("partition", uneven, "layer 7 classes core 0: axis 1 of .* is no whole number of 16"),
    "needs": ("reside", lambda r: residency(r, boxes=(EMPTY, EMPTY)), "reside: .* core 0 holds .*, needs"),
    "producer": ("reside", lambda r: residency(r, first_layer=5), "starts at layer 5, which makes"),
    "resident": ("reside", small_machine, r"reside: layer \d core \d: \d+ resident bytes in a scratchpad of 64"),
    "missing tile": ("tile", lambda t: tiling(t, lambda parts: parts[:-1]), "tile: layer 0 stem core 0: tiles of"),
    "double tile": ("tile", lambda t: tiling(t, lambda parts: (*parts, parts[0])), "stem core 0: tile .* runs 2 times"),
    "overlap": ("tile", lambda t: tiling(t, overlapping), "tiles .* and .* overlap"),
    "sum": ("tile", lambda t: tiling(t, reduced((0, 64), (64, 128))), "sums 128 of 160 channels"),
    "gap": ("tile", lambda t: tiling(t, reduced((0, 64), (128, 160))), "after channel 64"),
    "room": ("tile", no_room, r"tile: layer 0 stem core 0: 1048576 bytes, room for \d+"),
    "unwritten": ("schedule", without_load, "schedule: step .* of layer 0 stem core 0 reads .* of which nobody wrote"),
    "unstored": ("schedule", without_store, "schedule: nobody stores .* of output y"),
    "first": ("schedule", first_twice, "is to be the first that writes .*, but is not"),
    "life": ("schedule", short_life, "uses buffer 0 .* of steps 0 to 0"),
    "core": ("schedule", wrong_core, "of core 1"),
    "range": ("place", lambda p: addressed(p, 0, 1 << 20), "place: buffer 0 .* at 1048576"),
    "alignment": ("place", lambda p: addressed(p, 0, 3), "place: buffer 0"),
    "placed": ("place", on_one_place, "place: core 0: buffer .* overlaps buffer"),
    "unsignalled": ("synchronize", lambda s: without(s, "signals"), "takes token|is given"),
    "left over": ("synchronize", lambda s: without(s, "waits"), "is given .* tokens, .* are taken"),
    "early": ("synchronize", waiting_too_early, "synchronize: step 0 .* takes token 1 of semaphore 0"),
    "two givers": ("synchronize", other_giver, "gives semaphore"),
    "tokens": ("emit", cut_stream, r"emit: semaphore \d+ of \d+ ends with -?1 tokens"),
    "port": ("emit", moved_port, "emit: port x at"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_stage(name: str) -> None:
    stage, break_it, message = BROKEN[name]
    with pytest.raises(VerificationError, match=message):
        verify(break_it(right()[stage]), thorough=True)


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_what_the_passes_make_is_right(stage: str, *, thorough: bool) -> None:
    verify(right()[stage], thorough=thorough)


def test_every_stage_has_a_verifier() -> None:
    assert {type(stage) for stage in right().values()} == set(VERIFIERS)
    assert {Fused, Partitioned, Resident, Tiled, Scheduled, Placed, Synchronized, Program} < set(VERIFIERS)


def test_a_violation_is_our_own_bug() -> None:
    assert issubclass(VerificationError, AssertionError)
