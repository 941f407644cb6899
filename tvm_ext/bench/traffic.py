"""InceptionV3 divided by rows, by channels and by the heuristics: each core's DRAM traffic and idle time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from npu_backend.strategies import STRATEGIES
from tvm_ext.bench import paper
from tvm_ext.bench.measure import Case
from tvm_ext.bench.rows import BenchRow, Rows
from tvm_ext.bench.sheet import Sheet, number
from tvm_ext.bench.sources import Source
from tvm_ext.bench.study import Choice

MODEL = "inception_v3"


@dataclass(frozen=True)
class Traffic:
    """The paper's three schemes."""

    name: str = "traffic"
    flag: str = "--traffic"

    def sources(self, choice: Choice) -> Sequence[Source]:
        del choice
        return [Source(MODEL)]

    def cases(self, choice: Choice) -> Sequence[Case]:
        return [
            choice.case(MODEL, strategy, choice.most_cores) for strategy in map(STRATEGIES.__getitem__, paper.TRAFFIC)
        ]

    def sheets(self, choice: Choice, rows: Rows) -> Sequence[Sheet]:
        return [
            Sheet(
                name="traffic",
                title=f"{choice.machine.name}, {choice.most_cores} cores: InceptionV3's traffic and idle time",
                columns=("scheme", "of", "KB over DRAM, core by core", "total MB", "idle us, core by core", "mean us"),
                lines=tuple(_lines(choice, rows)),
                note="Idle: all but work, so waiting for other cores is in it. 1 KB is 1000 bytes.",
                words=2,
            )
        ]

    def values(self, choice: Choice, rows: Rows) -> Mapping[str, Any]:
        found = {name: choice.row(rows, MODEL, name) for name in paper.TRAFFIC}
        return {name: {"dram_bytes": row.dram_bytes, "mean_idle_us": mean(idle_us(row))}
                for name, row in found.items() if row is not None}  # fmt: skip


def idle_us(row: BenchRow) -> list[float]:
    """Of each core: when no engine of it works, whether it waits for another core or not."""
    return [core.idle_us + core.sync_us for core in row.per_core]


def _lines(choice: Choice, rows: Rows) -> Iterator[tuple[str, ...]]:
    for name, printed in paper.TRAFFIC.items():
        row = choice.row(rows, MODEL, name)
        if row is not None:
            kilobytes = [core.dram_bytes / 1000 for core in row.per_core]
            yield (name, "ours", *_cells(kilobytes, idle_us(row)))
        yield (name, "paper", *_cells(printed.kilobytes, printed.idle_us))


def _cells(kilobytes: Sequence[float], idle: Sequence[float]) -> tuple[str, ...]:
    return (" / ".join(f"{value:.0f}" for value in kilobytes), number(sum(kilobytes) / 1000, 1),
            " / ".join(f"{value:.0f}" for value in idle), number(mean(idle), 0))  # fmt: skip
