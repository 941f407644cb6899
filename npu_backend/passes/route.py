"""Route: what cores need of resident tensors and did not compute, on which way it comes, and what starts first.

Every box is sent directly or goes through DRAM, to one reader or to several at once, whichever leaves the busiest
resource that it crosses the least busy, all that the same layer moves counted. What the next layer waits for starts
first, and what is computed first; cores that all have something for each other start with their neighbours, so that no
two send to the same one at a time. What is not needed soon waits for its turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from npu_backend.box import Box, subtract_all
from npu_backend.cost import CostModel
from npu_backend.passes.dram import stored_tensors
from npu_backend.passes.ways import Ways
from npu_backend.stages import Fetch, Move, Partitioned, Residency, Routed, Tiled

# Layers between the start of a move and its reader: fewer come too late, more keep urgent ones waiting.
LAYERS_AHEAD = 6
# A part that takes this many times the mean of its layer is critical: what it waits for goes first.
CRITICAL = 1.25
# What a tile leaves of a box is sent by itself if it has so many bytes: more would wait for the last tile.
TILE_BYTES = 4096
# A reader fetches up to so many boxes from DRAM one by one, as soon as each is there; more in one load.
FETCHES = 2


@dataclass(frozen=True)
class _Piece:
    """What readers lack of a tensor for one layer, on a core that hands it on; `holders` could do so too."""

    box: Box
    holders: tuple[int, ...]
    readers: tuple[int, ...]
    layer: int


def route(tiled: Tiled, cost: CostModel, *, scheduled: bool = True) -> Routed:
    """Moves and fetches after every layer; without `scheduled` in the order of the program instead of the best."""
    layers = tiled.resident.partitioned.fused.layers
    moves: list[list[Move]] = [[] for _ in layers]
    fetches: list[list[Fetch]] = [[] for _ in layers]
    router = _Router(tiled, cost, stored_tensors(tiled.resident), scheduled)
    for index, layer in enumerate(layers):
        residency = tiled.resident.residencies.get(layer.output)
        for reader, routed in router.of_layer(index, residency) if residency else ():
            slot = max(index, reader - LAYERS_AHEAD) if scheduled else index
            moves[slot] += routed
            fetches[slot] += _fetches(routed)
    return Routed(tiled, tuple(map(tuple, moves)), tuple(map(tuple, fetches)))


def _fetches(moves: Sequence[Move]) -> list[Fetch]:
    """Loads of what comes through DRAM."""
    boxes: dict[tuple[int, int], list[Box]] = {}
    for move in moves:
        for reader in () if move.direct else move.readers:
            boxes.setdefault((move.producer, reader), []).append(move.box)
    return [Fetch(producer, box, reader) for (producer, reader), pieces in boxes.items() for box in _joined(pieces)]


def _joined(pieces: list[Box]) -> list[Box]:
    """Many pieces as the box that they fill, if they do."""
    hull = pieces[0]
    for piece in pieces[1:]:
        hull = hull.hull(piece)
    is_filled = hull.size == sum(piece.size for piece in pieces)
    return [hull] if len(pieces) > FETCHES and is_filled else pieces


@dataclass(frozen=True)
class _Router:
    tiled: Tiled
    cost: CostModel
    stored: frozenset[str]
    scheduled: bool

    @property
    def partitioned(self) -> Partitioned:
        return self.tiled.resident.partitioned

    def of_layer(self, index: int, residency: Residency) -> Iterator[tuple[int, list[Move]]]:
        """The moves of a layer's output for every layer that reads it and lacks some of it."""
        lacking = _Lacking(self.partitioned, index)
        readers = self.partitioned.fused.readers[residency.tensor]
        computed_ns = max(tiling.estimate_ns for tiling in self.tiled.tilings[index] if tiling is not None)
        ways = Ways(self.cost, self._itemsize(index), residency.tensor in self.stored, computed_ns)
        for reader in (each for each in readers if each <= residency.last_layer):
            pieces = self._cut(index, lacking.pieces(reader))
            if pieces:
                ways.expect(self._constant_bytes(reader))
                order = sorted(pieces, key=lambda piece: self._urgency(index, piece))
                moves = [move for piece in order for move in self._moves(ways, index, piece)]
                yield reader, moves if self.scheduled else sorted(moves, key=lambda move: move.readers)

    def _moves(self, ways: Ways, index: int, piece: _Piece) -> list[Move]:
        choice = ways.choose(piece.box.size, piece.holders, piece.readers)
        groups = [piece.readers] if choice.together else [(reader,) for reader in piece.readers]
        return [Move(index, piece.box, choice.source, group, choice.direct) for group in groups]

    def _itemsize(self, index: int) -> int:
        return self.partitioned.fused.output(self.partitioned.fused.layers[index]).itemsize

    def _constant_bytes(self, reader: int) -> int:
        """What DRAM has to deliver meanwhile: the reading layer's constants, to every core or once for all."""
        copies = 1 if self.partitioned.machine.network.multicast else len(self.partitioned.cores_of(reader))
        by_channels = "channels" in self.partitioned.splits[reader].direction
        return self.partitioned.fused.constant_bytes(self.partitioned.fused.layers[reader]) * (
            1 if by_channels else copies
        )

    def _cut(self, index: int, pieces: Sequence[_Piece]) -> list[_Piece]:
        """Large pieces as their source's tiles leave them, where they can be sent at once."""
        if not self.partitioned.machine.network.cores_reach_each_other:
            return list(pieces)
        return [part for piece in pieces for part in self._tiles(index, piece)]

    def _tiles(self, index: int, piece: _Piece) -> Iterator[_Piece]:
        tiling = self.tiled.tilings[index][piece.holders[0]]
        assert tiling is not None
        common = {part.out_box.intersect(piece.box) for part in tiling.parts}
        parts = [box for box in common if not box.is_empty]
        if min(box.size for box in parts) * self._itemsize(index) < TILE_BYTES:
            parts = [piece.box]
        for box in sorted(parts, key=lambda box: box.starts):
            yield _Piece(box, piece.holders, piece.readers, piece.layer)

    def _urgency(self, index: int, piece: _Piece) -> tuple[object, ...]:
        """Smaller is sooner: computed first, for a part that is behind the others, to the next core round."""
        source, cores = piece.holders[0], len(self.partitioned.machine.cores)
        tiling = self.tiled.tilings[index][source]
        assert tiling is not None
        ready = max(i for i, part in enumerate(tiling.parts) if part.out_box.overlaps(piece.box))
        distance = min((reader - source) % cores for reader in piece.readers)
        return ready / len(tiling.parts), not self._is_critical(piece), distance, source, piece.box.starts

    def _is_critical(self, piece: _Piece) -> bool:
        tilings = [tiling for tiling in self.tiled.tilings[piece.layer] if tiling is not None]
        mean_ns = sum(tiling.estimate_ns for tiling in tilings) / len(tilings)
        parts = (self.tiled.tilings[piece.layer][reader] for reader in piece.readers)
        return any(part is not None and part.estimate_ns > CRITICAL * mean_ns for part in parts)


