"""The command: builds the networks, measures each in a process of its own, prints tables and writes JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.provenance import ROOT, UserMistake, commit, host
from benchmarks.rows import NetworkRow, Report
from benchmarks.tables import tables
from models import NETWORKS
from models.quantize import build_quantized
from npu_backend import load_machine
from npu_backend.errors import NpuError
from npu_backend.files import check_writable, write_atomically

MACHINE = "exynos2100"
STRATEGY = "stratum"
# At each thread count of each network; every network is measured at least three times whatever it takes.
SECONDS, QUICK_SECONDS = 6.0, 1.0
QUICK_NETWORKS = ("mobilenet_v2", "inception_v3")
TABLE_COLUMNS = 120


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help=f"Only {' and '.join(QUICK_NETWORKS)}, {QUICK_SECONDS:g} s each.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures there.")
@click.option("--networks", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these; may be repeated.")
@click.option("--threads", multiple=True, type=click.IntRange(1, 64), default=(1, 2), show_default=True,
              help="Host threads; may be repeated.")  # fmt: skip
@click.option("--size", type=int, help="Input height and width in pixels; the paper's by default.")
def main(
    quick: bool, json_path: Path | None, networks: tuple[str, ...], threads: tuple[int, ...], size: int | None
) -> None:
    """The emulator and the compiler beside ONNX Runtime."""
    names = networks or (QUICK_NETWORKS if quick else tuple(NETWORKS))
    try:
        if json_path is not None:
            check_writable(json_path)
        rows = _measure_all(names, size, threads, QUICK_SECONDS if quick else SECONDS)
        report = Report(MACHINE, STRATEGY, *commit(), host(), rows)
        _show(report)
        if json_path is not None:
            write_atomically(json_path, report.to_json().encode())
    except NpuError as error:
        raise UserMistake(str(error)) from error


def _measure_all(
    names: tuple[str, ...], size: int | None, threads: tuple[int, ...], seconds: float
) -> tuple[NetworkRow, ...]:
    shown = Console(stderr=True)
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="npu_bench.") as folder,
        Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as progress,
    ):
        task = progress.add_task("", total=2 * len(names))
        for name in names:
            progress.update(task, description=f"build {name}")
            model = Path(folder) / f"{name}.onnx"
            write_atomically(model, build_quantized(name, size).SerializeToString())
            progress.update(task, advance=1, description=f"measure {name}")
            rows.append(_measure(model, name, threads, seconds))
            progress.update(task, advance=1)
    return tuple(rows)


def _measure(model: Path, name: str, threads: tuple[int, ...], seconds: float) -> NetworkRow:
    cores = range(1, len(load_machine(MACHINE).cores) + 1)
    command = [sys.executable, "-m", "benchmarks.measure", str(model), "--name", name, "--machine", MACHINE,
               "--strategy", STRATEGY, "--seconds", str(seconds), *(f"--cores={count}" for count in cores),
               *(f"--threads={count}" for count in threads)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise click.ClickException(f"measuring {name} ended with code {done.returncode}:\n{done.stderr.strip()}")
    return NetworkRow.from_json(json.loads(done.stdout))


def _show(report: Report) -> None:
    console = Console()
    if not console.is_terminal:
        # Eighty columns, which is the default then, would fold the cells.
        console = Console(width=TABLE_COLUMNS)
    changed = " with local changes" if report.changed else ""
    console.print(
        f"{report.machine}, strategy {report.strategy}, commit {report.commit or 'unknown'}{changed}, "
        f"ONNX Runtime {report.host.onnxruntime}, {report.host.logical_processors} logical processors"
    )
    for table in tables(report):
        console.print(table)
