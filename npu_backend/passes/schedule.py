"""Schedule: every load, computation and store as one list of steps that is right when run in order.

Within a core the loads of a tile stand before the computation of the one before it, so that they overlap; the first
tile's constants stand before the last computation of the layer before. Halos move right after the layer that computes
them. Emission later keeps only the order that data demands.

Where the machine has multicast, cores that load the same from DRAM in the same turn are served by one transfer. It
starts when the last of them asks for it: all that the cores wait for stands before the turn, so none waits for ever.
"""

from __future__ import annotations

from npu_backend.passes.barriers import with_barriers
from npu_backend.passes.core_tiles import CoreLayer
from npu_backend.passes.dram import lay_out_dram, stored_tensors
from npu_backend.passes.exchange import exchange
from npu_backend.passes.prefetch import prefetch
from npu_backend.passes.steps import StepBuilder
from npu_backend.stages import Routed, Scheduled


def schedule(routed: Routed, early_share: float) -> Scheduled:
    """The steps of the whole graph and the buffers they use.

    `early_share` of a scratchpad may be taken when constants are loaded before their layer; 0 loads none early.
    """
    partitioned = routed.tiled.resident.partitioned
    builder = StepBuilder(
        routed, lay_out_dram(routed.tiled), stored_tensors(routed.tiled.resident),
        0.0 if partitioned.barriers else early_share,
    )  # fmt: skip
    for index in range(len(builder.fused.layers)):
        _run_layer(builder, index)
        start = len(builder.steps)
        exchange(builder, routed.moves[index], routed.fetches[index])
        builder.share_loads(start)
    steps = with_barriers(builder.steps, partitioned) if partitioned.barriers else tuple(builder.steps)
    return Scheduled(routed, tuple(builder.buffers), steps, builder.dram)


def _run_layer(builder: StepBuilder, index: int) -> None:
    """The cores in turns, tile by tile, so that the loads which all of them make stand side by side."""
    cores = builder.tiled.resident.partitioned.cores_of(index)
    for core in cores:
        builder.open_resident(index, core)
    parts = [CoreLayer(builder, index, core) for core in cores]
    turns = [part.turns() for part in parts]
    while turns:
        start = len(builder.steps)
        turns = [turn for turn in turns if next(turn, True) is None]
        builder.share_loads(start)
    start = len(builder.steps)
    prefetch(builder, index, cores)
    builder.share_loads(start)
    for part in parts:
        part.finish()
