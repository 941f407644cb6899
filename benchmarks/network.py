"""The on-chip network: `python -m benchmarks.network`: speed-up by cores, gains by topology, compiling for 64 cores."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import onnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.network_measure import CORES, PARTS, NetworkCase, NetworkRow, cases, measure
from benchmarks.network_tables import sheets
from benchmarks.provenance import ROOT, UserMistake, commit
from models import NETWORKS
from models.boundary import with_codes_outside
from models.quantize import build_quantized
from npu_backend.errors import NpuError, OptionError
from npu_backend.files import check_writable, write_atomically
from npu_backend.strategies import STRATEGIES
from tvm_ext.bench.measure import Imported, import_file
from tvm_ext.bench.page import read_page, rewrite_page

STRATEGY = "stratum"
CALIBRATION_IMAGES = 1  # clocks do not depend on values
TABLE_COLUMNS = 140


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only these; may be repeated.")
@click.option("--networks", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these; may be repeated.")
@click.option("--cores", multiple=True, type=click.Choice([str(count) for count in CORES]),
              help="Only these in scaling and compile; may be repeated.")  # fmt: skip
@click.option("--strategy", type=click.Choice(list(STRATEGIES)), default=STRATEGY, show_default=True)
@click.option("--size", type=int, help="Input height and width in pixels; the paper's by default.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE",
              help="Write every row there as it comes; rows that it has already are not measured again.")  # fmt: skip
@click.option("--markdown", "page", type=click.Path(path_type=Path), metavar="FILE",
              help="Rewrite the sections of a page, between <!-- begin NAME --> and <!-- end NAME -->.")  # fmt: skip
def main(
    parts: tuple[str, ...], networks: tuple[str, ...], cores: tuple[str, ...], strategy: str, size: int | None,
    json_path: Path | None, page: Path | None,
) -> None:  # fmt: skip
    """Six networks on 1 to 64 cores and on six topologies; timing only."""
    try:
        if page is not None:
            read_page(page)
        rows = _kept(json_path, size)
        counts = [int(count) for count in cores] or list(CORES)
        for name in networks or tuple(NETWORKS):
            _measure_network(rows, cases(name, parts or PARTS, counts), strategy, size, json_path)
        shown = sheets(rows)
        console = Console() if sys.stdout.isatty() else Console(width=TABLE_COLUMNS)
        for sheet in shown:
            console.print(sheet.rich())
        if page is not None:
            stamp = f"`python -m benchmarks.network`, strategy `{strategy}`, commit {commit()[0] or 'unknown'}:\n\n"
            rewrite_page(page, {sheet.name: stamp + sheet.markdown() for sheet in shown})
    except NpuError as error:
        raise UserMistake(str(error)) from error


def _kept(path: Path | None, size: int | None) -> list[NetworkRow]:
    """The rows of an earlier run of the same commit.

    Raises OptionError for a file of another commit or size, or that is none of this command's.
    """
    if path is None:
        return []
    check_writable(path)
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        document = json.loads(path.read_text("utf-8"))
        rows = [NetworkRow(**row) for row in document["rows"]]
        measured = document["commit"], document["size"]
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(f"--json {path} is no file of this command: {error}; name another") from error
    if measured != (commit()[0], size):
        found = f"commit {measured[0]}, size {measured[1]}"
        raise OptionError(f"--json {path} has rows of {found}; name another, or remove it")
    return rows


def _measure_network(
    rows: list[NetworkRow], wanted: Sequence[NetworkCase], strategy: str, size: int | None, path: Path | None
) -> None:
    """Appends the rows that are missing; a network is built only when there are any."""
    done = {(row.case, row.strategy) for row in rows}
    missing = [case for case in wanted if (case, strategy) not in done]
    if not missing:
        return
    shown = Console(stderr=True)
    columns = (TextColumn("{task.description:48}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="npu_network.") as folder,
        Progress(*columns, console=shown, disable=not shown.is_terminal, transient=True) as progress,
    ):
        task = progress.add_task(f"build {missing[0].model}", total=len(missing))
        model, imported = _load(missing[0].model, size, Path(folder))
        for case in missing:
            progress.update(task, description=f"{case.model} {case.machine} {case.cores} {case.variant}")
            rows.append(_alone(model, case, strategy) if case.alone else measure(imported, case, strategy))
            progress.update(task, advance=1)
            if path is not None:
                write_atomically(path, to_json(rows, size))


def _load(name: str, size: int | None, folder: Path) -> tuple[Path, Imported]:
    """The network in int8 that takes and gives codes, as a file and imported."""
    path = folder / f"{name}.onnx"
    onnx.save(with_codes_outside(build_quantized(name, size, images=CALIBRATION_IMAGES)), path)
    return path, import_file(path, computes_float=False)


def _alone(model: Path, case: NetworkCase, strategy: str) -> NetworkRow:
    command = [sys.executable, "-m", "benchmarks.network_measure", str(model), "--strategy", strategy,
               "--case", json.dumps(asdict(case))]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise click.ClickException(f"measuring {case} ended with code {done.returncode}:\n{done.stderr.strip()}")
    return NetworkRow(**json.loads(done.stdout))


def to_json(rows: Sequence[NetworkRow], size: int | None) -> bytes:
    """All rows, with the checkout they are of; `size` is that of the images where it is not the networks' own."""
    revision, changed = commit()
    document = {"commit": revision, "changed": changed, "size": size, "rows": [asdict(row) for row in rows]}
    return (json.dumps(document, indent=1) + "\n").encode()


if __name__ == "__main__":
    main()
