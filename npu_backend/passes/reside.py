"""Reside: which feature maps stay in the scratchpads for the layers that read them.

A core keeps the hull of what it computes and what its later layers need; what it needs and does not compute is the
halo, which moves once. The walk is greedy in schedule order and leaves every layer room for its tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from npu_backend.box import Box
from npu_backend.stages import Partitioned, Residency, Resident, aligned
from npu_backend.strategies import Strategy

# Share of a scratchpad that resident tensors leave to the tiles of the layer that runs.
TILE_SHARE = 0.2


def reside(partitioned: Partitioned, strategy: Strategy, spilled: frozenset[str] = frozenset()) -> Resident:
    """Keeps what fits; tensors in `spilled` go through DRAM whatever there is room for.

    Without forwarding only what a stratum computes for itself is kept.
    """
    plan: dict[str, Residency] = {}
    walk = _Walk(partitioned, plan)
    for index, layer in enumerate(partitioned.fused.layers):
        if layer.output not in spilled:
            readers = (
                partitioned.fused.readers.get(layer.output, ()) if strategy.forward else partitioned.in_stratum(index)
            )
            walk.keep(layer.output, index, readers)
    return Resident(partitioned, plan)


class _Walk:
    """Scratchpad bytes taken so far, by layer and core."""

    def __init__(self, partitioned: Partitioned, plan: dict[str, Residency]) -> None:
        self.partitioned, self.plan = partitioned, plan
        cores = partitioned.machine.cores
        self.taken = [[0] * len(cores) for _ in partitioned.fused.layers]
        self.room = [int(core.spm_bytes * (1 - TILE_SHARE)) for core in cores]

    def keep(self, tensor: str, producer: int, readers: Sequence[int]) -> None:
        """Keeps a tensor until the last of these readers, or the last one for which there is room."""
        for count in range(len(readers), 0, -1):
            residency = Residency(tensor, self._boxes(tensor, producer, readers[:count]), producer, readers[count - 1])
            if self._fits(residency):
                self.plan[tensor] = residency
                for layer, core, size in self._demand(residency):
                    self.taken[layer][core] += size
                return

    def _boxes(self, tensor: str, producer: int, readers: Iterable[int]) -> tuple[Box | None, ...]:
        needs = needed_boxes(self.partitioned, tensor, readers)
        boxes = []
        for core in range(len(self.partitioned.machine.cores)):
            own, need = self.partitioned.out_box(producer, core), needs.get(core)
            boxes.append(need if own is None else own if need is None else own.hull(need))
        return tuple(boxes)

    def _demand(self, residency: Residency) -> Iterable[tuple[int, int, int]]:
        itemsize = self.partitioned.fused.graph.tensor(residency.tensor).itemsize
        for core, box in enumerate(residency.boxes):
            if box is not None:
                for layer in range(residency.first_layer, residency.last_layer + 1):
                    yield layer, core, aligned(box.size * itemsize)

    def _fits(self, residency: Residency) -> bool:
        return all(self.taken[layer][core] + size <= self.room[core] for layer, core, size in self._demand(residency))


def needed_boxes(partitioned: Partitioned, tensor: str, readers: Iterable[int]) -> Mapping[int, Box]:
    """For every core, the box of a tensor that its parts of the reading layers need."""
    needs: dict[int, Box] = {}
    for index in readers:
        for core in partitioned.cores_of(index):
            box = partitioned.needed(index, core)[tensor]
            if not box.is_empty:
                needs[core] = needs[core].hull(box) if core in needs else box
    return needs
