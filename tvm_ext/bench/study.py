"""What every study of the benchmark is given, and what it gives: cases to measure, tables, values for the JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from npu_backend.machine_types import Machine
from npu_backend.strategies import STRATEGIES, Strategy
from tvm_ext.bench.measure import Case
from tvm_ext.bench.paper import ONE_CORE
from tvm_ext.bench.rows import BenchRow, Rows
from tvm_ext.bench.sheet import Sheet
from tvm_ext.bench.sources import STEM, Source


@dataclass(frozen=True)
class Choice:
    """What the user chose: the models, the machine with all its cores, how many of them to use, the strategies."""

    sources: tuple[Source, ...]
    machine: Machine
    cores: tuple[int, ...]
    strategies: tuple[Strategy, ...]

    @property
    def most_cores(self) -> int:
        """What the ratios and the studies are measured on."""
        return max(self.cores)

    def case(self, model: str, strategy: Strategy, cores: int, machine: Machine | None = None) -> Case:
        """A model on the first `cores` cores of the machine, or of a variant of it."""
        return Case(model, (machine or self.machine).take(cores), strategy)

    def row(self, rows: Rows, model: str, strategy: str, cores: int | None = None) -> BenchRow | None:
        """The row on the machine as it is, by default on the most cores; None where it was not measured."""
        return rows.find(model, self.machine.name, strategy, self.most_cores if cores is None else cores)


def choice_of(rows: Rows, machine: Machine) -> Choice:
    """What was chosen when the rows were measured; the stem is no network."""
    there = [row for row in rows.rows if row.machine == machine.name and row.model != STEM]
    names = {row.strategy for row in there}
    # One core is measured for the ratios, asked for or not.
    shared = {row.cores for row in there if row.strategy != ONE_CORE}
    return Choice(
        sources=tuple(Source(model) for model in rows.models(machine.name) if model != STEM),
        machine=machine,
        cores=tuple(sorted(shared or {row.cores for row in rows.rows})),
        strategies=tuple(strategy for name, strategy in STRATEGIES.items() if name in names),
    )


class Study(Protocol):
    """One question: the models it needs beside the chosen ones, its cases, and how their rows answer it."""

    @property
    def name(self) -> str:
        """Of its values in the JSON."""

    @property
    def flag(self) -> str:
        """The option of `npuc bench` that asks for it; empty for the one that needs none."""

    def sources(self, choice: Choice) -> Sequence[Source]:
        """The models."""

    def cases(self, choice: Choice) -> Sequence[Case]:
        """What to measure."""

    def sheets(self, choice: Choice, rows: Rows) -> Sequence[Sheet]:
        """The tables."""

    def values(self, choice: Choice, rows: Rows) -> Mapping[str, Any]:
        """The derived figures for the JSON; None for what is missing."""
