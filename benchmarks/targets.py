"""The speeds and sizes that issue 2 sets, and whether a row meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from benchmarks.rows import NetworkRow

GIGABYTE = 1e9


@dataclass(frozen=True)
class Judgement:
    """A measured value beside its bound."""

    model: str
    figure: str
    value: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


Target = Callable[[NetworkRow], Iterable[Judgement]]


def _emulation(row: NetworkRow) -> Iterator[Judgement]:
    for threads in row.threads:
        figure = f"functional emulation, {threads.threads} thread{'s' * (threads.threads > 1)}"
        yield Judgement(row.model, figure, threads.ratio, 5, "x ONNX Runtime")


def _timing(row: NetworkRow) -> Iterator[Judgement]:
    for threads in row.threads[:1]:
        yield Judgement(row.model, "timing only", threads.timing_speed_up, 20, "x faster than functional", True)


def _compile(bound_seconds: float) -> Target:
    return lambda row: [Judgement(row.model, "compile", row.compile_seconds, bound_seconds, "s")]


def _peak(row: NetworkRow) -> Iterator[Judgement]:
    yield Judgement(row.model, "peak memory of compile and run", row.peak_rss_bytes / GIGABYTE, 1.5, "GB")


TARGETS: dict[str, tuple[Target, ...]] = {
    "mobilenet_v2": (_emulation, _compile(3)),
    "inception_v3": (_emulation, _timing, _compile(8)),
    "unet": (_peak,),
}


def judgements(rows: Iterable[NetworkRow]) -> Iterator[Judgement]:
    """Every target of every row that has any."""
    for row in rows:
        for target in TARGETS.get(row.model, ()):
            yield from target(row)
