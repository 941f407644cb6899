"""The emulator beside ONNX Runtime on the models that others made: `python -m benchmarks.zoo`, the slowest first."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.profile import profile_table, profiled
from benchmarks.provenance import ROOT, UserMistake, commit, host
from benchmarks.zoo_measure import ZooRow
from models.zoo import FORMS, zoo_model, zoo_names
from npu_backend.errors import NpuError
from npu_backend.files import check_writable, write_atomically

# A machine with a rate for the form.
MACHINES = {"float16": "ring4", "int8": "exynos2100", "int16": "exynos2100"}
SECONDS = 2.0
TABLE_COLUMNS = 120
COLUMNS = ("model", "form", "host ops", "ONNX Runtime ms", "emulate ms", "ratio", "cosine", "max error", "equal")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--models", multiple=True, metavar="NAME", help="Only these; may be repeated. `list` shows them.")
@click.option("--form", "forms", multiple=True, type=click.Choice(FORMS), default=FORMS[:2], show_default=True,
              help="Float models in half precision, or quantised; may be repeated.")  # fmt: skip
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures there.")
@click.option("--profile", is_flag=True, help="Also where the emulator's time goes, by perf, kernel by kernel.")
def main(models: tuple[str, ...], forms: tuple[str, ...], json_path: Path | None, profile: bool) -> None:
    """The emulator on one thread beside ONNX Runtime on one, model by model."""
    known = zoo_names()
    if models == ("list",):
        click.echo("\n".join(known))
        return
    unknown = [name for name in models if name not in known]
    if unknown:
        raise UserMistake(f"no model {unknown[0]!r}; choose from {', '.join(known)}")
    try:
        if json_path is not None:
            check_writable(json_path)
        rows = [*_rows(models or known, forms, profile=profile)]
        _show(rows)
        if json_path is not None:
            write_atomically(json_path, _to_json(rows))
    except NpuError as error:
        raise UserMistake(str(error)) from error


def _rows(names: Sequence[str], forms: Sequence[str], *, profile: bool) -> Iterator[ZooRow]:
    for name in names:
        for form in (form for form in forms if form in zoo_model(name).forms):
            click.echo(f"{name} in {form}", err=True)
            yield _measure(name, form, profile=profile)


def _measure(name: str, form: str, *, profile: bool) -> ZooRow:
    command = [sys.executable, "-m", "benchmarks.zoo_measure", name, "--form", form, "--machine", MACHINES[form],
               "--seconds", str(SECONDS)]  # fmt: skip
    if profile:
        text, kernels = profiled(command)
        Console(width=TABLE_COLUMNS).print(profile_table(f"{name} in {form}", kernels))
    else:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        text = done.stdout if done.returncode == 0 else _failure(name, form, done.stderr)
    return ZooRow(**json.loads(text))


def _failure(name: str, form: str, stderr: str) -> str:
    """A bug of ours, told in its row, so that the other models are measured."""
    lines = stderr.strip().splitlines() or ["no message"]
    return json.dumps(asdict(ZooRow(name, form, error=lines[-1])))


def _show(rows: Sequence[ZooRow]) -> None:
    table = Table(title=f"one inference on {host().processor}, one thread, medians; the slowest first")
    for column in (
        "model",
        "form",
        "host ops",
        "ONNX Runtime ms",
        "emulate ms",
        "ratio",
        "cosine",
        "max error",
        "equal",
    ):
        table.add_column(column, justify="left" if column in ("model", "form") else "right")
    for row in sorted(rows, key=lambda row: -row.ratio):
        if row.error is None:
            table.add_row(*_cells(row))
    console = Console() if sys.stdout.isatty() else Console(width=TABLE_COLUMNS)
    console.print(table)
    for row in rows:
        if row.error is not None:
            console.print(f"{row.model} in {row.form}: {row.error}", markup=False)


def _cells(row: ZooRow) -> tuple[str, ...]:
    cosine = "-" if row.cosine is None else f"{row.cosine:.6f}"
    error = "-" if row.max_relative is None else f"{row.max_relative:.2g}"
    return (row.model, row.form, str(row.host_ops), f"{row.onnxruntime_ms:.2f}", f"{row.run_ms:.2f}",
            f"{row.ratio:.2f}", cosine, error, f"{1 - row.mismatches / row.elements:.1%}")  # fmt: skip


def _to_json(rows: Sequence[ZooRow]) -> bytes:
    revision, changed = commit()
    document = {"commit": revision, "changed": changed, "host": asdict(host()), "machines": MACHINES,
                "rows": [asdict(row) for row in rows]}  # fmt: skip
    return (json.dumps(document, indent=1) + "\n").encode()


if __name__ == "__main__":
    main()
