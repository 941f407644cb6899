"""What the types of a machine file cannot say: entries that contradict each other, and routes that do not work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from json import dumps

from npu_backend.grid import neighbours
from npu_backend.machine_types import Machine
from npu_backend.network_types import Grid, LinkList, Network
from npu_backend.route_checks import route_problems


def contradictions(machine: Machine, tables: Sequence[int]) -> list[str]:
    """Every problem of a machine, its core i from table `tables[i]` of the file; routes only if all else is right."""
    names = [core.name for core in machine.cores]
    problems = [*_core_problems(machine, tables), *_network_problems(machine.network, names)]
    if machine.dram.burst_bytes & (machine.dram.burst_bytes - 1):
        problems.append(f"dram.burst_bytes = {machine.dram.burst_bytes} is no power of two")
    return problems or list(route_problems(machine))


def _core_problems(machine: Machine, tables: Sequence[int]) -> Iterator[str]:
    names = [core.name for core in machine.cores]
    if not names:
        yield "cores is empty; a machine needs at least one"
    first: dict[str, int] = {}
    for table, core in zip(tables, machine.cores):
        if core.name in first:
            yield f'cores[{table}].name = "{core.name}" is also cores[{first[core.name]}]\'s; give each its own'
        first.setdefault(core.name, table)
        if core.spm_bytes % core.spm_banks:
            yield f"cores[{table}].spm_bytes = {core.spm_bytes} is no multiple of its {core.spm_banks} spm_banks"


def _network_problems(network: Network, names: Sequence[str]) -> Iterator[str]:
    if isinstance(network, Grid):
        yield from _node_problems(network, len(names))
        yield from _override_problems(network)
    elif isinstance(network, LinkList):
        yield from _link_problems(network, names)


def _node_problems(network: Grid, cores: int) -> Iterator[str]:
    nodes = network.node_count
    if nodes < cores:
        yield f"network: a {network.topology} of {nodes} nodes has no room for {cores} cores"
    if not network.memory_nodes:
        yield "network.memory_nodes is empty; name the nodes where DRAM is attached"
    if network.core_nodes and len(network.core_nodes) != cores:
        yield f"network.core_nodes has {len(network.core_nodes)} nodes for {cores} cores; name one for each, or none"
    for key, chosen in (("memory_nodes", network.memory_nodes), ("core_nodes", network.core_nodes)):
        if len(set(chosen)) != len(chosen):
            yield f"network.{key} = {list(chosen)} names a node twice"
        for node in chosen:
            if node >= nodes:
                yield f"network.{key} has node {node}; the {network.topology} has nodes 0..{nodes - 1}"


def _override_problems(network: Grid) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    for index, override in enumerate(network.overrides):
        where, (a, b) = f"network.overrides[{index}]", (override.source, override.destination)
        last = network.node_count - 1
        if a > last or b > last:
            yield f"{where} joins nodes {a} and {b}; the {network.topology} has nodes 0..{last}"
        elif b not in neighbours(network, a):
            near = ", ".join(map(str, sorted(set(neighbours(network, a)))))
            yield f"{where}: no link leads from node {a} to node {b}; from node {a} links lead to {near}"
        ways = {(a, b)} if override.one_way else {(a, b), (b, a)}
        if ways & seen:
            yield f"{where} gives the link between nodes {a} and {b} a second time"
        seen |= ways
        if override.bytes_per_cycle is None and override.latency_ns is None:
            yield f"{where} overrides nothing; give bytes_per_cycle or latency_ns"


def _link_problems(network: LinkList, names: Sequence[str]) -> Iterator[str]:
    if "dram" in names:
        yield 'a core may not be named "dram" in a network of links: that is the memory\'s node'
    seen: set[tuple[str, str]] = set()
    for index, link in enumerate(network.links):
        if link.source == link.destination:
            yield f"network.links[{index}] joins {dumps(link.source)} to itself"
        ways = {(link.source, link.destination)} | (set() if link.one_way else {(link.destination, link.source)})
        if ways & seen:
            yield f"network.links[{index}] joins {dumps(link.source)} and {dumps(link.destination)} a second time"
        seen |= ways
    linked = {node for way in seen for node in way}
    for node in (*names, "dram"):
        if node not in linked:
            yield f'network.links reach every core and "dram", but none ends at {dumps(node)}'