class _Lacking:
    """What every core lacks of a layer's output for one reading layer after another."""

    def __init__(self, partitioned: Partitioned, index: int) -> None:
        self.partitioned, self.index = partitioned, index
        self.tensor = partitioned.fused.layers[index].output
        self.boxes = partitioned.splits[index].boxes
        self.there: list[list[Box]] = [[] if box is None else [box] for box in self.boxes]

    def pieces(self, reader: int) -> list[_Piece]:
        """Disjoint for each core; the cores are taken to have them from now on."""
        readers: dict[tuple[int, Box], list[int]] = {}
        for core in self.partitioned.cores_of(reader):
            need = self.partitioned.needed(reader, core)[self.tensor]
            for missing in subtract_all(need, self.there[core]):
                for owner, piece in self._owners(missing):
                    readers.setdefault((owner, piece), []).append(core)
            self.there[core].append(need)
        return [_Piece(box, self._holders(owner, box), tuple(cores), reader) for (owner, box), cores in readers.items()]

    def _owners(self, box: Box) -> list[tuple[int, Box]]:
        """The box in disjoint pieces, each with the core that is to hand it on."""
        found = self.partitioned.splits[self.index].owners(box)
        assert sum(piece.size for _, piece in found) == box.size, f"nobody computes all of {box} of {self.tensor}"
        return found

    def _holders(self, owner: int, box: Box) -> tuple[int, ...]:
        """The owner first, then the others that compute the box too."""
        if self.partitioned.splits[self.index].shares_nothing:
            return (owner,)
        others = (core for core, own in enumerate(self.boxes) if core != owner and own is not None)
        return (owner, *(core for core in others if self.boxes[core].contains(box)))  # type: ignore[union-attr]
