"""Machine files: shipped ones load, wrong ones are refused with the key, its value and what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from npu_backend.errors import MachineError, OptionError
from npu_backend.isa import DataType
from npu_backend.machine import load_machine, machine_names, parse_machine

SHIPPED = Path(__file__).parents[2] / "npu_backend" / "machines"
EXYNOS = (SHIPPED / "exynos2100.toml").read_text()
RING = (SHIPPED / "ring4.toml").read_text()
MESH = (SHIPPED / "mesh16.toml").read_text()
LINKS = (SHIPPED / "exynos2200.toml").read_text()


@pytest.mark.parametrize("name", machine_names())
def test_shipped_machines_load(name: str) -> None:
    machine = load_machine(name)
    assert machine.name == name
    assert machine.take(len(machine.cores)) == machine


def test_the_expected_machines_are_shipped() -> None:
    assert machine_names() == ("biglittle", "ethos_u85_2048", "exynos2100", "exynos2200", "mesh16", "mesh64", "ring4",
                               "torus16")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "macs"),
    [("exynos2100", [2048] * 3), ("exynos2200", [4096] * 2), ("biglittle", [8192, 512]), ("ring4", [1024] * 4),
     ("mesh16", [1024] * 16), ("mesh64", [1024] * 64), ("torus16", [1024] * 16), ("ethos_u85_2048", [2048])],
)  # fmt: skip
def test_macs_a_cycle(name: str, macs: list[int]) -> None:
    assert [core.mac_array.macs_per_cycle for core in load_machine(name).cores] == macs


SOURCE = re.compile(
    r"assumption: |calibrated|the (same|unit)|\bas \w+16|\[[A-Z]|JEDEC|I?SCA|HPCA|LPDDR|Exynos|engines run"
)


@pytest.mark.parametrize("name", machine_names())
def test_every_number_has_a_source(name: str) -> None:
    """A comment on its line, or on that of its table, names a source, or says "assumption" and on what ground."""
    section = ""
    for line in (SHIPPED / f"{name}.toml").read_text().splitlines():
        section = line if line.startswith("[") else section
        if "=" in line and not line.startswith(("name", "description", "links", "overrides", "#")):
            comment = line.partition("#")[2] or section.partition("#")[2]
            assert SOURCE.search(comment), line
            assert not comment.strip().endswith("assumption") or SOURCE.search(comment.replace("assumption", "")), line


def test_types_are_derived() -> None:
    core = load_machine("exynos2100").cores[0]
    assert core.peak_macs_per_ns() == pytest.approx(2048 * 1.196)
    assert core.dma_gb_per_s == pytest.approx(32 * 1.196)
    mac_pj = load_machine("exynos2100").energy.mac_pj
    types = (DataType.UINT8, DataType.INT8, DataType.INT16, DataType.UINT16, DataType.FLOAT16, DataType.FLOAT32)
    assert [core.type_rates[kind] for kind in types] == [1, 1, 0.25, 0.25, 0, 0]
    assert [mac_pj[kind] for kind in types] == [0.08, 0.08, 0.32, 0.32, 0.32, 0]


def test_a_file_by_path(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(EXYNOS.replace('name = "exynos2100"', 'name = "own"'), encoding="utf-8")
    assert load_machine(path).name == "own"
    assert load_machine(str(path)).cores == load_machine("exynos2100").cores


def test_a_core_overrides_the_defaults() -> None:
    text = EXYNOS.replace('name = "npu1"', 'name = "npu1"\nspm_bytes = 2_097_152')
    assert [core.spm_bytes for core in parse_machine(text, "own.toml").cores] == [1 << 20, 1 << 21, 1 << 20]


def test_without_defaults_every_core_says_all() -> None:
    defaults, rest = EXYNOS.split("[[cores]]", 1)
    assert "cores[0].clock_mhz is missing" in refusal(defaults.split("[core_defaults]")[0] + "[[cores]]" + rest)


def refusal(text: str) -> str:
    with pytest.raises(MachineError) as caught:
        parse_machine(text, "own.toml")
    message = str(caught.value)
    assert "own.toml" in message
    return message


# Text replaced (its first occurrence), by what, and the parts of the message.
MISTAKES = [
    ("unknown key", EXYNOS, "clock_mhz", "clock_mh", ["core_defaults.clock_mh = 1196", "did you mean clock_mhz?",
                                                      "allowed: name", "cores[0].clock_mhz is missing"]),
    ("unknown table", EXYNOS, "[dram]", "[drum]", ["dram is missing", "drum = {", "did you mean dram?"]),
    ("unknown key in a table", EXYNOS, "hop_latency_ns", "hop_latency_us", ["network.hop_latency_us = 20",
                                                                           "did you mean hop_latency_ns?"]),
    ("key of another topology", EXYNOS, "hop_latency_ns", "rows = 3\nhop_latency_ns", ["network.rows = 3 is an"]),
    ("missing name", EXYNOS, 'name = "exynos2100"\n', "", ["name is missing"]),
    ("negative", EXYNOS, "clock_mhz = 1196", "clock_mhz = -5", ["core_defaults.clock_mhz = -5: must be greater"]),
    ("zero", EXYNOS, "spm_banks = 16", "spm_banks = 0", ["core_defaults.spm_banks = 0: must be greater than 0"]),
    ("negative latency", EXYNOS, "latency_ns = 20", "latency_ns = -1", ["network.hop_latency_ns = -1: must be gr"]),
    ("too large", EXYNOS, "efficiency = 0.75", "efficiency = 1.5", ["dram.efficiency = 1.5: must be less than"]),
    ("string for a number", EXYNOS, "clock_mhz = 1196", 'clock_mhz = "fast"', ['clock_mhz = "fast"', "number"]),
    ("number for a string", EXYNOS, 'name = "npu0"', "name = 7", ["cores[0].name = 7", "string"]),
    ("fraction for integer", EXYNOS, "vector_lanes = 256", "vector_lanes = 256.5", ["vector_lanes = 256.5", "integer"]),
    ("truth for a number", EXYNOS, "spm_banks = 16", "spm_banks = true", ["spm_banks = true", "integer"]),
    ("number for a truth", EXYNOS, "multicast = false", "multicast = 0", ["network.multicast = 0", "boolean"]),
    ("infinite", EXYNOS, "clock_mhz = 1196", "clock_mhz = inf", ["clock_mhz = Infinity", "finite"]),
    ("no number", EXYNOS, "clock_mhz = 1196", "clock_mhz = nan", ["clock_mhz = NaN", "finite"]),
    ("date", EXYNOS, "clock_mhz = 1196", "clock_mhz = 2021-02-17", ["clock_mhz", "number"]),
    ("unknown topology", EXYNOS, '"crossbar"', '"star"', ['topology = "star"',
                                                          "bus, crossbar, ring, mesh, torus, links"]),
    ("no topology", EXYNOS, 'topology = "crossbar"', "", ["network.topology", "must be one of bus"]),
    ("table for a value", EXYNOS, "clock_mhz = 1196", "clock_mhz = {}", ["core_defaults.clock_mhz = {}"]),
    ("value for a table", EXYNOS, "[core_defaults.rates]", "rates = 3\n[core_defaults.other]", ["rates = 3"]),
    ("list for a table", EXYNOS, "[network]", "[[network]]", ["network = ["]),
    ("more queues than engines have", EXYNOS, "dma_queues = 1", "dma_queues = 2", ["dma_queues = 2: must be 1"]),
    ("two cores of one name", EXYNOS, '"npu1"', '"npu0"', ['cores[1].name = "npu0" is also cores[0]\'s']),
    ("banks that do not divide", EXYNOS, "spm_banks = 16", "spm_banks = 3", ["spm_bytes = 1048576", "3 spm_banks"]),
    ("odd burst", EXYNOS, "burst_bytes = 64", "burst_bytes = 48", ["burst_bytes = 48", "power of two"]),
    ("no cores", EXYNOS.split("[core_defaults]")[0] + "cores = []\n[network]" + EXYNOS.split("[network]")[1], "", "",
     ["cores is empty"]),
    ("too few nodes", RING, "nodes = 4 ", "nodes = 3 ", ["a ring of 3 nodes has no room for 4 cores"]),
    ("unknown memory node", RING, "[0, 2]", "[0, 9]", ["memory_nodes has node 9; the ring has nodes 0..3"]),
    ("memory node twice", MESH, "[0, 3, 12, 15]", "[0, 0]", ["names a node twice"]),
    ("no memory node", MESH, "[0, 3, 12, 15]", "[]", ["memory_nodes is empty"]),
    ("negative memory node", MESH, "[0, 3, 12, 15]", "[-1]", ["memory_nodes[0] = -1"]),
    ("no core of a kind", RING, "count = 4 ", "count = 0 ", ["cores[0].count = 0: must be an integer from 1 to 1024"]),
    ("a count that is text", RING, "count = 4 ", 'count = "4" ', ['cores[0].count = "4": must be an integer']),
    ("a misspelt count", RING, "count = 4 ", "conut = 4 ", ["cores[0].conut = 4", "did you mean count?"]),
    ("a core of the name of one counted", RING, "count = 4 ", 'count = 3\n[[cores]]\nname = "npu1" #',
     ['cores[1].name = "npu1" is also cores[0]\'s']),
    ("places for fewer cores", RING, "nodes = 4 ", "core_nodes = [0]\nnodes = 4 ",
     ["core_nodes has 1 nodes for 4 cores"]),
    ("two cores at a node", RING, "nodes = 4 ", "core_nodes = [0, 1, 1, 2]\nnodes = 4 ", ["names a node twice"]),
    ("an override of a link that is none", RING, "nodes = 4 ",
     "overrides = [{ source = 0, destination = 2, latency_ns = 3 }]\nnodes = 4 ",
     ["overrides[0]: no link leads from node 0 to node 2"]),
    ("an unknown key of an override", RING, "nodes = 4 ",
     "overrides = [{ source = 0, destination = 1, latency = 3 }]\nnodes = 4 ",
     ["network.overrides[0].latency = 3", "did you mean latency_ns?"]),
    ("no virtual channel", LINKS, "hop_latency_ns", "virtual_channels = 0\nhop_latency_ns", ["virtual_channels = 0"]),
    ("a core without a link", LINKS, 'name = "npu1"', 'name = "npu2"', ['none ends at "npu2"']),
    ("a link to itself", LINKS, 'source = "npu0", destination = "npu1"', 'source = "npu0", destination = "npu0"',
     ["links[0] joins \"npu0\" to itself"]),
    ("a link twice", LINKS, 'source = "npu0", destination = "npu1"', 'source = "npu1", destination = "dram"',
     ["links[2] joins \"npu1\" and \"dram\" a second time"]),
    ("a link of no width", LINKS, "bytes_per_cycle = 32 }", "bytes_per_cycle = 0 }", ["links[0].bytes_per_cycle"]),
    ("not TOML", EXYNOS, "name =", "name", ["is not TOML", "line 1"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "old", "new", "parts"), [pytest.param(*row[1:], id=row[0]) for row in MISTAKES])
def test_mistakes_are_named(text: str, old: str, new: str, parts: list[str]) -> None:
    assert old in text
    message = refusal(text.replace(old, new, 1))
    for part in parts:
        assert part in message


def test_a_mistake_in_the_defaults_is_told_once() -> None:
    assert refusal(EXYNOS.replace("clock_mhz = 1196", "clock_mhz = -5", 1)).count("-5") == 1


def test_a_mistake_of_equal_cores_is_told_once() -> None:
    message = refusal(RING.replace("spm_banks = 8 ", "spm_banks = 3 ", 1))
    assert message.count("cores[0].spm_bytes = 524288 is no multiple of its 3 spm_banks") == 1


def test_equal_cores_are_numbered() -> None:
    text = RING.replace("count = 4 ", 'count = 2\n[[cores]]\nname = "extra"\n[[cores]]\nname = "big"\ncount = 1 #')
    assert [core.name for core in parse_machine(text, "own.toml").cores] == ["npu0", "npu1", "extra", "big0"]


def test_all_mistakes_are_told_at_once() -> None:
    wrong = EXYNOS.replace("clock_mhz = 1196", "clock_mhz = -5").replace("latency_ns = 120", "latency_ns = -6")
    message = refusal(wrong)
    assert "core_defaults.clock_mhz" in message
    assert "network.clock_mhz" in message
    assert "dram.latency_ns = -6" in message


def test_unknown_name() -> None:
    with pytest.raises(MachineError, match=r"no machine 'exynos210': did you mean exynos2100\? shipped are biglittle"):
        load_machine("exynos210")


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_unreadable_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MachineError, match=r"own\.toml cannot be read"):
        load_machine(path)


def test_taking_cores() -> None:
    machine = load_machine("exynos2100")
    assert [core.name for core in machine.take(2).cores] == ["npu0", "npu1"]
    for cores in (0, -1, 7):
        with pytest.raises(OptionError, match=rf"exynos2100 has 3 cores, --cores {cores} asked; use 1\.\.3 or another"):
            machine.take(cores)


def test_changing_the_scratchpad() -> None:
    machine = load_machine("exynos2100")
    assert {core.spm_bytes for core in machine.with_spm_bytes(131072).cores} == {131072}
    for size in (0, -16, 100, 1 << 32):
        with pytest.raises(OptionError, match=f"{size} bytes of scratchpad .*16 banks"):
            machine.with_spm_bytes(size)
