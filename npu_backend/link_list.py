"""Explicit lists of links: the walk of fewest links, of equal ones the first in the file's order, never through DRAM.

From one source the walks form a tree, because each node is reached by one link: the search's predecessor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache

from npu_backend.errors import MachineError
from npu_backend.network_types import LinkList
from npu_backend.program import DRAM_NODE
from npu_backend.topology import DirectedLink, Hop, Topology, Walk, bytes_per_ns

DRAM_NAME = "dram"


def list_topology(network: LinkList, core_names: Sequence[str]) -> Topology:
    """Links named by their nodes (`npu0-switch`); DRAM is the node "dram", behind as many links as there are."""
    links = _directed(network)
    ways: dict[str, list[DirectedLink]] = {}
    for link in links:
        ways.setdefault(link.source, []).append(link)

    @cache
    def incoming(source: str) -> Mapping[str, DirectedLink]:
        return _shortest_tree(ways, source)

    def walk(source: int, destination: int) -> Walk:
        first, last = (DRAM_NAME if end == DRAM_NODE else core_names[end] for end in (source, destination))
        return Walk(tuple(Hop(link, 0) for link in _back_from(last, first, incoming(first))))

    return Topology({link.name: link for link in links}, walk, {})


def _directed(network: LinkList) -> list[DirectedLink]:
    found = []
    for link in network.links:
        rate = bytes_per_ns(network, link.bytes_per_cycle)
        latency_ns = network.hop_latency_ns if link.latency_ns is None else link.latency_ns
        ends = [(link.source, link.destination)] + ([] if link.one_way else [(link.destination, link.source)])
        found += [DirectedLink(f"{a}-{b}", a, b, rate, latency_ns) for a, b in ends]
    return found


def _shortest_tree(ways: Mapping[str, Sequence[DirectedLink]], source: str) -> dict[str, DirectedLink]:
    """The link by which each node is reached; nothing passes through DRAM."""
    incoming: dict[str, DirectedLink] = {}
    waiting = deque([source])
    while waiting:
        node = waiting.popleft()
        for link in ways.get(node, ()) if node == source or node != DRAM_NAME else ():
            if link.destination != source and link.destination not in incoming:
                incoming[link.destination] = link
                waiting.append(link.destination)
    return incoming


def _back_from(node: str, source: str, incoming: Mapping[str, DirectedLink]) -> list[DirectedLink]:
    if node not in incoming:
        raise MachineError(f"no links lead from {source} to {node}; add some to network.links")
    walk = []
    while node != source:
        walk.append(incoming[node])
        node = incoming[node].source
    return walk[::-1]
