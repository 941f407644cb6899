"""Beside Vela: `python -m benchmarks.vela`, on a machine with the resources that Arm's compiler assumes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.provenance import UserMistake, commit
from benchmarks.vela_measure import AS_IT_IS, VARIANTS, VELA, VelaRow, load, measure
from npu_backend import load_machine
from npu_backend.errors import NpuError
from npu_backend.files import check_writable, write_atomically
from npu_backend.machine_types import Machine
from npu_backend.strategies import STRATEGIES
from tvm_ext.bench.page import read_page, rewrite_page
from tvm_ext.bench.sheet import Sheet, number, percent

MACHINE = "ethos_u85_2048"
STRATEGY = "single"
LAYERS = 8
TABLE_COLUMNS = 130
LIMIT = 1.0


@dataclass(frozen=True)
class VelaCase:
    """A network, a strategy, and what is changed in the machine."""

    model: str
    strategy: str
    variant: str


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--networks", multiple=True, type=click.Choice(list(VELA)), help="Only these; may be repeated.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures there.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), metavar="FILE",
              help="Rewrite the sections of a page, between <!-- begin NAME --> and <!-- end NAME -->.")  # fmt: skip
def main(networks: tuple[str, ...], json_path: Path | None, page: Path | None) -> None:
    """Emulated latency and DRAM traffic beside the estimates of Vela 5.2, weights uncompressed."""
    try:
        if json_path is not None:
            check_writable(json_path)
        if page is not None:
            read_page(page)
        machine = load_machine(MACHINE)
        rows = _measure_all(networks or tuple(VELA), machine)
        sheets = tables(rows)
        _show(sheets)
        if json_path is not None:
            write_atomically(json_path, to_json(rows))
        if page is not None:
            rewrite_page(page, {sheet.name: sheet.markdown() for sheet in sheets})
    except NpuError as error:
        raise UserMistake(str(error)) from error


def cases(model: str) -> list[VelaCase]:
    """What is measured of a network: all strategies on the machine as it is, and one on its variants."""
    return [
        *(VelaCase(model, strategy, AS_IT_IS) for strategy in STRATEGIES),
        *(VelaCase(model, STRATEGY, variant) for variant in VARIANTS if variant != AS_IT_IS),
    ]


def _measure_all(networks: Sequence[str], machine: Machine) -> tuple[VelaRow, ...]:
    shown = Console(stderr=True)
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    with Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=sum(len(cases(name)) for name in networks))
        for name in networks:
            progress.update(task, description=f"build {name}")
            imported = load(name)
            for case in cases(name):
                progress.update(task, description=f"{name} {case.strategy} {case.variant}")
                rows.append(measure(imported, name, case.strategy, machine, case.variant))
                progress.update(task, advance=1)
    return tuple(rows)


def tables(rows: Sequence[VelaRow]) -> tuple[Sheet, ...]:
    """The comparison, what changes in the machine would change, and the layers that move the most."""
    names = list(dict.fromkeys(row.model for row in rows))
    as_is = [row for row in rows if row.variant == AS_IT_IS]
    return (
        _comparison(names, as_is),
        _variants([row for row in rows if row.strategy == STRATEGY]),
        *(_layers(row) for row in as_is if row.strategy == STRATEGY),
    )


def _comparison(names: Iterable[str], rows: Sequence[VelaRow]) -> Sheet:
    lines = []
    for name in names:
        of_name = [row for row in rows if row.model == name]
        lines += [_line(row, row.strategy) for row in of_name if row.strategy == STRATEGY]
        lines.append(_line(min(of_name, key=lambda row: row.latency_us), "fastest: {}"))
        lines.append(_line(min(of_name, key=lambda row: row.dram_bytes), "least traffic: {}"))
        lines.append((name, "Vela", number(VELA[name].latency_ms, 3), "", number(VELA[name].dram_mb, 1), "", "", ""))
    columns = ("network", "plan", "latency ms", "of Vela's", "DRAM MB", "of Vela's", "constants MB", "of the MAC peak")
    note = (f"Asked for: at most {LIMIT:.1f}x. Vela 5.2 estimates TFLite models of the same networks, weight"
            " compression counted; here weights are as they are.")  # fmt: skip
    return Sheet("comparison", f"{MACHINE} beside Vela", columns, tuple(lines), note, words=2)


def _line(row: VelaRow, plan: str) -> tuple[str, ...]:
    return (row.model, plan.format(row.strategy), number(row.latency_us / 1000, 3), f"{row.latency_ratio:.2f}x",
            number(row.dram_bytes / 1e6, 1), f"{row.dram_ratio:.2f}x", number(row.constant_bytes / 1e6, 1),
            percent(row.utilization))  # fmt: skip


def _variants(rows: Sequence[VelaRow]) -> Sheet:
    lines = [(row.model, row.variant, number(row.latency_us / 1000, 3), f"{row.latency_ratio:.2f}x",
              number(row.dram_bytes / 1e6, 1), f"{row.dram_ratio:.2f}x") for row in rows]  # fmt: skip
    columns = ("network", "machine", "latency ms", "of Vela's", "DRAM MB", "of Vela's")
    return Sheet("variants", f"Other machines, strategy {STRATEGY}", columns, tuple(lines), words=2)


def _layers(row: VelaRow) -> Sheet:
    most = sorted(row.layers, key=lambda layer: -layer.dram_bytes)[:LAYERS]
    lines = [(layer.name, layer.op, number(layer.dram_bytes / 1e6), percent(layer.dram_bytes / row.dram_bytes),
              number(layer.latency_us, 1)) for layer in most]  # fmt: skip
    columns = ("layer", "operators", "DRAM MB", "of the network's", "latency us")
    return Sheet(f"layers-{row.model}", f"{row.model}: the layers that move the most", columns, tuple(lines), words=2)


def _show(sheets: Iterable[Sheet]) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=TABLE_COLUMNS)
    for sheet in sheets:
        console.print(sheet.rich())


def to_json(rows: Sequence[VelaRow]) -> bytes:
    """The rows with their ratios, and Vela's figures."""
    revision, changed = commit()
    document = {"commit": revision, "changed": changed, "machine": MACHINE, "limit": LIMIT,
                "vela": {name: asdict(estimate) for name, estimate in VELA.items()},
                "rows": [_row(row) for row in rows]}  # fmt: skip
    return (json.dumps(document, indent=1) + "\n").encode()


def _row(row: VelaRow) -> dict[str, Any]:
    return asdict(row) | {"latency_ratio": row.latency_ratio, "dram_ratio": row.dram_ratio}


if __name__ == "__main__":
    main()
