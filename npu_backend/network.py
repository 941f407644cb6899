"""Routes of a machine's network: what a transfer crosses, and what it shares with others.

A route is a list of resources (links, ports, DRAM, a core's DMA) with capacities in bytes a nanosecond; the emulator
shares each of them max-min fairly among the transfers that cross it. All routes are fixed and free of cycles:
dimension order on a mesh, the shorter way round a ring, fewest links in a list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from npu_backend.errors import MachineError
from npu_backend.machine_types import Bus, Core, Crossbar, LinkList, Machine, Mesh, Network, Ring
from npu_backend.program import DRAM_NODE

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Route:
    """What one transfer crosses: resource names in order, and the network links among them."""

    source: int  # core, or DRAM_NODE
    destination: int
    resources: tuple[str, ...]
    hops: int


class MachineRecords(NamedTuple):
    """A machine in the form of a program file; what a program fills itself is 0: `dram_bytes`, `semaphore_count`,
    `multicast_group_count`.
    """

    machine: Record
    cores: tuple[Record, ...]
    resources: tuple[Record, ...]
    paths: tuple[Record, ...]
    path_steps: tuple[int, ...]


@dataclass(frozen=True)
class _Wires:
    """A topology: capacity of each of its links and ports, and the links between two ends."""

    capacities: Mapping[str, float]
    # Links from one end to another, cores by index and DRAM as DRAM_NODE; the memory port is among them, not counted.
    between: Callable[[int, int], tuple[str, ...]]
    hops: Callable[[int, int], int]
    ports: frozenset[str] = frozenset()  # those of the capacities that are memory ports, no links


def machine_records(machine: Machine) -> MachineRecords:
    """The machine, core, resource, path and path-step records of a program for all cores of `machine`.

    Raises MachineError when a core cannot reach DRAM.
    """
    routes = machine_routes(machine)
    used = {name for route in routes for name in route.resources}
    names = [name for name in _capacities(machine) if name in used]
    index = {name: position for position, name in enumerate(names)}
    steps: list[int] = []
    paths = []
    for route in routes:
        paths.append(_path_record(machine.network, route, len(steps)))
        steps += [index[name] for name in route.resources]
    capacities = _capacities(machine)
    links = _links(machine)
    resources = tuple({"bytes_per_ns": capacities[name], "name": name, "is_link": int(name in links)} for name in names)
    return MachineRecords(_machine_record(machine), tuple(map(core_record, machine.cores)), resources, tuple(paths),
                          tuple(steps))  # fmt: skip


def machine_routes(machine: Machine) -> tuple[Route, ...]:
    """Every core's routes from and to DRAM, then, where cores reach each other, every ordered pair of cores.

    Raises MachineError when a route that must exist does not.
    """
    wires, names = _wires(machine), [core.name for core in machine.cores]
    routes: list[Route] = []
    for core, name in enumerate(names):
        inward, outward = wires.between(DRAM_NODE, core), wires.between(core, DRAM_NODE)
        routes.append(Route(DRAM_NODE, core, ("dram", *inward, f"{name}.memory", f"{name}.load"),
                            wires.hops(DRAM_NODE, core)))  # fmt: skip
        routes.append(Route(core, DRAM_NODE, (f"{name}.store", f"{name}.memory", *outward, "dram"),
                            wires.hops(core, DRAM_NODE)))  # fmt: skip
    if not machine.network.cores_reach_each_other:
        return tuple(routes)
    pairs = ((a, b) for a in range(len(names)) for b in range(len(names)) if a != b)
    for a, b in pairs:
        resources = (f"{names[a]}.send", *wires.between(a, b), f"{names[b]}.receive")
        routes.append(Route(a, b, resources, wires.hops(a, b)))
    return tuple(routes)


def core_record(core: Core) -> Record:
    """The record of one core, for a program and for the cost model."""
    array = core.mac_array
    return {
        "clock_mhz": core.clock_mhz, "rate": core.type_rates, "spm_bytes": core.spm_bytes,
        "lanes_input_channels": array.input_channels, "lanes_output_channels": array.output_channels,
        "lanes_pixels": array.pixels, "depthwise_channels": array.depthwise_channels,
        "depthwise_pixels": array.depthwise_pixels, "vector_lanes": core.vector_lanes,
        "matrix_fill_cycles": core.matrix_fill_cycles, "vector_fill_cycles": core.vector_fill_cycles,
        "dma_setup_cycles": core.dma_setup_cycles, "folds_kernel_width": int(array.folds_kernel_width),
        "spm_banks": core.spm_banks, "array_fill_cycles": array.fill_cycles,
    }  # fmt: skip


def _machine_record(machine: Machine) -> Record:
    dram, synchronization, energy = machine.dram, machine.synchronization, machine.energy
    return {
        "dram_bytes": 0, "core_count": len(machine.cores), "semaphore_count": 0, "multicast_group_count": 0,
        "dram_latency_ns": dram.latency_ns,
        "signal_ns": synchronization.signal_ns, "cross_signal_ns": synchronization.cross_signal_ns,
        "burst_bytes": dram.burst_bytes, "mac_pj": energy.mac_pj, "vector_pj": energy.vector_pj,
        "spm_pj_per_byte": energy.spm_pj_per_byte, "network_pj_per_byte_hop": energy.network_pj_per_byte_hop,
        "dram_pj_per_byte": energy.dram_pj_per_byte, "static_mw": energy.static_mw,
    }  # fmt: skip


def _path_record(network: Network, route: Route, first_step: int) -> Record:
    return {
        "source": route.source, "destination": route.destination, "first_step": first_step,
        "step_count": len(route.resources), "latency_ns": route.hops * network.hop_latency_ns, "hops": route.hops,
    }  # fmt: skip


def _capacities(machine: Machine) -> dict[str, float]:
    """Bytes a nanosecond of every resource, in the order of the records."""
    capacities = {"dram": machine.dram.bandwidth_gb_per_s * machine.dram.efficiency}
    for core in machine.cores:
        capacities[f"{core.name}.memory"] = core.memory_gb_per_s
        for direction in ("load", "store", "send", "receive"):
            capacities[f"{core.name}.{direction}"] = core.dma_gb_per_s
    return {**capacities, **_wires(machine).capacities}


def _links(machine: Machine) -> frozenset[str]:
    """Names of the resources that are links of the network."""
    wires = _wires(machine)
    return frozenset(wires.capacities) - wires.ports


def _wires(machine: Machine) -> _Wires:
    network, names = machine.network, [core.name for core in machine.cores]
    if isinstance(network, Bus):
        capacity = _bytes_per_ns(network, network.bytes_per_cycle)
        return _Wires({"bus": capacity}, lambda source, destination: ("bus",), lambda source, destination: 1)
    if isinstance(network, Crossbar):
        return _crossbar(network, names)
    if isinstance(network, LinkList):
        return _link_list(network, names, machine.name)
    return _grid(network)


def _bytes_per_ns(network: Network, bytes_per_cycle: float) -> float:
    return bytes_per_cycle * network.clock_mhz / 1000


def _crossbar(network: Crossbar, names: Sequence[str]) -> _Wires:
    capacity = _bytes_per_ns(network, network.link_bytes_per_cycle)

    def between(source: int, destination: int) -> tuple[str, ...]:
        outward = () if source == DRAM_NODE else (f"{names[source]}.out",)
        return outward if destination == DRAM_NODE else (*outward, f"{names[destination]}.in")

    links = {f"{name}.{way}": capacity for name in names for way in ("out", "in")}
    return _Wires(links, between, lambda source, destination: 1)


def _grid(network: Ring | Mesh) -> _Wires:
    """Ring and mesh: core i at node i, DRAM behind the memory nodes, each with a port shared by both directions."""
    count = network.nodes if isinstance(network, Ring) else network.rows * network.columns
    capacity, memory = _bytes_per_ns(network, network.link_bytes_per_cycle), _nearest_memory(network, count)

    def nodes(source: int, destination: int) -> list[int]:
        first = memory[destination] if source == DRAM_NODE else source
        last = memory[source] if destination == DRAM_NODE else destination
        return [first, *_walk(network, first, last)]

    def between(source: int, destination: int) -> tuple[str, ...]:
        walk = nodes(source, destination)
        links = [f"node{a}-node{b}" for a, b in pairwise(walk)]
        before = [f"memory{walk[0]}"] if source == DRAM_NODE else []
        after = [f"memory{walk[-1]}"] if destination == DRAM_NODE else []
        return (*before, *links, *after)

    ports = {f"memory{node}": network.memory_port_gb_per_s for node in network.memory_nodes}
    links = {f"node{a}-node{b}": capacity for a in range(count) for b in _neighbours(network, a)}
    return _Wires({**ports, **links}, between, lambda source, destination: len(nodes(source, destination)) - 1,
                  frozenset(ports))  # fmt: skip


def _nearest_memory(network: Ring | Mesh, count: int) -> list[int]:
    """The memory node of every node: the nearest; of equally near ones that with the fewest nodes so far."""
    load = dict.fromkeys(network.memory_nodes, 0)
    chosen = []
    for node in range(count):
        nearest = min(network.memory_nodes, key=lambda m: (sum(1 for _ in _walk(network, node, m)), load[m], m))
        load[nearest] += 1
        chosen.append(nearest)
    return chosen


def _neighbours(network: Ring | Mesh, node: int) -> list[int]:
    if isinstance(network, Ring):
        return [(node + 1) % network.nodes, (node - 1) % network.nodes]
    row, column = divmod(node, network.columns)
    sides = ((row, column + 1), (row, column - 1), (row + 1, column), (row - 1, column))
    return [r * network.columns + c for r, c in sides if 0 <= r < network.rows and 0 <= c < network.columns]


def _walk(network: Ring | Mesh, source: int, destination: int) -> Iterator[int]:
    """Nodes after `source` up to `destination`."""
    while source != destination:
        source = _ring_step(network, source, destination) if isinstance(network, Ring) else (
            _mesh_step(network, source, destination))  # fmt: skip
        yield source


def _ring_step(network: Ring, node: int, destination: int) -> int:
    upwards = (destination - node) % network.nodes
    return (node + (1 if 2 * upwards <= network.nodes else -1)) % network.nodes


def _mesh_step(network: Mesh, node: int, destination: int) -> int:
    """Along the row first, then along the column: no cycle of links can wait on itself."""
    column, goal = node % network.columns, destination % network.columns
    if column != goal:
        return node + (1 if goal > column else -1)
    return node + (network.columns if destination > node else -network.columns)


def _link_list(network: LinkList, names: Sequence[str], machine_name: str) -> _Wires:
    capacities: dict[str, float] = {}
    ways: dict[str, list[str]] = {}
    for link in network.links:
        ends = [(link.source, link.destination)] + ([] if link.one_way else [(link.destination, link.source)])
        for a, b in ends:
            capacities[f"{a}-{b}"] = _bytes_per_ns(network, link.bytes_per_cycle)
            ways.setdefault(a, []).append(b)

    def nodes(source: int, destination: int) -> list[str]:
        ends = ["dram" if end == DRAM_NODE else names[end] for end in (source, destination)]
        walk = _fewest_links(ways, *ends)
        if walk is None:
            raise MachineError(f"machine {machine_name}: no links lead from {ends[0]} to {ends[1]}; add some to "
                               "network.links")  # fmt: skip
        return walk

    def between(source: int, destination: int) -> tuple[str, ...]:
        walk = nodes(source, destination)
        return tuple(f"{a}-{b}" for a, b in pairwise(walk))

    return _Wires(capacities, between, lambda source, destination: len(nodes(source, destination)) - 1)


def _fewest_links(ways: Mapping[str, Sequence[str]], source: str, destination: str) -> list[str] | None:
    """Nodes of the shortest walk, DRAM never in between; of equal ones the first in the file's order of links."""
    previous: dict[str, str] = {source: source}
    waiting = deque([source])
    while waiting and destination not in previous:
        node = waiting.popleft()
        for following in ways.get(node, ()) if node == source or node != "dram" else ():
            if following not in previous:
                previous[following] = node
                waiting.append(following)
    if destination not in previous:
        return None
    walk = [destination]
    while walk[-1] != source:
        walk.append(previous[walk[-1]])
    return walk[::-1]
