"""The network benchmark's rows as tables: scaling, gains by topology, the compiler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import geometric_mean

from benchmarks.network_measure import ALL, COMPARED, FIXED, GROWN, SCALED, TOPOLOGIES, NetworkRow
from tvm_ext.bench.sheet import MISSING, Sheet, number, percent

COMPILE_GROWTH, COMPILE_SECONDS, PEAK_GB, EVENT_GROWTH = 20.0, 60.0, 2.0, 3.0
_TITLES = {"order": "Scheduled order of transfers over the program's", "links": "Direct links over halos through DRAM",
           "multicast": "Multicast over one transfer a core"}  # fmt: skip


def sheets(rows: Sequence[NetworkRow]) -> tuple[Sheet, ...]:
    """Those for which there are rows."""
    return tuple(sheet for sheet in _sheets(rows) if sheet.lines)


def _sheets(rows: Sequence[NetworkRow]) -> Iterator[Sheet]:
    for name, variant in (("scaling-fixed", FIXED), ("scaling-grown", GROWN)):
        of_variant = [row for row in rows if row.machine == SCALED and row.variant == variant and not row.alone]
        yield _scaling(name, variant, of_variant)
    for part, variant in COMPARED.items():
        yield _gains(part, variant, rows)
    yield _compile([row for row in rows if row.alone])


def _scaling(name: str, variant: str, rows: Sequence[NetworkRow]) -> Sheet:
    models = list(dict.fromkeys(row.model for row in rows))
    lines, slower = [], []
    for model in models:
        of_model = sorted((row for row in rows if row.model == model and not row.error), key=lambda row: row.cores)
        lines += [_scaled(row, of_model[0]) for row in of_model]
        slower += [f"{model} on {b.cores} cores than on {a.cores}" for a, b in pairwise(of_model)
                   if b.latency_us > a.latency_us]  # fmt: skip
        lines += [(row.model, str(row.cores), MISSING, row.error, *[MISSING] * 4) for row in rows
                  if row.model == model and row.error]  # fmt: skip
    columns = ("network", "cores", "used", "latency us", "speed-up", "efficiency", "lower bound us", "of the bound")
    note = ("Speed-up over the fewest cores; efficiency is its share of the cores. Slower on more cores than on fewer:"
            f" {', '.join(slower) or 'none'}.")  # fmt: skip
    return Sheet(name, f"{SCALED}, {variant}", columns, tuple(lines), note)


def _scaled(row: NetworkRow, first: NetworkRow) -> tuple[str, ...]:
    speed_up = first.latency_us / row.latency_us
    return (row.model, str(row.cores), str(row.cores_used), number(row.latency_us, 1), f"{speed_up:.2f}x",
            percent(speed_up * first.cores / row.cores), number(row.lower_bound_us, 1),
            percent(row.lower_bound_us / row.latency_us))  # fmt: skip


def _gains(part: str, variant: str, rows: Sequence[NetworkRow]) -> Sheet:
    latencies = {row.case: row.latency_us for row in rows if not row.error}
    gains: dict[str, dict[str, float]] = {}
    for row in rows:
        with_all = latencies.get(replace(row.case, variant=ALL))
        if row.variant == variant and not row.error and with_all:
            gains.setdefault(row.machine, {})[row.model] = row.latency_us / with_all
    models = list(dict.fromkeys(model for of_machine in gains.values() for model in of_machine))
    lines = [_gain_line(name, gains[name], models) for name in TOPOLOGIES if name in gains]
    note = f"Latency in the variant {variant!r} over that of the machine as it is: above 1, the latter is faster."
    return Sheet(part, _TITLES[part], ("machine", *models, "geometric mean"), tuple(lines), note)


def _gain_line(name: str, gains: Mapping[str, float], models: Sequence[str]) -> tuple[str, ...]:
    cells = [f"{gains[model]:.3f}" if model in gains else MISSING for model in models]
    return (name, *cells, f"{geometric_mean(gains.values()):.3f}")


def _compile(rows: Sequence[NetworkRow]) -> Sheet:
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        of_model = sorted((row for row in rows if row.model == model and not row.error), key=lambda row: row.cores)
        lines += [_compiled(row, of_model[0]) for row in of_model]
    columns = ("network", "cores", "compile s", "of the fewest", "peak MB", "instructions", "events", "ns an event",
               "of the fewest")  # fmt: skip
    note = (f"Asked for: MobileNetV2 on 64 cores at most {COMPILE_GROWTH:g}x of 4; InceptionV3 on 64 under"
            f" {COMPILE_SECONDS:g} s and {PEAK_GB:g} GB; an event within {EVENT_GROWTH:g}x.")  # fmt: skip
    return Sheet("compile", f"The compiler and the emulator on {SCALED}", columns, tuple(lines), note)


def _compiled(row: NetworkRow, first: NetworkRow) -> tuple[str, ...]:
    growth = row.compile_seconds / first.compile_seconds
    return (row.model, str(row.cores), number(row.compile_seconds), f"{growth:.1f}x",
            number(row.peak_rss_bytes / 1e6, 0), f"{row.instructions:,}", f"{row.events:,}", number(row.event_ns, 0),
            f"{row.event_ns / first.event_ns:.2f}x")  # fmt: skip
