"""Schedule: every load, computation and store as one list of steps that is right when run in order.

Within a core the loads of a tile stand before the computation of the one before it, so that they overlap; the first
tile's constants stand before the last computation of the layer before. Halos move right after the layer that computes
them. Emission later keeps only the order that data demands.
"""

from __future__ import annotations

from npu_backend.passes.barriers import with_barriers
from npu_backend.passes.core_tiles import CoreLayer
from npu_backend.passes.dram import lay_out_dram, stored_tensors
from npu_backend.passes.exchange import exchange
from npu_backend.passes.steps import StepBuilder
from npu_backend.stages import Scheduled, Tiled


def schedule(tiled: Tiled, early_share: float) -> Scheduled:
    """The steps of the whole graph and the buffers they use.

    `early_share` of a scratchpad may be taken when constants are loaded before their layer; 0 loads none early.
    """
    partitioned = tiled.resident.partitioned
    builder = StepBuilder(
        tiled, lay_out_dram(tiled), stored_tensors(tiled.resident), 0.0 if partitioned.barriers else early_share
    )
    for index, layer in enumerate(builder.fused.layers):
        for core in partitioned.cores_of(index):
            builder.open_resident(index, core)
            CoreLayer(builder, index, core).run()
        if layer.output in tiled.resident.residencies:
            exchange(builder, index)
    steps = with_barriers(builder.steps, partitioned) if partitioned.barriers else tuple(builder.steps)
    return Scheduled(tiled, tuple(builder.buffers), steps, builder.dram)
