"""Verifier of the routes: every core gets what it lacks, in time, from a core that computes it."""

from __future__ import annotations

from collections.abc import Iterator

from npu_backend.box import Box, subtract_all
from npu_backend.stages import Move, Partitioned, Residency, Routed
from npu_backend.verify_error import VerificationError

# A box that arrives at a core, after which layer.
_Arrival = tuple[int, Box]


def verify_routed(routed: Routed, *, thorough: bool) -> None:
    """Sources compute what they send; together with what a core computes itself, all that its layers read is there.

    What is fetched from DRAM was put there before for those who fetch it. `thorough`: nothing arrives twice, or where
    it is computed or read by nobody.
    """
    resident = routed.tiled.resident
    for move in (move for moves in routed.moves for move in moves):
        _check_source(resident.partitioned, move)
    _check_fetches(routed)
    arrivals = _arrivals(routed)
    for residency in resident.residencies.values():
        for core in range(len(resident.partitioned.machine.cores)):
            there = arrivals.get((residency.first_layer, core), [])
            _check_needs(resident.partitioned, residency, core, there)
            if thorough:
                _check_once(residency, core, there)
                _check_use(resident.partitioned, residency, core, there)


def _check_source(partitioned: Partitioned, move: Move) -> None:
    own = partitioned.out_box(move.producer, move.source)
    if own is None or not own.contains(move.box) or move.source in move.readers or not move.readers:
        raise VerificationError(
            f"route: core {move.source} sends {move.box} of layer {move.producer} to {move.readers}, it computes {own}"
        )
    if move.direct and not partitioned.machine.network.cores_reach_each_other:
        raise VerificationError(f"route: core {move.source} sends to {move.readers}, which it cannot reach")


def _check_fetches(routed: Routed) -> None:
    """Programs run the moves after a layer before its fetches."""
    stored: dict[tuple[int, int], list[Box]] = {}
    for moves, fetches in zip(routed.moves, routed.fetches, strict=True):
        for move in (move for move in moves if not move.direct):
            for reader in move.readers:
                stored.setdefault((move.producer, reader), []).append(move.box)
        for fetch in fetches:
            missing = subtract_all(fetch.box, stored.get((fetch.producer, fetch.reader), []))
            if missing:
                raise VerificationError(
                    f"route: core {fetch.reader} fetches {missing[0]} of layer {fetch.producer}, which is not in DRAM"
                )


def _arrivals(routed: Routed) -> dict[tuple[int, int], list[_Arrival]]:
    """By producer and core."""
    arrivals: dict[tuple[int, int], list[_Arrival]] = {}
    for (producer, core), arrival in _arriving(routed):
        arrivals.setdefault((producer, core), []).append(arrival)
    return arrivals


def _arriving(routed: Routed) -> Iterator[tuple[tuple[int, int], _Arrival]]:
    for slot, (moves, fetches) in enumerate(zip(routed.moves, routed.fetches, strict=True)):
        for move in moves:
            for reader in move.readers if move.direct else ():
                yield (move.producer, reader), (slot, move.box)
        for fetch in fetches:
            yield (fetch.producer, fetch.reader), (slot, fetch.box)


def _check_needs(partitioned: Partitioned, residency: Residency, core: int, there: list[_Arrival]) -> None:
    own = partitioned.out_box(residency.first_layer, core)
    for reader in partitioned.fused.readers.get(residency.tensor, ()):
        need = partitioned.needed(reader, core).get(residency.tensor)
        if need is None or need.is_empty or reader > residency.last_layer:
            continue
        held = [box for slot, box in there if residency.first_layer <= slot < reader]
        missing = subtract_all(need, [*held, own] if own is not None else held)
        if missing:
            raise VerificationError(
                f"route: layer {reader} on core {core} reads {need} of {residency.tensor}, {missing[0]} does not come"
            )


def _check_once(residency: Residency, core: int, there: list[_Arrival]) -> None:
    for number, (_, box) in enumerate(there):
        if any(box.overlaps(other) for _, other in there[:number]):
            raise VerificationError(f"route: {box} of {residency.tensor} comes to core {core} twice")


def _check_use(partitioned: Partitioned, residency: Residency, core: int, there: list[_Arrival]) -> None:
    own = partitioned.out_box(residency.first_layer, core)
    for slot, box in there:
        readers = (each for each in partitioned.fused.readers.get(residency.tensor, ()) if each > slot)
        needs = [need for each in readers if (need := partitioned.needed(each, core).get(residency.tensor)) is not None]
        if subtract_all(box, needs) or (own is not None and own.overlaps(box)):
            raise VerificationError(
                f"route: {box} of {residency.tensor} comes to core {core}, which computes {own} and reads {needs}"
            )
