"""The bench: rows and JSON, targets, tables, the measuring process and the command. No speed is a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from click.testing import CliRunner
from rich.console import Console

from benchmarks import cli
from benchmarks.measure import peak_rss_bytes
from benchmarks.rows import CoresRow, Host, NetworkRow, Report, ThreadsRow
from benchmarks.tables import tables
from benchmarks.targets import judgements

ROW = NetworkRow(
    model="inception_v3",
    input_size=299,
    elements=1000,
    mismatches=0,
    import_tvm_seconds=1.0,
    import_seconds=0.5,
    compile_seconds=4.0,
    stage_seconds={"legalize": 1.0, "reside to place": 3.0},
    peak_rss_bytes=400_000_000,
    threads=(ThreadsRow(1, 9, 40.0, 78.0, 2.0, 80.0, 2.0), ThreadsRow(2, 9, 20.0, 98.0, 2.0, 100.0, 5.5)),
    cores=(CoresRow(1, 3000.0, 1.0, 0.6, 2000.0, 30_000_000, 3000.0, 9000, 2.0),),
)
REPORT = Report("exynos2100", "base", "0123456789ab", True, Host("a processor", 2, "3.11.0", "1.32.0"), (ROW,))


def test_json_round_trip():
    values = json.loads(REPORT.to_json())
    assert values["machine"] == "exynos2100"
    assert values["commit"] == "0123456789ab"
    assert NetworkRow.from_json(values["rows"][0]) == ROW


def test_targets_of_a_row():
    found = {(one.figure, one.value, one.met) for one in judgements([ROW])}
    assert found == {
        ("functional emulation, 1 thread", 2.0, True),
        ("functional emulation, 2 threads", 5.5, False),
        ("timing only", 40.0, True),
        ("compile", 4.0, True),
    }


def test_peak_memory_is_judged_in_gigabytes():
    (one,) = judgements([replace(ROW, model="unet", peak_rss_bytes=1_600_000_000)])
    assert (one.value, one.unit, one.met) == (1.6, "GB", False)


def test_tables_show_figures_and_bounds():
    console = Console(width=120, record=True, quiet=False, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with console.file:
        for table in tables(REPORT):
            console.print(table)
    text = console.export_text()
    assert "inception_v3 299" in text
    assert "reside to place 3.00" in text
    assert "0 of 1000" in text
    assert text.count("not met") == 1


def test_networks_without_targets_have_no_table_of_them():
    titles = [table.title for table in tables(replace(REPORT, rows=(replace(ROW, model="deeplab_v3_plus"),)))]
    assert not any(str(title).startswith("bounds") for title in titles)


def test_peak_memory_is_this_process_alone():
    """A process that holds 300 MB starts one that holds little."""
    held = bytearray(os.urandom(1024)) * 300_000
    command = "from benchmarks.measure import peak_rss_bytes; print(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True, cwd=cli.ROOT)
    assert 20e6 < int(done.stdout) < peak_rss_bytes()
    if sys.platform == "linux":
        assert int(done.stdout) < len(held)


@pytest.mark.slow
def test_command_measures_a_small_network(tmp_path):
    path = tmp_path / "bench.json"
    options = ["--quick", "--networks", "mobilenet_v2", "--size", "32", "--threads", "1", "--json", str(path)]
    done = CliRunner().invoke(cli.main, options)
    assert done.exit_code == 0, done.output
    assert "mobilenet_v2 32" in done.stdout
    (row,) = json.loads(path.read_text())["rows"]
    assert row["mismatches"] == 0
    assert [one["cores"] for one in row["cores"]] == [1, 2, 3]
    assert row["threads"][0]["rounds"] >= 3
    assert sum(row["stage_seconds"].values()) == pytest.approx(row["compile_seconds"])
    assert asdict(NetworkRow.from_json(row)).keys() == row.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--networks", "lenet"], "lenet"),
        (["--threads", "0"], "threads"),
        (["--networks", "mobilenet_v2", "--size", "8"], "needs an input of"),
        (["--json", "no/such/folder/bench.json"], "no/such/folder"),
    ],
)
def test_mistakes_end_with_one_message(options, message):
    done = CliRunner().invoke(cli.main, options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
