"""The stem of InceptionV3 with halo exchange, with strata, and with both: what recomputing saves and costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, pstdev
from typing import Any

from npu_backend.strategies import STRATEGIES, STRATUM_ONLY, Strategy
from tvm_ext.bench import paper, sources
from tvm_ext.bench.measure import Case
from tvm_ext.bench.rows import BenchRow, Rows
from tvm_ext.bench.sheet import MISSING, Sheet, difference, number, percent
from tvm_ext.bench.sources import Source
from tvm_ext.bench.study import Choice


@dataclass(frozen=True)
class Stem:
    """The three configurations of the paper's table, and `base` below them."""

    name: str = "stem"
    flag: str = "--stem"

    def sources(self, choice: Choice) -> Sequence[Source]:
        del choice
        return [Source(sources.STEM)]

    def cases(self, choice: Choice) -> Sequence[Case]:
        return [choice.case(sources.STEM, strategy, choice.most_cores) for strategy in configurations()]

    def sheets(self, choice: Choice, rows: Rows) -> Sequence[Sheet]:
        return [
            Sheet(
                name="stem",
                title=f"{choice.machine.name}, {choice.most_cores} cores: the stem of InceptionV3",
                columns=("configuration", "latency us", "paper", "off by", "GMAC", "redundant", "paper",
                         "sync us (sigma)", "paper"),
                lines=tuple(_lines(choice, rows)),
                note="Synchronisation: mean and standard deviation over the cores.",
            )
        ]  # fmt: skip

    def values(self, choice: Choice, rows: Rows) -> Mapping[str, Any]:
        return {strategy.name: _values(row) for strategy in configurations()
                if (row := choice.row(rows, sources.STEM, strategy.name)) is not None}  # fmt: skip


def configurations() -> list[Strategy]:
    """Base with halo exchange, with strata but without the exchange, with both; then base itself."""
    return [STRATEGIES["halo"], STRATUM_ONLY, STRATEGIES["stratum"], STRATEGIES["base"]]


def redundant_share(row: BenchRow) -> float:
    """Of the model's multiply-accumulates, those that are computed again."""
    return row.macs_executed / row.macs - 1


def _values(row: BenchRow) -> Mapping[str, Any]:
    mean_us, deviation_us = _synchronization(row)
    return {"latency_us": row.latency_us, "redundant_share": redundant_share(row), "sync_us": mean_us,
            "sync_deviation_us": deviation_us}  # fmt: skip


def _synchronization(row: BenchRow) -> tuple[float, float]:
    waits = [core.sync_us for core in row.per_core]
    return mean(waits), pstdev(waits)


def _lines(choice: Choice, rows: Rows) -> Iterator[tuple[str, ...]]:
    for name in dict.fromkeys((*paper.STEM, "base")):
        row, printed = choice.row(rows, sources.STEM, name), paper.STEM.get(name)
        if row is None:
            ours = [MISSING] * 4
        else:
            sync = "{:.1f} ({:.1f})".format(*_synchronization(row))
            ours = [
                number(row.latency_us, 1),
                number(row.macs_executed / 1e9, 4),
                percent(redundant_share(row), 2),
                sync,
            ]
        theirs = [MISSING] * 4 if printed is None else _printed(printed, row)
        yield (name, ours[0], theirs[0], theirs[1], ours[1], ours[2], theirs[2], ours[3], theirs[3])


def _printed(printed: paper.StemRow, row: BenchRow | None) -> list[str]:
    return [f"{printed.latency_us:g}", difference(None if row is None else row.latency_us, printed.latency_us),
            percent(printed.redundant_share, 2), f"{printed.sync_us:g} ({printed.sync_deviation_us:g})"]  # fmt: skip
