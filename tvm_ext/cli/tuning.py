"""``npuc tune``: strategies and core counts of a model, timed on the emulator's clock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tvm_ext.cli.options import DEFAULT_MACHINE, FILE, parse_shapes, talk_options
from tvm_ext.cli.talk import Talk

if TYPE_CHECKING:
    from rich.table import Table

    from tvm_ext.tuning import Record


@click.command("tune")
@click.argument("model", type=FILE)
@click.option("-o", "--output", "--records", "records", type=FILE, required=True, metavar="FILE.jsonl",
              help="Where the records are kept; those that are there are not measured again.")  # fmt: skip
@click.option("--machine", metavar="NAME|FILE.toml", default=DEFAULT_MACHINE, show_default=True)
@click.option("--shapes", "--input-shapes", metavar="TEXT", help='Shapes of dynamic inputs: "input:[1,3,224,224]".')
@click.option("--kernels/--no-kernels", default=True, help="Let the vector processors run what the engines cannot.")
@talk_options
def tune_command(
    model: Path, records: Path, machine: str, shapes: str | None, kernels: bool, verbose: bool, quiet: bool
) -> None:
    """Time every strategy on every count of cores for the ONNX file MODEL, and write down each.

    Compile with the best by --tuning-records FILE.jsonl.
    """
    talk = Talk(verbose, quiet)
    talk.set_up_log()
    found = tune_file(model, records, machine, parse_shapes(shapes) if shapes else {}, talk, kernels=kernels)
    talk.show(tuning_table(found))


def tune_file(
    model: Path, records: Path, machine_name: str, shapes: dict[str, tuple[int, ...]], talk: Talk, *, kernels: bool
) -> list[Record]:
    """Every record of the model on the machine, the fastest first."""
    from npu_backend.files import check_writable
    from npu_backend.machine import load_machine
    from tvm_ext.driver import front_end_options, import_model
    from tvm_ext.tuning import model_key, tune

    check_writable(records)
    machine = load_machine(machine_name)
    with talk.progress("tune") as step:
        step("import", None)
        front = import_model(model, shapes, **front_end_options(machine, kernels=kernels))
        key = model_key(model, shapes, kernels=kernels)
        found = [*tune(list(front.partitioned.graphs.values()), key, machine, records, step)]
    return sorted(
        found, key=lambda record: (record.latency_us is None, record.latency_us or 0.0, record.cores, record.strategy)
    )


def tuning_table(records: Sequence[Record]) -> Table:
    """The records as a table."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in ("strategy", "cores", "latency us", "compile s"):
        table.add_column(column, justify="left" if column == "strategy" else "right")
    for record in records:
        latency = "does not fit" if record.latency_us is None else f"{record.latency_us:,.1f}"
        table.add_row(record.strategy, str(record.cores), latency, f"{record.compile_seconds:.1f}")
    return table
