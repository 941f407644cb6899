"""Whether a machine's routes work: every end reached, no deadlock, and multicasts that are trees."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from npu_backend.deadlock import dependency_cycle
from npu_backend.errors import MachineError
from npu_backend.machine_types import Machine
from npu_backend.network import REMEMBERED_MACHINES, Route, machine_routes
from npu_backend.network_types import LinkList
from npu_backend.program import DRAM_NODE
from npu_backend.topology import Walk

_GRID_CHANNELS = 2


@lru_cache(REMEMBERED_MACHINES)
def route_problems(machine: Machine) -> tuple[str, ...]:
    """What keeps the routes from working: ends that no links join, deadlock, and trees that are none."""
    try:
        routes = machine_routes(machine)
    except MachineError as error:
        return (str(error),)
    return (*_deadlocks(machine, routes), *(_broken_trees(machine, routes) if machine.network.multicast else ()))


def _deadlocks(machine: Machine, routes: tuple[Route, ...]) -> Iterator[str]:
    """A circle in which transfers could wait for each other, where there is one."""
    network = machine.network
    allowed = network.virtual_channels if isinstance(network, LinkList) else _GRID_CHANNELS
    beyond = [route for route in routes if any(hop.virtual_channel >= allowed for hop in route.links)]
    walks = [Walk(route.links) for route in routes]
    if beyond:
        # The first route that found no layer closes a circle in the last that is allowed.
        last = [walk for walk in walks if any(hop.virtual_channel == allowed - 1 for hop in walk.hops)]
        walks = [*last, *(Walk(tuple(hop._replace(virtual_channel=allowed - 1) for hop in beyond[0].links)),)]
    cycle = dependency_cycle(walks)
    if cycle:
        needed = max(hop.virtual_channel for route in routes for hop in route.links) + 1
        links = ", ".join(link for link, _ in (*cycle, cycle[0]))
        yield (f"network: transfers could wait for each other in a circle of links: {links}; set "
               f"network.virtual_channels = {needed} or remove one of these links")  # fmt: skip


def _broken_trees(machine: Machine, routes: tuple[Route, ...]) -> Iterator[str]:
    """A node that routes from one source reach by different links: their union is no tree, and no multicast."""
    reached: dict[tuple[int, str], str] = {}
    for route in routes:
        for hop in route.links:
            first = reached.setdefault((route.source, hop.link.destination), hop.link.name)
            if first != hop.link.name:
                source = "DRAM" if route.source == DRAM_NODE else machine.cores[route.source].name
                yield (f"network.multicast = true, but routes from {source} reach {hop.link.destination} over {first} "
                       f"and over {hop.link.name}: no tree; move memory_nodes or set multicast = false")  # fmt: skip
                return
