"""Multicasts: each instruction means a LOAD or a SEND; on the clock a group is one transfer over a tree."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from npu_backend.errors import EmulatorError, ProgramError
from npu_backend.isa import Engine, Instruction
from npu_backend.machine import Mesh
from npu_backend.network import machine_records
from npu_backend.program import Program
from npu_backend.report.instructions import instructions_of
from npu_backend.report.waiting import waits_ns
from npu_backend.runtime import Emulator
from tests.emulator.assembler import LOAD, NETWORK, STORE, Assembly
from tests.emulator.replay import (
    CORE,
    assemble,
    fill,
    load,
    load_multicast,
    machine,
    replay,
    send,
    send_multicast,
    signal,
    wait,
)
from tests.emulator.replay import instruction as made

MESH = Mesh(topology="mesh", cores_reach_each_other=True, multicast=True, clock_mhz=1000, hop_latency_ns=2, rows=1,
            columns=4, link_bytes_per_cycle=8, memory_nodes=(0,), memory_port_gb_per_s=16)  # fmt: skip
ON_MESH = machine(4, MESH)  # core i at node i of a row; DRAM behind node 0
SETUP, DRAM, HOP = 10, 100, 2
PICTURE = np.arange(64, dtype=np.uint8)


def moved(on: object, streams: dict[tuple[int, Engine], list[Instruction]]) -> dict[str, float]:
    """Bytes by the name of the resource, of those that moved any."""
    timing, _ = replay(on, streams)  # type: ignore[arg-type]
    names = [row["name"] for row in machine_records(on).resources]  # type: ignore[arg-type]
    return {name: size for name, size in zip(names, timing.resource_bytes.tolist(), strict=True) if size}


def both_ways() -> bytes:
    """Both cores load x; core 0 sends its part on; each stores what it got."""
    assembly = Assembly(cores=3).input("x", 0, (64,)).output("y", 64, (4, 64))
    assembly.load_multicast(0, 0, 0, 0, 64).load_multicast(1, 0, 0, 256, 64)
    assembly.sync(0, (0, LOAD), (0, NETWORK)).sync(1, (1, LOAD), (1, STORE)).sync(4, (0, LOAD), (0, STORE))
    assembly.send_multicast(0, 1, 1, 0, 512, 64).send_multicast(0, 1, 2, 0, 1024, 64)
    assembly.sync(2, (0, NETWORK), (1, STORE)).sync(3, (0, NETWORK), (2, STORE))
    assembly.store(0, 64, 0, 64).store(1, 128, 256, 64).store(1, 192, 512, 64)
    return assembly.store(2, 256, 1024, 64).build()


@pytest.mark.parametrize("check", [False, True])
def test_each_instruction_means_a_transfer_of_its_own(check: bool) -> None:
    with Emulator(both_ways()) as emulator:
        assert (emulator.run({"x": PICTURE}, check=check)["y"] == PICTURE).all()
        assert emulator.time().cores[0].dram_read_bytes == 64


def test_a_race_with_a_multicast_is_found() -> None:
    assembly = Assembly().input("x", 0, (64,)).load_multicast(0, 0, 0, 0, 64).fill(0, 32, 8)
    with Emulator(assembly.build()) as emulator, pytest.raises(EmulatorError, match="LOAD_MULTICAST"):
        emulator.run({"x": PICTURE}, check=True)


def test_a_load_crosses_each_link_of_its_tree_once() -> None:
    streams = {(core, Engine.LOAD): [load_multicast(0, 640)] for core in range(4)}
    timing, spans = replay(ON_MESH, streams)
    assert {tuple(map(tuple, span)) for span in spans.values()} == {((0, SETUP + 3 * HOP + DRAM + 640 / 8),)}
    crossed = moved(ON_MESH, streams)
    assert set(crossed.values()) == {640}
    assert [name for name in crossed if name.startswith("node")] == ["node0-node1", "node1-node2", "node2-node3"]
    assert [row.dram_bytes for row in timing.cores] == [640, 0, 0, 0]


def test_loads_of_their_own_share_the_links() -> None:
    """What the tree saves: four loads cross the first link three times."""
    streams = {(core, Engine.LOAD): [load(640)] for core in range(4)}
    assert moved(ON_MESH, streams)["node0-node1"] == 3 * 640
    assert replay(ON_MESH, streams)[0].total_ns == SETUP + HOP + DRAM + 3 * 640 / 8


def test_a_send_chain_is_one_flow_with_one_set_up() -> None:
    streams = {(0, Engine.NETWORK): [*send_multicast(0, 640, 1, 2, 3), send(8, core=1, spm=4096)]}
    timing, spans = replay(ON_MESH, streams)
    end = SETUP + 3 * HOP + 640 / 8
    assert spans[0, Engine.NETWORK].tolist() == [[0, end]] * 3 + [[end, end + SETUP + HOP + 1]]
    crossed = moved(ON_MESH, streams)
    assert (crossed["node0-node1"], crossed["node1-node2"], crossed["node2-node3"]) == (648, 640, 640)
    assert (crossed["core0.send"], crossed["core3.receive"]) == (648, 640)
    assert timing.cores[0].network_bytes == 648


def test_the_slowest_member_sets_the_start() -> None:
    """Core 2 comes to the load after 13 ns of filling and a signal of 5; core 0 loads something of its own first."""
    first = SETUP + DRAM + 64 / 10
    timing, spans = replay(ON_MESH, {
        (0, Engine.LOAD): [load_multicast(0, 640), load(64, dram=4096, spm=4096)],
        (1, Engine.LOAD): [load(64, dram=4096, spm=4096), load_multicast(0, 640)],
        (2, Engine.LOAD): [wait(0), load_multicast(0, 640)],
        (2, Engine.VECTOR): [fill(320, output=8192), signal(0)],
    })  # fmt: skip
    start = SETUP + HOP + DRAM + 64 / 8
    end = start + SETUP + 2 * HOP + DRAM + 640 / 8
    assert spans[1, Engine.LOAD].tolist() == [[0, start], [start, end]]
    assert spans[0, Engine.LOAD].tolist() == [[start, end], [end, pytest.approx(end + first)]]
    assert spans[2, Engine.LOAD].tolist() == [[0, 18], [start, end]]
    core = timing.cores[0]
    assert core.sync_ns == start  # it waits for another core, not for its own
    assert timing.cores[2].sync_ns == start - 18


def test_a_report_counts_what_the_clock_counts() -> None:
    streams = {
        (0, Engine.LOAD): [load_multicast(0, 640), load(64, dram=4096, spm=4096), load_multicast(1, 640)],
        (1, Engine.LOAD): [load(64, dram=4096, spm=4096), load_multicast(0, 640)],
        (3, Engine.LOAD): [load_multicast(1, 640)],
        (0, Engine.NETWORK): send_multicast(2, 32, 1, 2, 3),
    }  # fmt: skip
    timing, spans = replay(ON_MESH, streams)
    program = Program.from_bytes(assemble(machine_records(ON_MESH), streams))
    columns = instructions_of(replace(program, metadata={"origin_layers": [0]}))
    assert columns.dram_bytes.sum() == sum(row.dram_bytes for row in timing.cores) == 2 * 640 + 2 * 64
    assert columns.moved_bytes.sum() - columns.dram_bytes.sum() == timing.cores[0].network_bytes == 32
    waits = waits_ns(columns, np.concatenate([spans[place] for place in sorted(spans)]), 1, 4)
    assert waits[0].tolist() == pytest.approx([row.sync_ns for row in timing.cores])
    assert waits[0, 3] > 0


@pytest.mark.parametrize("on", [ON_MESH, machine(4)], ids=["mesh", "crossbar"])
@pytest.mark.parametrize(("plain", "alone"), [
    ((2, Engine.LOAD, load(700, counts=(1, 1, 1, 3), dram_strides=(0, 0, 0, 1000), spm_strides=(0, 0, 0, 700))),
     load_multicast(0, 700, counts=(1, 1, 1, 3), dram_strides=(0, 0, 0, 1000), spm_strides=(0, 0, 0, 700))),
    ((3, Engine.NETWORK, send(700, core=1)), send_multicast(0, 700, 1)[0]),
])  # fmt: skip
def test_a_group_of_one_is_a_plain_transfer(on: object, plain: tuple[int, Engine, Instruction],
                                            alone: Instruction) -> None:  # fmt: skip
    core, engine, instruction = plain
    expected, times = replay(on, {(core, engine): [instruction]})  # type: ignore[arg-type]
    got, same = replay(on, {(core, engine): [alone]})  # type: ignore[arg-type]
    assert got.total_ns == expected.total_ns
    assert got.cores == expected.cores
    assert (got.resource_bytes == expected.resource_bytes).all()
    assert (same[core, engine] == times[core, engine]).all()


def test_energy_counts_links_and_dram_once() -> None:
    timing, _ = replay(ON_MESH, {
        **{(core, Engine.LOAD): [load_multicast(0, 100)] for core in range(4)},
        (0, Engine.NETWORK): send_multicast(1, 50, 1, 3, spm=512),
    })  # fmt: skip
    loads = 128 * 7 + 3 * 128 * 5  # DRAM's bursts once, over three links; each core writes 100
    sends = 50 * 3 + 3 * 50 * 5 + 2 * 50 * 3  # read once, three links, written twice
    assert timing.cores[0].energy_pj == pytest.approx(loads + 100 * 3 + sends)
    assert [row.energy_pj for row in timing.cores[1:]] == [300] * 3


def test_shared_hops_of_a_crossbar() -> None:
    """A hop there is two links, out and in: who joins a multicast adds the half of it."""
    timing, _ = replay(machine(3), {(0, Engine.NETWORK): send_multicast(0, 100, 1, 2)})
    assert timing.cores[0].energy_pj == pytest.approx(100 * 3 + 1.5 * 100 * 5 + 2 * 100 * 3)


def test_a_tree_shares_links_max_min() -> None:
    """The tree over three links and a send over the last of them: 4 bytes/ns each."""
    _, spans = replay(ON_MESH, {(0, Engine.NETWORK): send_multicast(0, 400, 1, 3),
                                (2, Engine.NETWORK): [send(400, core=3, destination_spm=4096)]})  # fmt: skip
    # The send starts 4 ns earlier with the link to itself: 32 bytes; from 16 on both have 4 bytes/ns.
    ended = 16 + (400 - 32) / 4
    assert spans[2, Engine.NETWORK].tolist() == [[0, pytest.approx(ended)]]
    assert spans[0, Engine.NETWORK][0, 1] == pytest.approx(ended + (400 - (ended - 16) * 4) / 8)


def test_members_that_wait_for_one_another() -> None:
    streams = {(0, Engine.LOAD): [load_multicast(0, 64), load_multicast(1, 64, dram=64, spm=64)],
               (1, Engine.LOAD): [load_multicast(1, 64, dram=64, spm=64), load_multicast(0, 64)],
               (2, Engine.LOAD): [load_multicast(1, 64, dram=64, spm=64)]}  # fmt: skip
    with pytest.raises(EmulatorError) as caught:
        replay(ON_MESH, streams)
    text = str(caught.value)
    assert "deadlock: 3 of 3 streams wait" in text
    for core, group, other in ((0, 0, 1), (1, 1, 0), (2, 1, 0)):
        own, its = f"core {core} load 0x0 LOAD_MULTICAST", f"core {other} load 0x50 LOAD_MULTICAST"
        assert re.search(rf"{own} .* of multicast group {group} waits for {its} \(node node\)", text)


def two_sends(**change: object) -> Assembly:
    first = {"to": 1, "spm": 0, "destination_spm": 128, "run_bytes": 64}
    return Assembly(cores=3).send_multicast(0, 2, **first).send_multicast(  # type: ignore[arg-type]
        0, 2, **{**first, "to": 2, **change})  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize(("assembly", "message"), [
    (Assembly().load_multicast(0, 4, 0, 0, 64), "core 0 load 0x0 LOAD_MULTICAST (node start): group is 4, not in 0..3"),
    (Assembly(groups=0).load_multicast(0, 0, 0, 0, 64), "group is 0, not in 0..-1"),
    (Assembly().send_multicast(0, 2**32 - 1, 1, 0, 0, 64), "group is 4294967295, not in 0..3"),
    (Assembly().load_multicast(0, 1, 0, 0, 64).load_multicast(0, 1, 0, 64, 64),
     "core 0 load 0x50 LOAD_MULTICAST (node start): multicast group 1 is used twice by this core"),
    (Assembly().load_multicast(0, 1, 0, 0, 64).load_multicast(1, 1, 64, 0, 64),
     "core 1 load 0x0 LOAD_MULTICAST (node start): multicast group 1 loads other bytes of DRAM"),
    (Assembly().load_multicast(0, 1, 0, 0, 64).load_multicast(1, 1, 0, 0, 32), "group 1 loads other bytes of DRAM"),
    (Assembly().load_multicast(0, 1, 0, 0, 64).send_multicast(0, 1, 1, 0, 0, 64), "group 1 both loads and sends"),
    (two_sends(spm=32), "group 2 sends other bytes"),
    (two_sends(to=1), "group 2 sends to this core before"),
    (Assembly(cores=3).send_multicast(0, 2, 1, 0, 128, 64).signal(0, NETWORK, 0).send_multicast(0, 2, 2, 0, 128, 64),
     "core 0 network 0x60 SEND_MULTICAST (node start): multicast group 2 is split up in the stream"),
    (Assembly(cores=3).send_multicast(0, 2, 1, 0, 0, 64).send_multicast(2, 2, 1, 0, 128, 64),
     "group 2 is used by the network stream of another core"),
    (two_sends().send_multicast(0, 2, 1, 0, 0, 64).send_multicast(0, 2, 1, 0, 64, 64),
     "multicast group 2 has 4 transfers on 3 cores"),
])  # fmt: skip
def test_groups_that_are_no_transfer(assembly: Assembly, message: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(message)):
        Emulator(assembly.build())


def test_unequal_set_ups() -> None:
    """The engine that takes longest to set up holds the transfer up."""
    slow = replace(ON_MESH, cores=(*ON_MESH.cores[:3], replace(CORE, name="core3", dma_setup_cycles=50)))
    _, spans = replay(slow, {(core, Engine.LOAD): [load_multicast(0, 640)] for core in (1, 3)})
    assert spans[1, Engine.LOAD].tolist() == [[0, 50 + 3 * HOP + DRAM + 80]]
    assert made("LOAD_MULTICAST").values["group"] == 0
