"""Routes and resources of every topology, by hand for the small ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from npu_backend.errors import MachineError
from npu_backend.machine import Bus, Link, LinkList, Machine, Ring, load_machine, machine_names
from npu_backend.network import MachineRecords, Route, machine_records, machine_routes
from npu_backend.program import DRAM_NODE, RECORD_STRUCTS, pack

BASE = load_machine("ring4")


def route(machine: Machine, source: int, destination: int) -> Route:
    return next(r for r in machine_routes(machine) if (r.source, r.destination) == (source, destination))


@pytest.mark.parametrize("name", machine_names())
def test_all_paths_exist(name: str) -> None:
    machine = load_machine(name)
    records = machine_records(machine)
    cores = range(len(machine.cores))
    ends = [(row["source"], row["destination"]) for row in records.paths]
    expected = {(DRAM_NODE, core) for core in cores} | {(core, DRAM_NODE) for core in cores}
    if machine.network.cores_reach_each_other:
        expected |= {(a, b) for a in cores for b in cores if a != b}
    assert len(ends) == len(set(ends))
    assert set(ends) == expected


@pytest.mark.parametrize("name", machine_names())
def test_records_are_whole(name: str) -> None:
    records = machine_records(load_machine(name))
    assert len(pack("machine", records.machine)) == RECORD_STRUCTS["machine"].size
    for core in records.cores:
        assert len(pack("core", core)) == RECORD_STRUCTS["core"].size
    used = set()
    for row in records.paths:
        steps = records.path_steps[row["first_step"] : row["first_step"] + row["step_count"]]
        assert len(set(steps)) == row["step_count"] > 0
        used |= set(steps)
    assert used == set(range(len(records.resources)))
    assert all(row["bytes_per_ns"] > 0 for row in records.resources)


@pytest.mark.parametrize("name", machine_names())
def test_records_are_the_same_every_time(name: str) -> None:
    assert machine_records(load_machine(name)) == machine_records(load_machine(name))


def test_capacities() -> None:
    records = machine_records(load_machine("exynos2100"))
    capacity = {row["name"]: row["bytes_per_ns"] for row in records.resources}
    assert capacity["dram"] == pytest.approx(50.8 * 0.75)
    assert capacity["npu1.memory"] == 14.0
    assert capacity["npu1.load"] == pytest.approx(32 * 1.196)
    assert capacity["npu1.in"] == pytest.approx(32 * 1.196)
    assert "npu1.send" not in capacity  # no path uses it


def test_crossbar() -> None:
    machine = load_machine("biglittle")
    assert route(machine, DRAM_NODE, 1).resources == ("dram", "little.in", "little.memory", "little.load")
    assert route(machine, 0, DRAM_NODE).resources == ("big.store", "big.memory", "big.out", "dram")
    across = route(machine, 0, 1)
    assert across.resources == ("big.send", "big.out", "little.in", "little.receive")
    assert (across.hops, across.latency_ns) == (1, 20)


def test_bus() -> None:
    bus = Bus(topology="bus", cores_reach_each_other=True, multicast=False, clock_mhz=500, hop_latency_ns=3,
              bytes_per_cycle=16)  # fmt: skip
    machine = replace(BASE, network=bus)
    across = route(machine, 0, 3)
    assert across.resources == ("npu0.send", "bus", "npu3.receive")
    assert (across.hops, across.latency_ns) == (1, 3)
    assert route(machine, DRAM_NODE, 2).resources == ("dram", "bus", "npu2.memory", "npu2.load")
    resources = machine_records(machine).resources
    assert next(row["bytes_per_ns"] for row in resources if row["name"] == "bus") == 8


def test_ring_goes_the_shorter_way_and_upwards_when_both_are_equal() -> None:
    assert links(route(BASE, 0, 1)) == ["node0-node1"]
    assert links(route(BASE, 0, 3)) == ["node0-node3"]
    assert links(route(BASE, 0, 2)) == ["node0-node1", "node1-node2"]
    assert links(route(BASE, 3, 1)) == ["node3-node0", "node0-node1"]


def test_ring_spreads_nodes_over_equally_near_memories() -> None:
    ports = [next(name for name in route(BASE, core, DRAM_NODE).resources if name.startswith("memory"))
             for core in range(4)]  # fmt: skip
    assert ports == ["memory0", "memory2", "memory2", "memory0"]


def test_mesh_goes_along_the_row_first() -> None:
    mesh = load_machine("mesh16")
    assert links(route(mesh, 1, 10)) == ["node1-node2", "node2-node6", "node6-node10"]
    assert links(route(mesh, 10, 1)) == ["node10-node9", "node9-node5", "node5-node1"]
    assert route(mesh, 5, DRAM_NODE).resources == (
        "npu5.store", "npu5.memory", "node5-node4", "node4-node0", "memory0", "dram",
    )  # fmt: skip
    at_port = route(mesh, DRAM_NODE, 15)
    assert at_port.resources == ("dram", "memory15", "npu15.memory", "npu15.load")
    assert (at_port.hops, at_port.latency_ns) == (0, 0)


def test_mesh_distances() -> None:
    for row in machine_routes(load_machine("mesh16")):
        if DRAM_NODE not in (row.source, row.destination):
            rows, columns = (abs(a - b) for a, b in zip(divmod(row.source, 4), divmod(row.destination, 4), strict=True))
            assert row.hops == rows + columns


@pytest.mark.parametrize("name", ["mesh16", "ring4"])
def test_latency_follows_hops(name: str) -> None:
    for row in machine_records(load_machine(name)).paths:
        assert row["latency_ns"] == row["hops"] * 5


def links(row: Route) -> list[str]:
    return [name for name in row.resources if name.startswith("node")]


def linked(*rows: Link) -> Machine:
    network = LinkList(topology="links", cores_reach_each_other=True, multicast=False, clock_mhz=1000,
                       hop_latency_ns=4, links=rows)  # fmt: skip
    return replace(BASE.take(3), network=network)


def test_link_list_takes_the_fewest_links_and_never_passes_through_dram() -> None:
    machine = linked(Link("npu0", "switch", 8), Link("npu1", "switch", 8), Link("npu2", "npu1", 4),
                     Link("switch", "dram", 16), Link("npu2", "dram", 4))  # fmt: skip
    assert route(machine, 0, 2).resources == ("npu0.send", "npu0-switch", "switch-npu1", "npu1-npu2", "npu2.receive")
    assert route(machine, 0, 2).hops == 3
    assert route(machine, DRAM_NODE, 0).resources == ("dram", "dram-switch", "switch-npu0", "npu0.memory", "npu0.load")
    assert path(machine_records(machine), 0, 2)["latency_ns"] == 12


def path(records: MachineRecords, source: int, destination: int) -> dict[str, float]:
    return next(dict(row) for row in records.paths if (row["source"], row["destination"]) == (source, destination))


def test_one_way_links_have_no_way_back() -> None:
    machine = linked(Link("npu0", "dram", 8), Link("npu1", "dram", 8), Link("npu2", "dram", 8, one_way=True))
    with pytest.raises(MachineError, match=r"ring4: no links lead from dram to npu2; add some"):
        machine_routes(replace(machine, network=replace(machine.network, cores_reach_each_other=False)))


def test_taking_cores_keeps_the_ring() -> None:
    two = BASE.take(2)
    assert isinstance(two.network, Ring)
    assert two.network.nodes == 4
    assert {(r.source, r.destination) for r in machine_routes(two)} == {
        (DRAM_NODE, 0), (0, DRAM_NODE), (DRAM_NODE, 1), (1, DRAM_NODE), (0, 1), (1, 0),
    }  # fmt: skip
