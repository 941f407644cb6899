"""Routes of a machine's network, and the records of a program file that describe them.

A route is a list of resources (links, ports, DRAM, a core's DMA) with capacities in bytes a nanosecond; the emulator
shares each of them max-min fairly among the transfers that cross it. All routes are fixed by their ends (`topology`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from npu_backend.deadlock import layered
from npu_backend.errors import MachineError
from npu_backend.grid import grid_topology
from npu_backend.link_list import list_topology
from npu_backend.machine_types import Core, Machine
from npu_backend.network_types import Bus, Crossbar, LinkList
from npu_backend.program import DRAM_NODE
from npu_backend.topology import Hop, Topology, Walk, bus_topology, crossbar_topology

Record = Mapping[str, Any]
REMEMBERED_MACHINES = 32


@dataclass(frozen=True)
class Route:
    """What one transfer crosses: resource names in order, and the network links among them."""

    source: int  # core, or DRAM_NODE
    destination: int
    resources: tuple[str, ...]
    hops: int  # links that energy counts
    latency_ns: float  # of the links
    links: tuple[Hop, ...]


class MachineRecords(NamedTuple):
    """A machine in the form of a program file; what a program fills itself is 0: `dram_bytes`, `semaphore_count`,
    `multicast_group_count`.
    """

    machine: Record
    cores: tuple[Record, ...]
    resources: tuple[Record, ...]
    paths: tuple[Record, ...]
    path_steps: tuple[int, ...]


@lru_cache(REMEMBERED_MACHINES)
def machine_records(machine: Machine) -> MachineRecords:
    """The machine, core, resource, path and path-step records of a program for all cores of `machine`.

    Raises MachineError when a core cannot reach DRAM.
    """
    routes, links = machine_routes(machine), machine_topology(machine).links
    used = {name for route in routes for name in route.resources}
    capacities = {name: rate for name, rate in _capacities(machine).items() if name in used}
    index = {name: position for position, name in enumerate(capacities)}
    steps: list[int] = []
    paths = []
    for route in routes:
        paths.append(_path_record(route, len(steps)))
        steps += [index[name] for name in route.resources]
    resources = tuple({"bytes_per_ns": rate, "name": name, "is_link": int(name in links)}
                      for name, rate in capacities.items())  # fmt: skip
    return MachineRecords(_machine_record(machine), tuple(map(core_record, machine.cores)), resources, tuple(paths),
                          tuple(steps))  # fmt: skip


@lru_cache(REMEMBERED_MACHINES)
def machine_routes(machine: Machine) -> tuple[Route, ...]:
    """Every core's routes from and to DRAM, then, where cores reach each other, every ordered pair of cores.

    Raises MachineError when a route that must exist does not.
    """
    topology, names = machine_topology(machine), [core.name for core in machine.cores]
    return tuple(
        Route(source, destination, _resources(names, source, destination, walk), topology.hop_count(walk),
              topology.latency_ns(walk), walk.hops)
        for (source, destination), walk in _walks(machine, topology).items()
    )  # fmt: skip


@lru_cache(REMEMBERED_MACHINES)
def machine_topology(machine: Machine) -> Topology:
    """The links of a machine's network and the walks over them."""
    network, names = machine.network, [core.name for core in machine.cores]
    if isinstance(network, Bus):
        return bus_topology(network)
    if isinstance(network, Crossbar):
        return crossbar_topology(network, names)
    return list_topology(network, names) if isinstance(network, LinkList) else grid_topology(network)


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


def _walks(machine: Machine, topology: Topology) -> dict[tuple[int, int], Walk]:
    cores = range(len(machine.cores))
    ends = [pair for core in cores for pair in ((DRAM_NODE, core), (core, DRAM_NODE))]
    if machine.network.cores_reach_each_other:
        ends += [(a, b) for a in cores for b in cores if a != b]
    try:
        walks = {pair: topology.walk(*pair) for pair in ends}
    except MachineError as error:
        raise MachineError(f"machine {machine.name}: {error}") from error
    return layered(walks, len(machine.cores)) if isinstance(machine.network, LinkList) else walks


def _resources(names: list[str], source: int, destination: int, walk: Walk) -> tuple[str, ...]:
    """From one scratchpad or DRAM to the other: DMA, the core's memory port, links and the memory's port."""
    links, port = [hop.link.name for hop in walk.hops], [] if walk.port is None else [walk.port]
    if source == DRAM_NODE:
        name = names[destination]
        return ("dram", *port, *links, f"{name}.memory", f"{name}.load")
    name = names[source]
    if destination == DRAM_NODE:
        return (f"{name}.store", f"{name}.memory", *links, *port, "dram")
    return (f"{name}.send", *links, f"{names[destination]}.receive")


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


def _path_record(route: Route, first_step: int) -> Record:
    return {
        "source": route.source, "destination": route.destination, "first_step": first_step,
        "step_count": len(route.resources), "latency_ns": route.latency_ns, "hops": route.hops,
    }  # fmt: skip


def _capacities(machine: Machine) -> dict[str, float]:
    """Bytes a nanosecond of every resource, in the order of the records."""
    topology = machine_topology(machine)
    capacities = {"dram": machine.dram.bandwidth_gb_per_s * machine.dram.efficiency}
    for core in machine.cores:
        capacities[f"{core.name}.memory"] = core.memory_gb_per_s
        for direction in ("load", "store", "send", "receive"):
            capacities[f"{core.name}.{direction}"] = core.dma_gb_per_s
    return {**capacities, **topology.ports, **{link.name: link.bytes_per_ns for link in topology.links.values()}}
