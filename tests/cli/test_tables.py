"""Tables at the widths of usual terminals."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from npu_backend.report.critical_path import KINDS, CriticalPath
from npu_backend.report.document import Run
from npu_backend.report.figures import figures
from npu_backend.report.layers import LayerFigures
from npu_backend.report.links import LinkFigures
from tvm_ext.cli.tables import choices_table, links_table, path_table, run_tables, stratum_brackets

RUNS_ON, ENDS = "runs on, h8: 1.25 us computed again, 4.50 us of waiting saved", "ends, h7: rows before channels"


def layer(index: int, stratum: int, *, joins: bool = False) -> LayerFigures:
    costs = (1.25, 4.5) if joins else (None, None)
    reason = RUNS_ON if joins else ENDS
    return LayerFigures(
        name=f"node{index}", op="conv2d", split="channels", reason="h2: 2359296 weight bytes, 100352 input bytes",
        stratum=stratum, stratum_reason=reason if stratum else "",
        recompute_us=costs[0], synchronization_us=costs[1],
        cycles=1000, latency_us=1.0, sync_us=0.1, sync_deviation_us=0.0, macs=1, dram_bytes=1, cores=3, tiles=(1,) * 3,
    )  # fmt: skip


LAYERS = (layer(0, 0), layer(1, 3, joins=True), layer(2, 3, joins=True), layer(3, 3), layer(4, 4))


def text(width: int, layers: tuple[LayerFigures, ...] = LAYERS) -> list[str]:
    return printed(choices_table(layers, width), width)


def printed(table: Table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120, 140])
def test_choices_fit_and_are_whole(width: int) -> None:
    lines = text(width)
    assert all(len(line) <= width for line in lines)
    words = " ".join(" ".join(lines).split())
    assert words.count("h2: 2359296 weight") == len(LAYERS)
    assert ("recompute us" in lines[0]) == (width >= 120)
    assert words.count("waiting") == 2
    assert len(lines) <= 1 + 3 * len(LAYERS)


def test_strata_are_bracketed() -> None:
    assert list(stratum_brackets(LAYERS)) == ["0 ", "3 +", "  |", "  +", "4 "]


def test_without_strata_no_column_of_them() -> None:
    assert text(120, (layer(0, 0),))[0].split() == ["layer", "split", "because"]


def path_of(layers: tuple[LayerFigures, ...]) -> CriticalPath:
    """A load, then a matrix instruction, of every layer: 1 us and 2 us."""
    count = len(layers)
    ends = np.cumsum([1000.0, 2000.0] * count)
    pieces, nothing = np.repeat(np.arange(count), 2), np.zeros(2 * count, np.int64)
    kinds = np.array([KINDS.index("load"), KINDS.index("matrix")] * count)
    return CriticalPath(nothing, kinds, pieces, pieces, kinds, ends - [1000, 2000] * count, ends,
                        tuple(one.name for one in layers), count)  # fmt: skip


@pytest.mark.parametrize("width", [80, 120])
def test_path_and_links_fit(width: int) -> None:
    layers = tuple(replace(one, name=f"mixed/branch/{'x' * 40}{index}") for index, one in enumerate(LAYERS))
    lines = printed(path_table(path_of(layers), layers), width)
    assert all(len(line) <= width for line in lines)
    assert [line.split()[:3] for line in lines if line.split()[0] in KINDS] == [
        ["matrix", "10.0", "66.7%"], ["load", "5.0", "33.3%"]]  # fmt: skip
    links = tuple(LinkFigures(f"node{index}-node{index + 1}", "link", 2048, 16.0, 0.5) for index in range(12))
    lines = printed(links_table(links), width)
    assert lines[1].split() == ["node0-node1", "link", "50.0%", "2.00", "KiB", "16.0"]
    assert lines[-1].strip() == "the 10 busiest of 12"


def test_idle_cores_are_told() -> None:
    told = replace(figures([], 64), cores_used=16, cores_reason="DRAM is full with them")
    run = Run(model="m", machine="mesh64", cores=64, strategy="stratum", plan="stratum", figures=told, npu_ops=0,
              vector_ops=0, host_ops=(), compile_seconds=None, emulate_seconds=None, verify=None)  # fmt: skip
    lines = list(run_tables(run, None, all_layers=False, width=80))
    assert lines[1] == "16 of 64 cores used: DRAM is full with them"
    all_used = replace(run, figures=figures([], 64))
    assert not any("used:" in str(line) for line in run_tables(all_used, None, all_layers=False, width=80))
