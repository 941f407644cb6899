"""What the benchmark measures: one row per model, machine, strategy and number of cores, and ratios between rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any

from npu_backend.report.figures import CoreFigures

Key = tuple[str, str, str, int]


@dataclass(frozen=True)
class BenchRow:
    """A timed compile, in the names and units of `npuc run --json`.

    `plan` names the strategy whose plan was taken: one may fall back on a simpler one that is faster.
    """

    model: str
    machine: str
    cores: int
    strategy: str
    plan: str
    cycles: int
    latency_us: float
    lower_bound_us: float
    macs: int
    macs_executed: int
    dram_bytes: int
    noc_bytes: int
    spm_peak_bytes: int
    energy_uj: float
    compile_seconds: float
    per_core: tuple[CoreFigures, ...]

    @property
    def key(self) -> Key:
        """What no two rows share."""
        return self.model, self.machine, self.strategy, self.cores

    def document(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {**asdict(self), "per_core": [asdict(core) for core in self.per_core]}

    @staticmethod
    def from_document(values: Mapping[str, Any]) -> BenchRow:
        """The row that `document` made."""
        return BenchRow(**{**values, "per_core": tuple(CoreFigures(**core) for core in values["per_core"])})


@dataclass(frozen=True)
class Failure:
    """A model, or one case of it, that could not be compiled: the rows go on without it."""

    model: str
    machine: str
    strategy: str
    cores: int
    message: str

    def __str__(self) -> str:
        return (f"{self.model}, {self.strategy} on {self.cores} core{'s' * (self.cores > 1)} of {self.machine}:"
                f" {self.message}")  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """All rows of a run, found by what they measure."""

    rows: tuple[BenchRow, ...]
    failures: tuple[Failure, ...] = ()

    @cached_property
    def _by_key(self) -> dict[Key, BenchRow]:
        return {row.key: row for row in self.rows}

    def find(self, model: str, machine: str, strategy: str, cores: int) -> BenchRow | None:
        """The row, or None where it was not measured."""
        return self._by_key.get((model, machine, strategy, cores))

    def models(self, machine: str) -> Iterator[str]:
        """The models that have rows on a machine, each once, in the order of the rows."""
        yield from dict.fromkeys(row.model for row in self.rows if row.machine == machine)


def speed_up(of: BenchRow | None, over: BenchRow | None) -> float | None:
    """How many times as fast `of` is; None where one of them is missing."""
    return over.latency_us / of.latency_us if of is not None and over is not None else None


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there; None without any."""
    known = [value for value in values if value is not None]
    return prod(known) ** (1 / len(known)) if known else None
