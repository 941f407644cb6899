"""Order: the layers in the order of Algorithm 1 of Jung et al., CGO 2023.

A layer whose output lies where its successor needs it is followed by that successor, so that the map is used while it
is in the scratchpad. One that is divided by channels is followed by a sibling: there is nothing to use again, and what
its readers wait for moves meanwhile.

Where no barrier stands between the layers, the vector engine works beside the matrix engine. It takes its layers in
order, so one that could start goes before one that waits for products.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from npu_backend.ops import spec_of
from npu_backend.stages import Fused, Partitioned


def order(partitioned: Partitioned) -> Partitioned:
    """The same layers and splits, in the order in which they are to run."""
    sequence = _Walk(partitioned).sequence()
    if not partitioned.barriers:
        sequence = _vector_early(partitioned.fused, sequence)
    fused = partitioned.fused.reordered(sequence)
    return replace(partitioned, fused=fused, splits=tuple(partitioned.splits[index] for index in sequence))


def _vector_early(fused: Fused, sequence: list[int]) -> list[int]:
    """Layers without products, moved before others such that stand between them and what they read."""
    early: list[int] = []
    for index in sequence:
        place = len(early)
        if _is_vector(fused, index):
            inputs = fused.inputs(fused.layers[index])
            ready = max((i for i, other in enumerate(early) if fused.layers[other].output in inputs), default=-1) + 1
            place = next((i for i in range(ready, place) if _is_vector(fused, early[i])), place)
        early.insert(place, index)
    return early


def _is_vector(fused: Fused, index: int) -> bool:
    return not any(spec_of(op).macs(fused.graph, op) for op in fused.layers[index].ops)


@dataclass
class _Walk:
    """The depth-first tree: the parent of every layer that is ready, and the ready children of each."""

    partitioned: Partitioned
    parent: dict[int, int | None] = field(default_factory=dict)
    ready: dict[int | None, list[int]] = field(default_factory=dict)
    missing: dict[int, int] = field(default_factory=dict)

    @property
    def fused(self) -> Fused:
        return self.partitioned.fused

    def sequence(self) -> list[int]:
        """Indices of the layers as they are to run."""
        producers = {layer.output: index for index, layer in enumerate(self.fused.layers)}
        for index, layer in enumerate(self.fused.layers):
            self.missing[index] = sum(name in producers for name in self.fused.inputs(layer))
            if self.missing[index] == 0:
                self._make_ready(index, None)
        done: list[int] = []
        while len(done) < len(self.fused.layers):
            done.append(self._next(done[-1] if done else None))
            self._finish(done[-1])
        return done

    def _make_ready(self, index: int, parent: int | None) -> None:
        self.parent[index] = parent
        self.ready.setdefault(parent, []).append(index)

    def _finish(self, index: int) -> None:
        self.ready[self.parent[index]].remove(index)
        for reader in self.fused.readers.get(self.fused.layers[index].output, ()):
            self.missing[reader] -= 1
            if self.missing[reader] == 0:
                self._make_ready(reader, index)

    def _next(self, current: int | None) -> int:
        successor = None if current is None else self._first(current)
        sibling = self._sibling(current)
        if successor is not None and (sibling is None or self._lies_in_place(current)):
            return successor
        if sibling is not None:
            return sibling
        # Ready children of layers that were left for a sibling.
        return min(index for children in self.ready.values() for index in children)

    def _sibling(self, current: int | None) -> int | None:
        """The first ready sibling of the layer, or else of its nearest ancestor that has one."""
        while current is not None:
            current = self.parent[current]
            found = self._first(current)
            if found is not None:
                return found
        return self._first(None)

    def _first(self, parent: int | None) -> int | None:
        return next(iter(self.ready.get(parent, ())), None)

    def _lies_in_place(self, index: int | None) -> bool:
        return index is not None and self.partitioned.splits[index].direction != "channels"
