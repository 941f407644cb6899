"""A report as rich tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from benchmarks.rows import NetworkRow, Report
from benchmarks.targets import judgements


def tables(report: Report) -> Iterator[Table]:
    """Speed on the host, the compiler, the modelled machine, and the bounds."""
    yield _speed(report)
    yield _compiler(report)
    yield _machine(report)
    if any(True for _ in judgements(report.rows)):
        yield _bounds(report)


def _table(title: str, *columns: str, left: int = 1) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    return table


def _label(row: NetworkRow) -> str:
    return f"{row.model} {row.input_size}"


def _speed(report: Report) -> Table:
    table = _table(f"one inference on {report.host.processor}, medians",
                   "network", "threads", "ONNX Runtime ms", "emulate ms", "ratio", "timing only ms",
                   "times faster")  # fmt: skip
    for row in report.rows:
        for one in row.threads:
            table.add_row(_label(row), str(one.threads), f"{one.onnxruntime_ms:.2f}", f"{one.emulate_ms:.2f}",
                          f"{one.ratio:.2f}", f"{one.timing_ms:.2f}", f"{one.timing_speed_up:.0f}")  # fmt: skip
    return table


def _compiler(report: Report) -> Table:
    table = _table(f"compiler, strategy {report.strategy}",
                   "network", "slowest passes, s", "import s", "compile s", "peak MB", "instructions", "mismatches",
                   left=2)  # fmt: skip
    for row in report.rows:
        slowest = sorted(row.stage_seconds.items(), key=lambda item: -item[1])[:2]
        table.add_row(_label(row), ", ".join(f"{name} {seconds:.2f}" for name, seconds in slowest),
                      f"{row.import_seconds:.2f}", f"{row.compile_seconds:.2f}", f"{row.peak_rss_bytes / 1e6:.0f}",
                      str(row.cores[-1].instructions), f"{row.mismatches} of {row.elements}")  # fmt: skip
    return table


def _machine(report: Report) -> Table:
    table = _table(f"{report.machine}, as emulated",
                   "network", "cores", "latency us", "speed-up", "utilisation", "lower bound us", "DRAM MB",
                   "energy uJ")  # fmt: skip
    for row in report.rows:
        for one in row.cores:
            table.add_row(_label(row), str(one.cores), f"{one.latency_us:.1f}", f"{one.speed_up:.2f}",
                          f"{one.utilization:.1%}", f"{one.lower_bound_us:.1f}", f"{one.dram_bytes / 1e6:.2f}",
                          f"{one.energy_uj:.0f}")  # fmt: skip
    return table


def _bounds(report: Report) -> Table:
    table = _table("bounds of issue 2", "network", "figure", "measured", "bound", "", left=2)
    for one in judgements(report.rows):
        sign = "≥" if one.at_least else "≤"
        table.add_row(one.model, one.figure, f"{one.value:.2f}", f"{sign} {one.bound:g} {one.unit}",
                      "met" if one.met else "not met")  # fmt: skip
    return table
