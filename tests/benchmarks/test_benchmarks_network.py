"""The network's bench: its cases, machines, tables, and a run that is taken up again."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import network
from benchmarks.network_measure import (
    ALL,
    FIXED,
    GROWN,
    NAIVE,
    PARTS,
    SCALED,
    THROUGH_DRAM,
    TOPOLOGIES,
    UNICAST,
    NetworkCase,
    NetworkRow,
    cases,
    machine_of,
)
from benchmarks.network_tables import sheets
from npu_backend import load_machine
from npu_backend.machine_checks import contradictions

ROW = NetworkRow("mobilenet_v2", SCALED, 1, FIXED, alone=False, strategy="stratum", latency_us=800.0,
                 lower_bound_us=100.0, cores_used=1)  # fmt: skip


def test_each_case_is_measured_once():
    found = cases("mobilenet_v2", PARTS, [1, 4, 64])
    assert len(found) == len(set(found))
    assert sum(case.variant == ALL for case in found) == len(TOPOLOGIES)
    assert [case.cores for case in found if case.alone] == [4, 64]
    assert {case.variant for case in cases("unet", ["links"], [1])} == {ALL, THROUGH_DRAM}
    assert not any(case.alone for case in cases("unet", PARTS, [1, 4, 64]))
    assert "exynos2200" not in {case.machine for case in found if case.variant == UNICAST}


def test_machines_of_cases():
    whole = load_machine(SCALED)
    fixed, grown = (machine_of(NetworkCase("unet", SCALED, 16, variant)) for variant in (FIXED, GROWN))
    assert fixed == whole.take(16)
    assert grown.dram.bandwidth_gb_per_s == whole.dram.bandwidth_gb_per_s / 4
    assert grown.network == whole.network
    assert not machine_of(NetworkCase("unet", "ring4", 4, THROUGH_DRAM)).network.cores_reach_each_other
    assert not machine_of(NetworkCase("unet", "ring4", 4, UNICAST)).network.multicast
    for name, make in TOPOLOGIES.items():
        machine = make()
        assert machine.name == name
        assert contradictions(machine, range(len(machine.cores))) == []


def test_tables():
    four = replace(ROW, cores=4, cores_used=3, latency_us=400.0)
    worse = replace(ROW, cores=8, cores_used=8, latency_us=410.0)
    refused = replace(ROW, cores=64, error="no room")
    mesh = replace(ROW, machine="mesh16", cores=16, variant=ALL)
    naive = replace(mesh, variant=NAIVE, latency_us=880.0)
    alone = replace(ROW, alone=True, cores=4, compile_seconds=2.0, event_ns=300.0)
    more = replace(alone, cores=64, compile_seconds=30.0, event_ns=450.0)
    found = {sheet.name: sheet for sheet in sheets([ROW, four, worse, refused, mesh, naive, alone, more])}
    assert set(found) == {"scaling-fixed", "order", "compile"}
    assert found["scaling-fixed"].lines[1][1:6] == ("4", "3", "400.0", "2.00x", "50.0%")
    assert found["scaling-fixed"].lines[3][3] == "no room"
    assert "mobilenet_v2 on 8 cores than on 4" in found["scaling-fixed"].note
    assert found["order"].lines == (("mesh16", "1.100", "1.100"),)
    assert found["compile"].lines[1][3] == "15.0x"
    assert found["compile"].lines[1][-1] == "1.50x"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--networks", "resnet50"], "resnet50"),
        (["--part", "speed"], "speed"),
        (["--json", "no/such/folder/network.json"], "no/such/folder"),
        (["--markdown", "no/such/page.md"], "cannot read it"),
    ],
)
def test_mistakes_end_with_one_message(options, message):
    done = CliRunner().invoke(network.main, options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["[]", "{", '{"commit": "other", "size": null, "rows": []}'])
def test_files_of_other_runs_are_kept(tmp_path: Path, content: str):
    path = tmp_path / "network.json"
    path.write_text(content)
    done = CliRunner().invoke(network.main, ["--json", str(path)])
    assert done.exit_code == 2
    assert "name another" in done.stderr
    assert path.read_text() == content


def test_a_run_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, measured = tmp_path / "network.json", []

    def fake(_: object, case: NetworkCase, strategy: str) -> NetworkRow:
        measured.append(case)
        return NetworkRow(**asdict(case), strategy=strategy, latency_us=100.0 / case.cores, cores_used=case.cores)

    monkeypatch.setattr(network, "_load", lambda name, size, folder: (folder, None))
    monkeypatch.setattr(network, "measure", fake)
    options = ["--networks", "unet", "--part", "scaling", "--json", str(path)]
    assert CliRunner().invoke(network.main, [*options, "--cores", "4"]).exit_code == 0
    done = CliRunner().invoke(network.main, [*options, "--cores", "4", "--cores", "8"])
    assert done.exit_code == 0, done.output
    assert [(case.cores, case.variant) for case in measured] == [(4, FIXED), (4, GROWN), (8, FIXED), (8, GROWN)]
    assert len(json.loads(path.read_text())["rows"]) == 4


@pytest.mark.slow
def test_command_measures_a_small_network(tmp_path: Path):
    figures, page = tmp_path / "network.json", tmp_path / "network.md"
    page.write_text("before\n<!-- begin scaling-fixed -->\n<!-- end scaling-fixed -->\nafter\n")
    options = ["--networks", "mobilenet_v2", "--size", "64", "--part", "scaling", "--part", "compile", "--cores", "4",
               "--json", str(figures), "--markdown", str(page)]  # fmt: skip
    done = CliRunner().invoke(network.main, options)
    assert done.exit_code == 0, done.output
    rows = json.loads(figures.read_text())["rows"]
    assert [row["error"] for row in rows] == [""] * 3
    assert rows[2]["alone"]
    assert rows[2]["peak_rss_bytes"] > 1e7
    assert rows[2]["event_ns"] > 0
    assert "| mobilenet_v2 | 4 |" in page.read_text()
