"""``npuc report``: a compiled model's figures, choices and timeline as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvm_ext.cli.options import FILE, PlanOptions, plan_options, talk_options
from tvm_ext.cli.quantizing import QuantizeOptions, quantize_options, source_of
from tvm_ext.cli.running import RunOptions, compiled_model, execute, with_network
from tvm_ext.cli.talk import Talk

if TYPE_CHECKING:
    from npu_backend.report.document import Run
    from npu_backend.report.figures import TimedProgram


@click.command("report")
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, metavar="FILE.html", help="The file to write.")
@plan_options
@quantize_options
@talk_options
def report_command(model: Path, output: Path, verbose: bool, quiet: bool, **given: Any) -> None:
    """Compile the ONNX file MODEL, or take a package, time it, and write the figures as a page to look at.

    The page needs no other file and no internet: cores, the critical path, how busy each link is, layers with the
    reasons of their choices, and what each engine does when.
    """
    from npu_backend.files import check_writable, write_atomically
    from npu_backend.report.page import report_page

    talk = Talk(verbose, quiet)
    talk.set_up_log()
    check_writable(output)
    plan = PlanOptions(**{name: given.pop(name) for name in PlanOptions.__dataclass_fields__})
    run, timed = _timed(model, plan, QuantizeOptions.taken_from(given), talk)
    with talk.progress("write"):
        write_atomically(output, report_page(run, timed))
    talk.show(f"{output}: {run.model} on {run.machine}, {run.figures.latency_us:,.1f} us,"
              f" {len(run.figures.layers)} layers")  # fmt: skip


def _timed(
    model: Path, plan: PlanOptions, quantizing: QuantizeOptions, talk: Talk
) -> tuple[Run, tuple[TimedProgram, ...]]:
    options = RunOptions(timing_only=True)
    with source_of(model, plan, quantizing, talk) as source:
        compiled = compiled_model(source.path, plan, options, talk)
        run, timed = execute(source, compiled, None, options, talk)
    return with_network(run, timed), timed
