"""A run's figures as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import floor, log10
from typing import TYPE_CHECKING

from rich.table import Table

from npu_backend.report.critical_path import CriticalPath
from npu_backend.report.document import HostOperator, Run, Verification
from npu_backend.report.figures import Figures
from npu_backend.report.layers import LayerFigures
from npu_backend.report.links import LinkFigures
from tvm_ext.package import NOT_QUANTIZED

if TYPE_CHECKING:
    from rich.console import RenderableType

SLOWEST = 10
BUSIEST = 10
MOST_LAYERS = 3
WIDE = 110


def run_tables(run: Run, one_core_us: float | None, *, all_layers: bool, width: int) -> Iterator[RenderableType]:
    """The summary, the cores, the layers (the slowest, or all and why they run so) and what stays on the host."""
    plan = f", plan {run.plan}" if run.plan != run.strategy else ""
    yield f"{run.model} on {run.machine}, {_plural(run.cores, 'core')}, strategy {run.strategy}{plan}"
    if run.figures.cores_reason:
        yield f"{run.figures.cores_used} of {_plural(run.cores, 'core')} used: {run.figures.cores_reason}"
    if run.figures.layers:
        yield _summary(run, one_core_us)
        yield _cores(run.figures)
        yield _layers(run.figures, all_layers, width)
        if all_layers:
            yield choices_table(run.figures.layers, width)
        if all_layers and run.network is not None:
            yield path_table(run.network.path, run.figures.layers)
            yield links_table(run.network.links)
    yield from host_lines(run.npu_ops, run.vector_ops, run.host_ops)


def host_lines(npu_ops: int, vector_ops: int, host_ops: Sequence[HostOperator]) -> Iterator[str]:
    """How many operators run where, and every operator of the host by name, grouped by reason."""
    kernels = f" ({vector_ops} by kernels of the vector processors)" if vector_ops else ""
    yield f"{_plural(npu_ops, 'ONNX node')} on the NPU{kernels}, {len(host_ops)} on the host"
    groups: dict[tuple[str, str], list[HostOperator]] = {}
    for op in host_ops:
        # Who reads or writes the float32 is told of the first only; the JSON has it of all.
        head = NOT_QUANTIZED if op.reason.startswith(NOT_QUANTIZED) else op.reason
        groups.setdefault((op.op, head), []).append(op)
    for (kind, _), ops in groups.items():
        yield f"  host: {kind} {', '.join(op.name for op in ops)}: {ops[0].reason}"


def verification_line(verification: Verification) -> str:
    """What --verify found."""
    head = f"verified against {verification.reference}: "
    if not verification.mismatches:
        return f"{head}all {verification.elements:,} elements equal"
    largest = "not finite" if verification.max_abs is None else f"{verification.max_abs:.6g}"
    verdict = (
        f"; {verification.failures:,} are beyond the tolerance" if verification.failures else ", which is accepted"
    )
    return (f"{head}{verification.mismatches:,} of {verification.elements:,} elements differ, at most by {largest}"
            f" ({', '.join(_error_texts(verification))}){verdict}")  # fmt: skip


def _error_texts(verification: Verification) -> Iterator[str]:
    if verification.max_lsb is not None:
        yield f"steps of the output's codes: {verification.max_lsb:.3g}"
    if verification.max_relative is not None:
        yield f"{verification.max_relative:.2g} of the largest value"
    if verification.cosine is not None:
        yield f"cosine {_nines(verification.cosine)}"
    if verification.sqnr_db is not None:
        yield f"{verification.sqnr_db:.1f} dB signal to noise"
    if verification.top1_agreement is not None:
        yield f"top-1 agrees on {verification.top1_agreement:.1%}"


def _nines(cosine: float) -> str:
    """To two digits behind the nines."""
    return f"{cosine:.{min(12, max(4, 2 - floor(log10(max(1 - cosine, 1e-12)))))}f}"


def _summary(run: Run, one_core_us: float | None) -> Table:
    figures = run.figures
    table = Table.grid(padding=(0, 2))
    peak = f"{figures.peak_macs_per_us / 1e6:.2f} TMAC/s"
    executed = f"{figures.macs / 1e6:,.1f} MMAC in the model, {figures.macs_executed / 1e6:,.1f} executed"
    gain = f", {one_core_us / figures.latency_us:.2f}x one core's {_us(one_core_us)}" if one_core_us else ""
    rows = [
        ("latency", f"{_us(figures.latency_us)} = {figures.cycles:,} cycles{gain}"),
        ("lower bound", f"{_us(figures.lower_bound_us)}, {figures.bound_share:.1%} of the latency"),
        ("utilisation", f"{figures.utilization:.1%} of {peak}, {executed}"),
        ("traffic", f"DRAM {_bytes(figures.dram_bytes)}, between cores {_bytes(figures.noc_bytes)}"),
        ("waits", _waits(figures)),
        ("scratchpad", f"{_bytes(figures.spm_peak_bytes)} at the peak"),
        ("energy", f"{figures.energy_uj:,.1f} uJ"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def time_line(run: Run) -> str:
    """What the host took."""
    parts = [("compile", run.compile_seconds), ("emulation", run.emulate_seconds)]
    return ", ".join(f"{name} {seconds:.3f} s" for name, seconds in parts if seconds is not None)


def _cores(figures: Figures) -> Table:
    table = _table(("core", "busy us", "sync us", "idle us", "DRAM", "load", "store", "MMAC"))
    for index, core in enumerate(figures.per_core):
        table.add_row(str(index), f"{core.busy_us:,.1f}", f"{core.sync_us:,.1f}", f"{core.idle_us:,.1f}",
                      _bytes(core.dram_bytes), _bytes(core.load_bytes), _bytes(core.store_bytes),
                      f"{core.macs / 1e6:,.1f}")  # fmt: skip
    return table


def _layers(figures: Figures, all_layers: bool, width: int) -> Table:
    """On narrow terminals without the operators, so that the nodes' names have room."""
    names = ("layer", "cycles", "share", "used", "DRAM", "tiles", "split", "node", "operators")
    table = _table(names if width >= WIDE else names[:-1], words=names[6:])
    numbered = list(enumerate(figures.layers))
    if not all_layers:
        numbered = sorted(numbered, key=lambda row: -row[1].cycles)[:SLOWEST]
        if len(figures.layers) > SLOWEST:
            table.caption = f"the {SLOWEST} slowest of {len(figures.layers)} layers; -v shows all"
    for index, layer in numbered:
        table.add_row(str(index), *_layer_cells(figures, layer)[: len(table.columns) - 1])
    return table


