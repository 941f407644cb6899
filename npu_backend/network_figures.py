"""Figures by which networks are compared: the longest route, and the bandwidth between two halves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

from npu_backend.machine_types import Machine
from npu_backend.network import machine_routes, machine_topology
from npu_backend.network_types import Bus, Crossbar, Grid, Ring
from npu_backend.topology import DirectedLink


def shape(machine: Machine) -> str:
    """The topology with its size, such as "mesh of 4 x 4 nodes"."""
    network = machine.network
    if not isinstance(network, Grid):
        return network.topology
    rows, columns = network.shape
    size = f"{columns}" if isinstance(network, Ring) else f"{rows} x {columns}"
    return f"{network.topology} of {size} nodes{', one way' if isinstance(network, Ring) and network.one_way else ''}"


def diameter(machine: Machine) -> int:
    """Links on the longest route, between cores or to DRAM."""
    return max(route.hops for route in machine_routes(machine))


def bisection_gb_per_s(machine: Machine) -> float:
    """Bandwidth one way between two halves of the network, where it is divided most cheaply; DRAM takes no side.

    Grids are cut straight through the middle of rows or columns; in a list of links each half has as many cores (of
    more than 12, the first half against the second), and switches and links through them stand on neither side.
    """
    network, links = machine.network, list(machine_topology(machine).links.values())
    if isinstance(network, Bus):
        return links[0].bytes_per_ns
    if isinstance(network, Crossbar):
        return links[0].bytes_per_ns * max(1, len(machine.cores) // 2)
    return min(_between(links, half) for half in _halves(machine))


def _halves(machine: Machine) -> Iterator[set[str]]:
    network = machine.network
    if isinstance(network, Grid):
        rows, columns = network.shape
        if columns > 1:
            yield {f"node{node}" for node in range(rows * columns) if node % columns < columns // 2}
        if rows > 1:
            yield {f"node{node}" for node in range(rows // 2 * columns)}
        return
    names = [core.name for core in machine.cores]
    half = max(1, len(names) // 2)
    yield from map(set, combinations(names, half) if len(names) <= 12 else [names[:half]])


def _between(links: Iterable[DirectedLink], half: set[str]) -> float:
    """Bytes a nanosecond out of a half."""
    return sum(link.bytes_per_ns for link in links
               if link.source in half and link.destination not in half and link.destination != "dram")  # fmt: skip
