"""Grids and lists of links: overrides, places of cores, and routes that neither deadlock nor branch wrongly."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import replace
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npu_backend.grid import memory_of_nodes
from npu_backend.machine import Link, LinkList, LinkOverride, Machine, Mesh, Network, Ring, Torus, load_machine
from npu_backend.machine import machine_names as shipped
from npu_backend.machine_checks import contradictions
from npu_backend.network import Route, machine_records, machine_routes, machine_topology
from npu_backend.network_figures import bisection_gb_per_s, diameter
from npu_backend.program import DRAM_NODE
from npu_backend.route_checks import route_problems

BASE = load_machine("ring4")
COMMON: dict[str, Any] = {"cores_reach_each_other": True, "multicast": True, "clock_mhz": 1000, "hop_latency_ns": 5}
GRID: dict[str, Any] = {**COMMON, "link_bytes_per_cycle": 16, "memory_port_gb_per_s": 25, "memory_nodes": (0,)}
GRIDS: list[Network] = [
    Ring(topology="ring", nodes=7, **GRID),
    Ring(topology="ring", nodes=6, one_way=True, **{**GRID, "memory_nodes": (0, 2)}),
    Mesh(topology="mesh", rows=3, columns=5, **{**GRID, "memory_nodes": (0, 9)}),
    Torus(topology="torus", rows=3, columns=3, **GRID),
    Torus(topology="torus", rows=4, columns=5, **{**GRID, "memory_nodes": (0, 12)}),
]


def on(network: Network, cores: int) -> Machine:
    """Equal cores npu0, npu1, ... on a network."""
    one = BASE.cores[0]
    return replace(BASE, network=network, cores=tuple(replace(one, name=f"npu{index}") for index in range(cores)))


def problems(machine: Machine) -> list[str]:
    return contradictions(machine, range(len(machine.cores)))


def route(machine: Machine, source: int, destination: int) -> Route:
    return next(r for r in machine_routes(machine) if (r.source, r.destination) == (source, destination))


def names(row: Route) -> list[str]:
    return [hop.link.name for hop in row.links]


def channels(row: Route) -> list[int]:
    return [hop.virtual_channel for hop in row.links]


def assert_free_of_deadlock(routes: Iterable[Route]) -> None:
    """No channel waits for itself, whatever the transfers: the dependencies can be sorted."""
    waits_for: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for row in routes:
        held = [(hop.link.name, hop.virtual_channel) for hop in row.links]
        for first, second in pairwise(held):
            waits_for.setdefault(first, set()).add(second)
    TopologicalSorter(waits_for).prepare()


@pytest.mark.parametrize("name", shipped())
def test_shipped_machines_do_not_deadlock(name: str) -> None:
    assert_free_of_deadlock(machine_routes(load_machine(name)))


@pytest.mark.parametrize("network", GRIDS, ids=lambda network: f"{network.topology}{network.shape}")
def test_grids(network: Ring | Mesh | Torus) -> None:
    machine = on(network, network.node_count)
    assert problems(machine) == []
    routes = machine_routes(machine)
    assert_free_of_deadlock(routes)
    assert max(channel for row in routes for channel in channels(row)) == (0 if isinstance(network, Mesh) else 1)
    for row in routes:
        assert row.latency_ns == 5 * row.hops == 5 * len(row.links)
        for first, second in pairwise(row.links):
            assert first.link.destination == second.link.source


def test_one_channel_would_not_do_on_a_ring() -> None:
    routes = machine_routes(on(GRIDS[0], 7))
    flat = [replace(row, links=tuple(hop._replace(virtual_channel=0) for hop in row.links)) for row in routes]
    with pytest.raises(ValueError, match="cycle"):
        assert_free_of_deadlock(flat)


def test_torus_takes_the_shorter_way_of_each_dimension() -> None:
    torus = on(Torus(topology="torus", rows=4, columns=4, **GRID), 16)
    across = route(torus, 0, 15)
    assert names(across) == ["node0-node3", "node3-node15"]
    assert channels(across) == [1, 1]  # both are wrap links
    assert names(route(torus, 0, 10)) == ["node0-node1", "node1-node2", "node2-node6", "node6-node10"]  # ties go up
    assert channels(route(torus, 2, 0)) == [0, 1]
    distances = [abs(a - b) for a in range(4) for b in range(4)]
    mean = sum(min(d, 4 - d) for d in distances) / 16
    between = [row.hops for row in machine_routes(torus) if DRAM_NODE not in (row.source, row.destination)]
    assert sum(between) == 16 * 16 * 2 * mean
    assert diameter(torus) == 4


def test_a_ring_of_one_way_goes_round() -> None:
    machine = on(GRIDS[1], 6)
    assert names(route(machine, 1, 0)) == [f"node{a}-node{(a + 1) % 6}" for a in range(1, 6)]
    assert "memory2" in route(machine, DRAM_NODE, 5).resources  # three links on
    assert "memory0" in route(machine, 5, DRAM_NODE).resources  # one
    assert "node1-node0" not in {row["name"] for row in machine_records(machine).resources}


def test_overrides() -> None:
    override = LinkOverride(source=1, destination=2, bytes_per_cycle=64, latency_ns=3)
    one_way = LinkOverride(source=2, destination=3, latency_ns=30, one_way=True)
    machine = on(replace(GRIDS[0], overrides=(override, one_way)), 7)
    assert problems(machine) == []
    assert route(machine, 1, 3).latency_ns == 33
    assert route(machine, 3, 1).latency_ns == 8
    rates = {row["name"]: row["bytes_per_ns"] for row in machine_records(machine).resources}
    assert (rates["node1-node2"], rates["node2-node1"], rates["node2-node3"]) == (64, 64, 16)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([(1, 9)], r"overrides\[0\] joins nodes 1 and 9; the ring has nodes 0\.\.6"),
        ([(1, 2), (1, 3)], r"overrides\[1\]: no link leads from node 1 to node 3; from node 1 links lead to 0, 2"),
        ([(1, 2), (2, 1)], r"overrides\[1\] gives the link between nodes 2 and 1 a second time"),
    ],
)
def test_wrong_overrides(overrides: list[tuple[int, int]], message: str) -> None:
    rows = tuple(LinkOverride(source=a, destination=b, latency_ns=1) for a, b in overrides)
    (problem,) = problems(on(replace(GRIDS[0], overrides=rows), 7))
    assert re.search(message, problem)


def test_an_override_of_nothing() -> None:
    (problem,) = problems(on(replace(GRIDS[0], overrides=(LinkOverride(source=0, destination=1),)), 7))
    assert "overrides nothing; give bytes_per_cycle or latency_ns" in problem


def test_places_of_cores() -> None:
    machine = on(replace(GRIDS[2], core_nodes=(7, 2, 4)), 3)
    assert problems(machine) == []
    assert names(route(machine, 0, 1)) == ["node7-node2"]
    assert "has 3 nodes for 2 cores" in problems(on(machine.network, 2))[0]
    assert route(machine.take(2), 1, DRAM_NODE) == route(machine, 1, DRAM_NODE)


def test_first_cores_of_mesh64_are_squares_and_neighbours() -> None:
    machine = load_machine("mesh64")
    assert isinstance(machine.network, Mesh)
    places = [divmod(node, 8) for node in machine.network.core_nodes]
    for count in (4, 16, 64):
        rows, columns = ({place[axis] for place in places[:count]} for axis in (0, 1))
        assert len(rows) * len(columns) == count
        assert len(rows) == len(columns)
    assert all(route(machine, core, core + 1).hops == 1 for core in range(63))


def test_ports_of_mesh64_have_equal_shares() -> None:
    machine = load_machine("mesh64")
    ports = [name for row in machine_routes(machine) for name in row.resources if name.startswith("memory")]
    assert {ports.count(name) for name in ports} == {16}  # eight cores, in and out
    assert max(row.hops for row in machine_routes(machine) if row.source == DRAM_NODE) == 4


def test_records_of_64_cores_are_made_once() -> None:
    machine = load_machine("mesh64")
    machine_records(machine)
    start = time.perf_counter()
    assert machine_records(machine) is machine_records(load_machine("mesh64"))
    assert time.perf_counter() - start < 0.5


def linked(*links: Link, cores: int, virtual_channels: int = 1) -> Machine:
    return on(LinkList(topology="links", links=links, virtual_channels=virtual_channels, **COMMON), cores)


def circle(nodes: int) -> tuple[Link, ...]:
    """Cores in a circle of one way, and DRAM at each."""
    round_way = tuple(Link(f"npu{a}", f"npu{(a + 1) % nodes}", 8, one_way=True) for a in range(nodes))
    return (*round_way, *(Link(f"npu{a}", "dram", 8) for a in range(nodes)))


def test_a_circle_of_links_is_named_with_what_to_change() -> None:
    (problem,) = problems(linked(*circle(3), cores=3))
    assert "in a circle of links: " in problem
    named = problem.split("links: ")[1].split(";")[0].split(", ")
    assert named[0] == named[-1]
    assert {*named} == {"npu0-npu1", "npu1-npu2", "npu2-npu0"}
    assert all(a.split("-")[1] == b.split("-")[0] for a, b in pairwise(named))  # in the order of waiting
    assert problem.endswith("set network.virtual_channels = 2 or remove one of these links")
    assert problems(linked(*circle(3), cores=3, virtual_channels=2)) == []


def test_layers_of_the_first_cores_are_those_of_all() -> None:
    machine = linked(*circle(6), cores=6, virtual_channels=8)
    assert problems(machine) == []
    assert_free_of_deadlock(machine_routes(machine))
    of_all = {(row.source, row.destination): row for row in machine_routes(machine)}
    assert all(of_all[row.source, row.destination] == row for row in machine_routes(machine.take(4)))


def test_latency_of_a_link() -> None:
    machine = linked(Link("npu0", "npu1", 8, latency_ns=2.5), Link("npu1", "dram", 8), cores=2)
    assert route(machine, 0, DRAM_NODE).latency_ns == 7.5
    assert route(machine, 1, 0).latency_ns == 2.5


def test_dram_has_several_links_and_the_nearest_is_taken() -> None:
    machine = linked(Link("npu0", "npu1", 8), Link("npu1", "npu2", 8), Link("dram", "npu0", 8), Link("dram", "npu2", 8),
                     cores=3)  # fmt: skip
    assert names(route(machine, DRAM_NODE, 2)) == ["dram-npu2"]
    assert names(route(machine, DRAM_NODE, 1)) == ["dram-npu0", "npu0-npu1"]  # the first of two ways of equal length
    assert names(route(machine, 1, DRAM_NODE)) == ["npu1-npu0", "npu0-dram"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([Mesh, Torus]), st.integers(3, 5), st.integers(3, 5), st.sets(st.integers(0, 8), min_size=1))
def test_routes_from_any_memory_nodes_are_trees(kind: type[Mesh] | type[Torus], rows: int, columns: int,
                                                memory_nodes: set[int]) -> None:  # fmt: skip
    name = kind.__name__.lower()
    network = kind(topology=name, rows=rows, columns=columns, **{**GRID, "memory_nodes": (*memory_nodes,)})  # type: ignore[arg-type]
    assert problems(on(network, rows * columns)) == []


def test_equally_near_memory_nodes_share_the_load_where_that_is_a_tree() -> None:
    ring = Ring(topology="ring", nodes=4, **{**GRID, "memory_nodes": (0, 2)})
    assert memory_of_nodes(ring, inward=True) == [0, 2, 2, 0]
    mesh = Mesh(topology="mesh", rows=3, columns=3, **{**GRID, "memory_nodes": (0, 4, 1)})
    assert memory_of_nodes(mesh, inward=True) == [0, 1, 1, 0, 4, 4, 0, 4, 4]


def test_routes_that_are_no_tree_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As no topology here has them: from core 0 down the column to core 5, but along the row to core 1."""
    machine = load_machine("mesh16")
    down, right = route(machine, 0, 4).links[0], route(machine, 4, 5).links[0]
    routes = [replace(row, links=(down, right)) if (row.source, row.destination) == (0, 5) else row
              for row in machine_routes(machine)]  # fmt: skip
    monkeypatch.setattr("npu_backend.route_checks.machine_routes", lambda machine: routes)
    (problem,) = route_problems.__wrapped__(machine)
    assert "routes from npu0 reach node5 over node4-node5 and over node1-node5: no tree" in problem


