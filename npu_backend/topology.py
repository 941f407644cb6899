"""What a network is made of: nodes, directed links and the walk a transfer takes over them.

Every walk is fixed by its two ends. On rings, meshes and tori it is the shorter way in dimension order (`grid`), in a
list of links the one of fewest links (`link_list`); `deadlock` shows that walks never wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from npu_backend.network_types import Bus, Crossbar, Network
from npu_backend.program import DRAM_NODE


class DirectedLink(NamedTuple):
    """One direction of a link between two nodes."""

    name: str
    source: str
    destination: str
    bytes_per_ns: float
    latency_ns: float


class Hop(NamedTuple):
    """A link of a walk and the virtual channel, numbered from 0, in whose buffer the transfer waits for it."""

    link: DirectedLink
    virtual_channel: int


class Walk(NamedTuple):
    """The links between two ends in order, and the memory port (not a link) where one end is DRAM."""

    hops: tuple[Hop, ...]
    port: str | None = None


@dataclass(frozen=True)
class Topology:
    """All links and memory ports of a network, and the walk between two ends: cores by index, DRAM as DRAM_NODE.

    `walk` raises MachineError where no links lead from one end to the other. A network that is one switch delays a
    transfer once and counts as one hop, however many links are crossed.
    """

    links: Mapping[str, DirectedLink]
    walk: Callable[[int, int], Walk]
    ports: Mapping[str, float]  # bytes a nanosecond, both directions together
    is_one_switch: bool = False

    def latency_ns(self, walk: Walk) -> float:
        """The sum over the walk's links."""
        return walk.hops[0].link.latency_ns if self.is_one_switch else sum([hop.link.latency_ns for hop in walk.hops])

    def hop_count(self, walk: Walk) -> int:
        """Links crossed, by which energy counts."""
        return 1 if self.is_one_switch else len(walk.hops)


def bytes_per_ns(network: Network, bytes_per_cycle: float) -> float:
    """The rate of a link at the network's clock."""
    return bytes_per_cycle * network.clock_mhz / 1000


def bus_topology(network: Bus) -> Topology:
    """One link that every transfer crosses."""
    bus = DirectedLink("bus", "bus", "bus", bytes_per_ns(network, network.bytes_per_cycle), network.hop_latency_ns)
    walk = Walk((Hop(bus, 0),))
    return Topology({"bus": bus}, lambda source, destination: walk, {}, is_one_switch=True)


def crossbar_topology(network: Crossbar, core_names: Sequence[str]) -> Topology:
    """A link out of every core to the switch and one from it; DRAM is at the switch."""
    rate = bytes_per_ns(network, network.link_bytes_per_cycle)
    outward = [DirectedLink(f"{name}.out", name, "switch", rate, network.hop_latency_ns) for name in core_names]
    inward = [DirectedLink(f"{name}.in", "switch", name, rate, network.hop_latency_ns) for name in core_names]

    def walk(source: int, destination: int) -> Walk:
        first = () if source == DRAM_NODE else (Hop(outward[source], 0),)
        return Walk(first if destination == DRAM_NODE else (*first, Hop(inward[destination], 0)))

    links = {link.name: link for pair in zip(outward, inward) for link in pair}
    return Topology(links, walk, {}, is_one_switch=True)
