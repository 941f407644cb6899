"""Rings, meshes and tori: one pattern of rows and columns whose dimensions may be closed to rings.

A transfer goes along its row first and then along the column (dimension order), in a ring of each the shorter way,
upwards where both are equal. Where a dimension is closed, its wrap link and what follows are crossed on virtual
channel 1, everything before on channel 0: the dateline of Dally and Seitz (IEEE Transactions on Computers, 1987), so
that no channel of a ring ever waits for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from npu_backend.network_types import Grid, Mesh, Ring
from npu_backend.program import DRAM_NODE
from npu_backend.topology import DirectedLink, Hop, Topology, Walk, bytes_per_ns


class Step(NamedTuple):
    """From a node to its neighbour, on a virtual channel."""

    source: int
    destination: int
    virtual_channel: int


def grid_topology(network: Grid) -> Topology:
    """Links named by their nodes (`node0-node1`), memory ports by theirs (`memory0`)."""
    links = grid_links(network)
    places = network.core_nodes or range(network.node_count)
    from_memory, to_memory = memory_of_nodes(network, inward=True), memory_of_nodes(network, inward=False)

    @cache  # a leg is part of many walks
    def leg(first: int, last: int) -> tuple[Hop, ...]:
        return tuple(Hop(links[step.source, step.destination], step.virtual_channel)
                     for step in straight_steps(network, first, last))  # fmt: skip

    def walk(source: int, destination: int) -> Walk:
        first = from_memory[places[destination]] if source == DRAM_NODE else places[source]
        last = to_memory[places[source]] if destination == DRAM_NODE else places[destination]
        memory = first if source == DRAM_NODE else last if destination == DRAM_NODE else None
        corner = _corner(network, first, last)
        return Walk(leg(first, corner) + leg(corner, last), None if memory is None else f"memory{memory}")

    ports = {f"memory{node}": network.memory_port_gb_per_s for node in network.memory_nodes}
    return Topology({link.name: link for link in links.values()}, walk, ports)


def grid_links(network: Grid) -> dict[tuple[int, int], DirectedLink]:
    """Every link by the nodes it joins, with the file's overrides."""
    widths = {(a, b): network.link_bytes_per_cycle for a in range(network.node_count) for b in neighbours(network, a)}
    latencies = dict.fromkeys(widths, network.hop_latency_ns)
    for override in network.overrides:
        there = override.source, override.destination
        for way in (there,) if override.one_way else (there, there[::-1]):
            if way in widths:  # in a ring of one way there is no way back
                widths[way] = widths[way] if override.bytes_per_cycle is None else override.bytes_per_cycle
                latencies[way] = latencies[way] if override.latency_ns is None else override.latency_ns
    return {(a, b): DirectedLink(f"node{a}-node{b}", f"node{a}", f"node{b}", bytes_per_ns(network, width),
                                 latencies[a, b]) for (a, b), width in widths.items()}  # fmt: skip


def neighbours(network: Grid, node: int) -> list[int]:
    """Nodes that a link leads to from `node`: along the row, then along the column, upwards first."""
    rows, columns = network.shape
    row, column = divmod(node, columns)
    along_row = [row * columns + other for other in _beside(network, column, columns)]
    return along_row + [other * columns + column for other in _beside(network, row, rows)]


def _beside(network: Grid, position: int, size: int) -> list[int]:
    if size == 1:
        return []
    ways = (1,) if isinstance(network, Ring) and network.one_way else (1, -1)
    if isinstance(network, Mesh):
        return [position + way for way in ways if 0 <= position + way < size]
    return [(position + way) % size for way in ways]


def memory_of_nodes(network: Grid, *, inward: bool) -> list[int]:
    """The memory node that serves every node: the nearest; of equally near ones that with the fewest nodes so far.

    `inward` for transfers from DRAM, else for those to it: in a ring of one way they differ. Where the routes from DRAM
    would then be no tree, the first of equally near ones serves all: a node before another on a shortest way has no
    near ones that the other has not, so both have the same.
    """
    balanced = _nearest(network, inward=inward, balance=True)
    return balanced if not inward or _is_tree(network, balanced) else _nearest(network, inward=True, balance=False)


def _nearest(network: Grid, *, inward: bool, balance: bool) -> list[int]:
    load = dict.fromkeys(network.memory_nodes, 0)
    chosen = []
    for node in range(network.node_count):
        ends = {memory: (memory, node) if inward else (node, memory) for memory in network.memory_nodes}
        nearest = min(ends, key=lambda memory: (distance(network, *ends[memory]), balance * load[memory], memory))
        load[nearest] += 1
        chosen.append(nearest)
    return chosen


def _is_tree(network: Grid, memories: list[int]) -> bool:
    """Whether every node is reached by one link, or at a memory node by none, on the walks from its memory."""
    before = {memory: memory for memory in network.memory_nodes}
    for node, memory in enumerate(memories):
        corner = _corner(network, memory, node)
        for step in (*straight_steps(network, memory, corner), *straight_steps(network, corner, node)):
            if before.setdefault(step.destination, step.source) != step.source:
                return False
    return True


def _corner(network: Grid, first: int, last: int) -> int:
    """Where dimension order turns: in the row of the first node, in the column of the last."""
    columns = network.shape[1]
    return first - first % columns + last % columns


def distance(network: Grid, source: int, destination: int) -> int:
    """Links from one node to another."""
    return sum(abs(offset) for offset in _offsets(network, source, destination))


def straight_steps(network: Grid, source: int, destination: int) -> Iterator[Step]:
    """The steps between two nodes of one row or of one column."""
    rows, columns = network.shape
    (row, column), (down, right) = divmod(source, columns), _offsets(network, source, destination)
    assert not (down and right)
    for a, b, channel in _line(column, right, columns):
        yield Step(row * columns + a, row * columns + b, channel)
    for a, b, channel in _line(row, down, rows):
        yield Step(a * columns + column, b * columns + column, channel)


def _offsets(network: Grid, source: int, destination: int) -> tuple[int, int]:
    """Signed steps along the column (rows down) and along the row (columns to the right)."""
    rows, columns = network.shape
    (row, column), (last_row, last_column) = divmod(source, columns), divmod(destination, columns)
    return _offset(network, last_row - row, rows), _offset(network, last_column - column, columns)


def _offset(network: Grid, difference: int, size: int) -> int:
    if isinstance(network, Mesh):
        return difference
    upwards = difference % size
    one_way = isinstance(network, Ring) and network.one_way
    return upwards if one_way or 2 * upwards <= size else upwards - size


def _line(position: int, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Steps along one dimension as position before, position after, and virtual channel."""
    way, channel = (1 if offset > 0 else -1), 0
    for _ in range(abs(offset)):
        following = (position + way) % size
        if following != position + way:
            channel = 1  # the dateline
        yield position, following, channel
        position = following
