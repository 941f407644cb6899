"""The table of choices at the widths of usual terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from npu_backend.report.layers import LayerFigures
from tvm_ext.cli.tables import choices_table, stratum_brackets

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
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(choices_table(layers, width))
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
