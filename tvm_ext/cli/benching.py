"""``npuc bench``: the strategies on the paper's networks, beside the paper's figures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
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
STUDIES = ("ladder", "stem", "traffic", "sensitivity")
PLOT_SUFFIXES = (".png", ".svg")
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
    machine: str | None
    ladder: bool
    stem: bool
    traffic: bool
    sensitivity: bool
    recorded: Path | None
    json_file: Path | None
    plots: tuple[Path, ...]
    markdown: Path | None
    jobs: int

    @property
    def studies(self) -> tuple[str, ...]:
        """What was asked for, the ladder by default."""
        return tuple(name for name in STUDIES if getattr(self, name)) or STUDIES[:1]


@click.command("bench")
@click.argument("models", nargs=-1, type=FILE)
@click.option("--networks", multiple=True, callback=_listed, metavar="A,B",
              help="Only these of the six networks; repeat it or use commas.")  # fmt: skip
@click.option("--strategies", multiple=True, callback=_listed, metavar="A,B", help="Only these; all by default.")
@click.option(
    "--cores", multiple=True, callback=_numbers, metavar="1,2,3", help="So many cores; 1, 2 and 3 by default."
)
@click.option("--machine", metavar="NAME|FILE.toml", help=f"The machine; {DEFAULT_MACHINE} by default.")
@click.option("--ladder", is_flag=True, help="Every network with every strategy: what is measured by default.")
@click.option("--stem", is_flag=True, help="InceptionV3's stem with halo exchange, with strata, with both.")
@click.option("--traffic", is_flag=True, help="InceptionV3's traffic and idle time per core, by partitioning scheme.")
@click.option("--sensitivity", is_flag=True, help="The ratios where a resource of the machine is halved or doubled.")
@click.option("--all", "everything", is_flag=True, help="These four.")
@click.option("--from", "recorded", type=FILE, metavar="FILE.json",
              help="Measure nothing: show, draw and write what --json wrote earlier.")  # fmt: skip
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write the figures.")
@click.option("--plot", "plots", type=FILE, multiple=True, metavar="FILE.png|.svg",
              help="Draw the speed-ups over one core; may be repeated.")  # fmt: skip
@click.option("--markdown", type=FILE, metavar="FILE.md", help="Rewrite the page's sections of what was measured.")
@click.option("--jobs", type=click.IntRange(1, 64), default=JOBS, show_default=True,
              help="Processes that compile at a time.")  # fmt: skip
@talk_options
def bench_command(verbose: bool, quiet: bool, everything: bool, **given: Any) -> int:
    """Time the networks of the CGO 2023 paper (or the ONNX files MODELS) with every strategy; compute no tensors."""
    talk = Talk(verbose, quiet)
    talk.set_up_log()
    if everything:
        given.update(dict.fromkeys(STUDIES, True))
    return _bench(BenchOptions(**given), talk)


def _bench(options: BenchOptions, talk: Talk) -> int:
    from npu_backend.files import check_writable
    from tvm_ext.bench.page import read_page

    _check_options(options)
    for path in filter(None, (options.json_file, options.markdown, *options.plots)):
        check_writable(path)
    if options.markdown is not None:
        read_page(options.markdown)
    choice, studies, rows, provenance = _measured(options, talk) if options.recorded is None else _recorded(options)
    _write(options, choice, studies, rows, provenance)
    _show(choice, studies, rows, provenance, talk)
    return FAILED if rows.failures else 0


def _measured(options: BenchOptions, talk: Talk) -> tuple[Choice, list[Study], Rows, Provenance]:
    from tvm_ext.bench.jobs import measure_all
    from tvm_ext.bench.report import checkout
    from tvm_ext.bench.sources import distinct

    choice, studies, provenance = _choice(options), _studies(options.studies), checkout()
    sources = distinct([source for study in studies for source in study.sources(choice)])
    cases = {case: None for study in studies for case in study.cases(choice)}
    with _progress(talk) as progress:
        return choice, studies, measure_all(sources, tuple(cases), options.jobs, progress), provenance


def _recorded(options: BenchOptions) -> tuple[Choice, list[Study], Rows, Provenance]:
    from npu_backend.machine import load_machine
    from tvm_ext.bench.report import read_recorded
    from tvm_ext.bench.study import choice_of

    assert options.recorded is not None
    recorded = read_recorded(options.recorded)
    choice = choice_of(recorded.rows, load_machine(options.machine or recorded.machine))
    asked = [name for name in STUDIES if getattr(options, name)] or recorded.studies
    return choice, _studies(asked), recorded.rows, recorded.provenance


def _check_options(options: BenchOptions) -> None:
    chosen = [name for name in ("models", "networks", "strategies", "cores") if getattr(options, name)]
    if options.recorded is not None and chosen:
        raise click.UsageError(f"--from measures nothing, so it leaves nothing for {' and '.join(chosen)}")
    if not {"ladder", "sensitivity"} & set(options.studies) and (options.models or options.networks):
        raise click.UsageError("MODELS and --networks choose what --ladder and --sensitivity measure; add one of them")
    if "ladder" not in options.studies and (options.strategies or options.plots):
        raise click.UsageError("--strategies and --plot go with --ladder; add it")
    for path in options.plots:
        if path.suffix.lower() not in PLOT_SUFFIXES:
            raise click.UsageError(f"--plot {path}: name a file that ends in {' or '.join(PLOT_SUFFIXES)}")
    if options.plots and find_spec("matplotlib") is None:
        raise click.UsageError("--plot needs matplotlib: pip install 'npu-backend[bench]'")


def _choice(options: BenchOptions) -> Choice:
    from npu_backend.machine import load_machine
    from npu_backend.strategies import STRATEGIES, strategy_named
    from tvm_ext.bench.sources import Source, distinct, networks
    from tvm_ext.bench.study import Choice

    machine = load_machine(options.machine or DEFAULT_MACHINE)
    for cores in options.cores:
        machine.take(cores)
    chosen = options.cores or tuple(count for count in CORES if count <= len(machine.cores))
    sources = [Source(path.stem, path) for path in options.models]
    if options.networks or not sources:
        sources += networks(options.networks)
    return Choice(distinct(sources), machine, chosen, tuple(map(strategy_named, options.strategies or STRATEGIES)))


def _studies(names: Sequence[str]) -> list[Study]:
    from tvm_ext.bench.ladder import Ladder
    from tvm_ext.bench.sensitivity import Sensitivity
    from tvm_ext.bench.stem import Stem
    from tvm_ext.bench.traffic import Traffic

    known: dict[str, Study] = {"ladder": Ladder(), "stem": Stem(), "traffic": Traffic(), "sensitivity": Sensitivity()}
    return [study for name, study in known.items() if name in names]


def _write(options: BenchOptions, choice: Choice, studies: Sequence[Study], rows: Rows, provenance: Provenance) -> None:
    from npu_backend.files import write_atomically
    from npu_backend.report.document import to_json
    from tvm_ext.bench.page import rewrite_page
    from tvm_ext.bench.report import document, sections

    if options.json_file is not None:
        write_atomically(options.json_file, to_json(document(choice, studies, rows, provenance)))
    if options.plots:
        from tvm_ext.bench.plot import save_figure

        save_figure(choice, rows, options.plots)
    if options.markdown is not None:
        rewrite_page(options.markdown, sections(choice, studies, rows, provenance))


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
