"""The paper's main result: every network with every strategy, and how the strategies compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from npu_backend.strategies import STRATEGIES
from tvm_ext.bench.measure import Case
from tvm_ext.bench.paper import ONE_CORE, RATIOS, Ratio
from tvm_ext.bench.rows import Rows, geometric_mean, speed_up
from tvm_ext.bench.sheet import MISSING, Sheet, number, percent
from tvm_ext.bench.sources import Source
from tvm_ext.bench.study import Choice

MEAN = "geometric mean"


@dataclass(frozen=True)
class Ladder:
    """Models x strategies x cores; one core means the strategy `single` there, the best plan for one core."""

    name: str = "ladder"
    flag: str = ""

    def sources(self, choice: Choice) -> Sequence[Source]:
        return choice.sources

    def cases(self, choice: Choice) -> Sequence[Case]:
        alone = [choice.case(source.name, STRATEGIES[ONE_CORE], 1) for source in choice.sources]
        return alone + [
            choice.case(source.name, strategy, cores)
            for source in choice.sources for strategy in choice.strategies for cores in choice.cores
        ]  # fmt: skip

    def sheets(self, choice: Choice, rows: Rows) -> Sequence[Sheet]:
        return [_latencies(choice, rows), _ratios(choice, rows)]

    def values(self, choice: Choice, rows: Rows) -> Mapping[str, Any]:
        means = {f"{name}_{cores}_cores": mean_speed_up(choice, rows, name, cores)
                 for name in _names(choice) for cores in choice.cores}  # fmt: skip
        ratios = {ratio.name.replace(" ", "_"): {"value": mean_ratio(choice, rows, ratio), "paper": ratio.paper}
                  for ratio in RATIOS}  # fmt: skip
        return {"speed_up_over_one_core": means, "ratios": ratios}


def speed_up_over_one_core(choice: Choice, rows: Rows, model: str, strategy: str, cores: int) -> float | None:
    """How many times as fast as the strategy `single` on one core."""
    return speed_up(choice.row(rows, model, strategy, cores), choice.row(rows, model, ONE_CORE, 1))


def mean_speed_up(choice: Choice, rows: Rows, strategy: str, cores: int) -> float | None:
    """The geometric mean over the models."""
    return geometric_mean(
        speed_up_over_one_core(choice, rows, source.name, strategy, cores) for source in choice.sources
    )


def mean_ratio(choice: Choice, rows: Rows, ratio: Ratio) -> float | None:
    """The geometric mean over the models of one of the paper's ratios."""
    return geometric_mean(ratio_of(choice, rows, ratio, source.name) for source in choice.sources)


def ratio_of(choice: Choice, rows: Rows, ratio: Ratio, model: str) -> float | None:
    """One of the paper's ratios for a model; None where a row is missing."""
    over = choice.row(rows, model, ratio.over, 1 if ratio.over == ONE_CORE else None)
    return speed_up(choice.row(rows, model, ratio.strategy), over)


def _names(choice: Choice) -> list[str]:
    return [strategy.name for strategy in choice.strategies]


def _latencies(choice: Choice, rows: Rows) -> Sheet:
    return Sheet(
        name="latencies",
        title=f"{choice.machine.name}: latency in us, and how many times as fast as one core",
        columns=("network", "cores", *_names(choice), "lower bound", "of the best"),
        lines=(*_latency_lines(choice, rows), *_mean_lines(choice, rows)),
        note=f"One core: {ONE_CORE} on 1 core. A star: the plan of a strategy before it was faster and was taken."
             " Lower bound: all MACs at the peak rate, or every weight, input and output over DRAM once.",
    )  # fmt: skip


def _latency_lines(choice: Choice, rows: Rows) -> Iterator[tuple[str, ...]]:
    for source in choice.sources:
        for cores in choice.cores:
            found = [choice.row(rows, source.name, name, cores) for name in _names(choice)]
            there = [row for row in found if row is not None]
            bound = there[0].lower_bound_us if there else None
            share = bound / min(row.latency_us for row in there) if bound is not None else None
            cells = [_latency_cell(choice, rows, source.name, name, cores) for name in _names(choice)]
            yield (source.name, str(cores), *cells, number(bound, 0), percent(share, 0))


def _latency_cell(choice: Choice, rows: Rows, model: str, strategy: str, cores: int) -> str:
    row = choice.row(rows, model, strategy, cores)
    if row is None:
        return MISSING
    star = "" if row.plan == strategy else "*"
    gain = speed_up_over_one_core(choice, rows, model, strategy, cores)
    return f"{row.latency_us:,.0f} {number(gain)}x{star}"


def _mean_lines(choice: Choice, rows: Rows) -> Iterator[tuple[str, ...]]:
    for cores in choice.cores:
        means = [mean_speed_up(choice, rows, name, cores) for name in _names(choice)]
        yield (MEAN, str(cores), *(MISSING if mean is None else f"{number(mean)}x" for mean in means), "", "")


def _ratios(choice: Choice, rows: Rows) -> Sheet:
    models = [source.name for source in choice.sources]
    lines = [
        (f"{ratio.name}", *(number(ratio_of(choice, rows, ratio, model)) for model in models),
         number(mean_ratio(choice, rows, ratio)), f"{ratio.paper:g}{' (derived)' * ratio.derived}")
        for ratio in RATIOS
    ]  # fmt: skip
    return Sheet(
        name="ratios",
        title=f"{choice.machine.name}, {choice.most_cores} cores: the paper's ratios",
        columns=("how many times as fast", *models, MEAN, "the paper"),
        lines=tuple(lines),
    )