def choices_table(layers: Sequence[LayerFigures], width: int) -> Table:
    """Why every layer is divided as it is and where its stratum ends; wide terminals show the two costs apart.

    Layers of one stratum are bracketed: ``+`` at the first and the last, ``|`` between.
    """
    has_strata = any(layer.stratum_reason for layer in layers) or len({layer.stratum for layer in layers}) < len(layers)
    costs = ("recompute us", "wait us") if has_strata and width >= WIDE else ()
    table = _table(
        ("layer", "split", *["stratum"] * has_strata, *costs, "because"), words=("split", "stratum", "because")
    )
    for index, (layer, bracket) in enumerate(zip(layers, stratum_brackets(layers), strict=True)):
        cells = [str(index), f"{layer.split}/{layer.cores}", *[bracket] * has_strata]
        cells += [_cost(cost) for cost in (layer.recompute_us, layer.synchronization_us)][: len(costs)]
        table.add_row(*cells, "; ".join(filter(None, (layer.reason, layer.stratum_reason))))
    return table


def path_table(path: CriticalPath, layers: Sequence[LayerFigures]) -> Table:
    """What the run's time is made of, kind by kind, and the layers that most of it belongs to."""
    table = _table(("critical path", "us", "share", "most in layers"), words=("critical path", "most in layers"))
    for kind, us in sorted(path.by_kind.items(), key=lambda row: -row[1]):
        if us:
            parts = sorted(enumerate(path.of_kind(kind)), key=lambda row: -row[1])[:MOST_LAYERS]
            most = ", ".join(f"{index} {layers[index].name} {part:,.1f}" for index, part in parts if part)
            table.add_row(kind, f"{us:,.1f}", f"{us / path.total_us:.1%}", most)
    return table


def links_table(links: Sequence[LinkFigures]) -> Table:
    """The busiest resources of the network."""
    table = _table(("busiest links", "kind", "used", "bytes", "capacity GB/s"), words=("busiest links", "kind"))
    for link in links[:BUSIEST]:
        cells = (f"{link.utilization:.1%}", _bytes(link.bytes), f"{link.gb_per_s:,.1f}")
        table.add_row(link.name, link.kind, *cells)
    if len(links) > BUSIEST:
        table.caption = f"the {BUSIEST} busiest of {len(links)}"
    return table


def stratum_brackets(layers: Sequence[LayerFigures]) -> Iterator[str]:
    """For every layer its mark in the bracket of its stratum, with the stratum's number at the first."""
    strata = [None, *(layer.stratum for layer in layers), None]
    digits = len(str(max((layer.stratum for layer in layers), default=0)))
    for before, own, after in zip(strata, strata[1:], strata[2:]):
        mark = "" if own not in (before, after) else "|" if before == own == after else "+"
        yield f"{'' if before == own else own:>{digits}} {mark}"


def _cost(microseconds: float | None) -> str:
    return "-" if microseconds is None else f"{microseconds:.2f}"


def _waits(figures: Figures) -> str:
    """Of cores for one another."""
    found = figures.synchronization
    if not found.layers:
        return "no core waits for another"
    return f"{found.mean_us:.2f} us a core, deviation {found.deviation_us:.2f}, in {_plural(found.layers, 'layer')}"


def _layer_cells(figures: Figures, layer: LayerFigures) -> tuple[str, ...]:
    peak = layer.latency_us * figures.peak_macs_per_us
    used = f"{layer.macs / peak:.1%}" if layer.macs and peak else "-"
    share = f"{layer.latency_us / figures.latency_us:.1%}"
    return (f"{layer.cycles:,}", share, used, _bytes(layer.dram_bytes), str(sum(layer.tiles)),
            f"{layer.split}/{layer.cores}", layer.name, layer.op)  # fmt: skip


def _table(columns: Sequence[str], words: Sequence[str] = ()) -> Table:
    """A table of numbers, but for the columns `words`."""
    table = Table(box=None, header_style="bold", caption_justify="left", padding=(0, 1))
    for name in columns:
        is_long = name in ("node", "operators", "because", "most in layers")
        table.add_column(name, justify="left" if name in words else "right", no_wrap=not is_long, overflow="fold")
    return table


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _us(microseconds: float) -> str:
    return f"{microseconds / 1000:,.3f} ms" if microseconds >= 10_000 else f"{microseconds:,.1f} us"


def _bytes(count: int) -> str:
    for limit, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= limit:
            return f"{count / limit:,.2f} {unit}"
    return f"{count} B"