NODES = ["npu0", "npu1", "npu2", "npu3", "dram", "switch0", "switch1", "switch2"]
PAIRS = st.sampled_from([(a, b) for a in NODES for b in NODES if a != b])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(PAIRS, st.booleans()), min_size=4, max_size=24), st.integers(1, 3))
def test_any_list_of_links_is_refused_or_free_of_deadlock(rows: list[tuple[tuple[str, str], bool]],
                                                          virtual_channels: int) -> None:  # fmt: skip
    links = tuple(Link(a, b, 8, one_way=one_way) for (a, b), one_way in rows)
    machine = linked(*links, cores=4, virtual_channels=virtual_channels)
    found = problems(machine)
    if found:
        assert all(text.startswith(("network", "machine ring4: no links lead from")) for text in found)
        return
    routes = machine_routes(machine)
    assert_free_of_deadlock(routes)
    assert max(channel for row in routes for channel in channels(row)) < virtual_channels


@pytest.mark.parametrize("name", sorted(set(shipped()) - {"ethos_u85_2048"}))
def test_figures_in_the_documentation(name: str) -> None:
    machine = load_machine(name)
    page = (Path(__file__).parents[2] / "docs" / "network.md").read_text()
    (line,) = [row.split("|")[3:-1] for row in page.splitlines() if row.startswith(f"| `{name}`")]
    ports = len(machine_topology(machine).ports)
    bisection = f"{bisection_gb_per_s(machine):.3g} GB/s" if machine.network.cores_reach_each_other else ""
    assert [cell.strip() for cell in line] == [str(ports or ""), str(diameter(machine)), bisection]


@pytest.mark.parametrize(
    ("name", "links_on_longest", "gb_per_s"),
    [("mesh16", 6, 64), ("mesh64", 14, 256), ("torus16", 4, 128), ("ring4", 2, 32), ("biglittle", 1, 76.544),
     ("exynos2200", 1, 38.272)],
)  # fmt: skip
def test_figures(name: str, links_on_longest: int, gb_per_s: float) -> None:
    machine = load_machine(name)
    assert diameter(machine) == links_on_longest
    assert bisection_gb_per_s(machine) == pytest.approx(gb_per_s)
