"""Prefetch: constants of the next layers, tile by tile as far as there is room.

Where the machine has multicast, all cores that need a constant load it in the same turn, if all of them have room for
it: one transfer then serves them.
"""

from __future__ import annotations

from collections.abc import Sequence

from npu_backend.passes.core_tiles import CoreLayer
from npu_backend.passes.steps import StepBuilder, slice_bytes
from npu_backend.stages import aligned

# How many layers ahead constants are loaded; more brings nothing and costs compile time.
LAYERS_AHEAD = 4


def prefetch(builder: StepBuilder, index: int, cores: Sequence[int]) -> None:
    """Loads of what layers after `index` need and cores that run it have room for."""
    together = [cores] if builder.tiled.resident.partitioned.machine.network.multicast else [[core] for core in cores]
    for group in together:
        for following in range(index + 1, min(index + 1 + LAYERS_AHEAD, len(builder.tiled.tilings))):
            if not _load_early(builder, index, following, group):
                break


def _load_early(builder: StepBuilder, index: int, following: int, cores: Sequence[int]) -> bool:
    """Loads what is not loaded yet; whether all of it fits."""
    ahead = {core: CoreLayer(builder, following, core) for core in cores if builder.tiled.tilings[following][core]}
    room_bytes = {core: builder.room_ahead_bytes(core, index, following) for core in ahead}
    wanted = {core: layer.not_loaded() for core, layer in ahead.items()}
    for entry in dict.fromkeys(entry for entries in wanted.values() for entry in entries):
        members = [core for core, entries in wanted.items() if entry in entries]
        size_bytes = aligned(slice_bytes(entry[1]))
        if any(room_bytes[core] < size_bytes for core in members):
            return False
        for core in members:
            room_bytes[core] -= size_bytes
            ahead[core].load_early(entry)
    return True
