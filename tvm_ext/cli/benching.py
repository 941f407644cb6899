"""``npuc bench``: the strategies on the paper's networks, beside the paper's figures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvm_ext.cli.options import DEFAULT_MACHINE, FILE, talk_options
from tvm_ext.cli.talk import LOG, Talk

if TYPE_CHECKING:
    from tvm_ext.bench.jobs import Progress
    from tvm_ext.bench.report import Provenance
    from tvm_ext.bench.rows import Rows
    from tvm_ext.bench.study import Choice, Study

FAILED = 2
CORES = (1, 2, 3)
# A compile of the largest network takes a gigabyte.
JOBS = min(4, os.cpu_count() or 1)


def _listed(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """The words of an option that may be repeated and may hold commas, each once."""
    del ctx
    words = tuple(dict.fromkeys(word.strip() for value in values for word in value.split(",")))
    if "" in words:
        raise click.BadParameter(f"{', '.join(values)!r} has an empty name", param=param)
    return words


def _numbers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """The same with whole numbers, the smallest first."""
    words = _listed(ctx, param, values)
    if not all(word.isascii() and word.isdigit() for word in words):
        raise click.BadParameter(f"{', '.join(values)!r}: write whole numbers, as 1,2,3", param=param)
    return tuple(sorted(map(int, words)))


@dataclass(frozen=True)
class BenchOptions:
    """The options as given."""

    models: tuple[Path, ...]
    networks: tuple[str, ...]
    strategies: tuple[str, ...]
    cores: tuple[int, ...]
    machine: str
    json_file: Path | None
    jobs: int


@click.command("bench")
@click.argument("models", nargs=-1, type=FILE)
@click.option("--networks", multiple=True, callback=_listed, metavar="A,B",
              help="Only these of the six networks; repeat it or use commas.")  # fmt: skip
@click.option("--strategies", multiple=True, callback=_listed, metavar="A,B", help="Only these; all by default.")
@click.option(
    "--cores", multiple=True, callback=_numbers, metavar="1,2,3", help="So many cores; 1, 2 and 3 by default."
)
@click.option("--machine", metavar="NAME|FILE.toml", default=DEFAULT_MACHINE, show_default=True, help="The machine.")
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write the figures.")
@click.option("--jobs", type=click.IntRange(1, 64), default=JOBS, show_default=True,
              help="Processes that compile at a time.")  # fmt: skip
@talk_options
def bench_command(verbose: bool, quiet: bool, **given: Any) -> int:
    """Time the networks of the CGO 2023 paper (or the ONNX files MODELS) with every strategy; compute no tensors."""
    talk = Talk(verbose, quiet)
    talk.set_up_log()
    return _bench(BenchOptions(**given), talk)


def _bench(options: BenchOptions, talk: Talk) -> int:
    from npu_backend.files import check_writable
    from tvm_ext.bench.jobs import measure_all
    from tvm_ext.bench.report import checkout

    for path in filter(None, (options.json_file,)):
        check_writable(path)
    choice, studies = _choice(options), _studies(options)
    sources = {source.name: source for study in studies for source in study.sources(choice)}
    cases = {case: None for study in studies for case in study.cases(choice)}
    provenance = checkout()
    with _progress(talk) as progress:
        rows = measure_all(tuple(sources.values()), tuple(cases), options.jobs, progress)
    _write(options, choice, studies, rows, provenance)
    _show(choice, studies, rows, provenance, talk)
    return FAILED if rows.failures else 0


def _choice(options: BenchOptions) -> Choice:
    from npu_backend.machine import load_machine
    from npu_backend.strategies import STRATEGIES, strategy_named
    from tvm_ext.bench.sources import files, networks
    from tvm_ext.bench.study import Choice

    machine = load_machine(options.machine)
    for cores in options.cores:
        machine.take(cores)
    chosen = options.cores or tuple(count for count in CORES if count <= len(machine.cores))
    sources = files(options.models)
    if options.networks or not sources:
        sources += networks(options.networks)
    return Choice(tuple(sources), machine, chosen, tuple(map(strategy_named, options.strategies or STRATEGIES)))


def _studies(options: BenchOptions) -> list[Study]:
    from tvm_ext.bench.ladder import Ladder

    return [Ladder()]


def _write(options: BenchOptions, choice: Choice, studies: Sequence[Study], rows: Rows, provenance: Provenance) -> None:
    from npu_backend.files import write_atomically
    from npu_backend.report.document import to_json
    from tvm_ext.bench.report import document

    if options.json_file is not None:
        write_atomically(options.json_file, to_json(document(choice, studies, rows, provenance)))


def _show(choice: Choice, studies: Sequence[Study], rows: Rows, provenance: Provenance, talk: Talk) -> None:
    talk.show(f"{choice.machine.name}, {provenance}")
    for study in studies:
        for sheet in study.sheets(choice, rows):
            talk.show("", sheet.rich())
    for failure in rows.failures:
        click.echo(f"Error: {failure}", err=True)


@contextmanager
def _progress(talk: Talk) -> Iterator[Progress]:
    """A bar of the cases; a line of the log for each with --verbose, nothing else on what is no terminal."""
    if talk.quiet or not sys.stderr.isatty():
        yield lambda done, total, what: LOG.info("%d of %d: %s", done, total, what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:42}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("start", total=None)
        yield lambda done, total, what: bar.update(task, description=what, total=total, completed=done)
