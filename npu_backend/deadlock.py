"""Whether transfers can wait for each other in a circle, and layers of virtual channels in which they cannot.

A transfer holds the buffer of one link while it waits for that of the next. If no buffer, a pair of link and virtual
channel, waits for itself over the routes of all transfers, none waits for ever (Dally and Seitz, "Deadlock-Free
Message Routing in Multiprocessor Interconnection Networks", IEEE Transactions on Computers, 1987). Where the links
of a list allow circles, routes are put greedily into layers, each free of them, and every layer takes a virtual
channel of its own (LASH: Skeie, Lysne and Theiss, IPDPS 2002).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from npu_backend.topology import Hop, Walk

Channel = tuple[str, int]  # link and virtual channel


def dependency_cycle(walks: Iterable[Walk]) -> list[Channel]:
    """Channels of which each waits for the next and the last for the first; none when transfers cannot deadlock."""
    waits_for: dict[Channel, set[Channel]] = {}
    for walk in walks:
        channels = [(hop.link.name, hop.virtual_channel) for hop in walk.hops]
        for held, wanted in pairwise(channels):
            waits_for.setdefault(held, set()).add(wanted)
    try:
        TopologicalSorter(waits_for).prepare()
    except CycleError as error:
        cycle: list[Channel] = error.args[1]
        return cycle[:0:-1]  # its predecessors come after each node, and the first is there twice
    return []


class Layers:
    """Routes in layers, each without a cycle of links that wait for each other; a layer is a virtual channel."""

    def __init__(self) -> None:
        self._waits_for: list[dict[str, set[str]]] = []

    def put(self, walk: Walk) -> Walk:
        """The walk on the virtual channel of the first layer that stays without a cycle with it, a new one if none."""
        names = [hop.link.name for hop in walk.hops]
        layer = next((i for i, graph in enumerate(self._waits_for) if _add(graph, names)), len(self._waits_for))
        if layer == len(self._waits_for):
            self._waits_for.append({})
            _add(self._waits_for[layer], names)
        return walk._replace(hops=tuple(Hop(hop.link, layer) for hop in walk.hops)) if layer else walk


def layered(walks: Mapping[tuple[int, int], Walk], core_count: int) -> dict[tuple[int, int], Walk]:
    """The walks between pairs of ends, in layers.

    Those among the first cores come first, so that a machine of fewer cores has the same channels.
    """
    layers = Layers()
    order = sorted(walks, key=lambda ends: max(end for end in ends if end < core_count))
    channels = {ends: layers.put(walks[ends]) for ends in order}
    return {ends: channels[ends] for ends in walks}


def _add(waits_for: dict[str, set[str]], names: Sequence[str]) -> bool:
    """Whether the walk's dependencies were added; not if they would close a cycle."""
    added: list[tuple[str, str]] = []
    for held, wanted in pairwise(names):
        if wanted not in waits_for.setdefault(held, set()):
            if _leads_to(waits_for, wanted, held):
                for before, after in added:
                    waits_for[before].remove(after)
                return False
            waits_for[held].add(wanted)
            added.append((held, wanted))
    return True


def _leads_to(waits_for: Mapping[str, set[str]], start: str, goal: str) -> bool:
    seen, waiting = {start}, [start]
    while waiting:
        link = waiting.pop()
        if link == goal:
            return True
        new = waits_for.get(link, set()) - seen
        seen |= new
        waiting += new
    return False
