"""``npuc compile``: an ONNX file to a package, or to any stage on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvm_ext.cli.options import FILE, PlanOptions, plan_options, talk_options, tvmc_options
from tvm_ext.cli.quantizing import QuantizeOptions, quantization_lines, quantize_options, source_of, warn_of_float_model
from tvm_ext.cli.talk import LOG, Talk

if TYPE_CHECKING:
    from npu_backend.graph import Graph
    from tvm_ext.cli.options import Plan

IMPORT_STAGE = "import"
# What --dump-code knows: both are the NPU's disassembly, `npu` under the name that it has in tvmc.
CODE_FORMATS = ("asm", "npu")
_HOST = "the host's half is compiled as TVM's defaults have it"
# tvmc's flags: docs/tvmc.md has the table.
_TAKEN = {"--model-format": "onnx", "--output-format -f": "so"}
_REFUSED = {
    "--desired-layout": "the compiler chooses its layouts itself",
    "--mixed-precision": "float operators run in half precision anyhow, where the machine has it",
    "--dump-offloads": "npuc ops MODEL tells it",
    "--print-pass-times": "--verbose tells what is done, and --stop-after shows any stage",
    "--print-ir-before": "--stop-after STAGE --dump shows any stage",
    "--print-ir-after": "--stop-after STAGE --dump shows any stage",
    "--executor": "the executor is the one of this generation of TVM",
    "--runtime": "the package is for TVM's C++ runtime",
    "--module-name": "the name in the package is fixed",
    **dict.fromkeys(("--cross-compiler", "--cross-compiler-options", "--target-host"), "the package is for this host"),
    **dict.fromkeys(("--opt-level -O", "--pass-config", "--disabled-pass", "--workspace-pools"), _HOST),
}


def stage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --stop-after and --dump to a command."""
    command = click.option("--dump", is_flag=True, help="Print that stage as text.")(command)
    return click.option("--stop-after", metavar="STAGE", help=f"Stop after a pass: {IMPORT_STAGE} or one of the"
                        " compiler's (a wrong name lists them).")(command)  # fmt: skip


def _code_formats(context: click.Context, flag: click.Parameter, text: str | None) -> tuple[str, ...]:
    formats = tuple(dict.fromkeys(word.strip() for word in text.split(","))) if text is not None else ()
    for each in formats:
        if each not in CODE_FORMATS:
            raise click.BadParameter(f"{each!r} is none of {', '.join(CODE_FORMATS)}; without a word put it behind the"
                                     " model", context, flag)  # fmt: skip
    return formats


@click.command("compile")
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, metavar="PKG.tar", help="The package to write.")
@plan_options
@quantize_options
@click.option("--dump-code", is_flag=False, flag_value="asm", callback=_code_formats, metavar="[FORMATS]",
              help="Write the disassembly beside the package, as PKG.tar.asm or, with npu, PKG.tar.npu.")  # fmt: skip
@tvmc_options(_TAKEN, _REFUSED)
@stage_options
@talk_options
def compile_command(
    model: Path,
    output: Path | None,
    dump_code: tuple[str, ...],
    stop_after: str | None,
    dump: bool,
    verbose: bool,
    quiet: bool,
    **plan: Any,
) -> None:
    """Compile the ONNX file MODEL into a package that TVM's runtime alone executes."""
    talk = Talk(verbose, quiet)
    talk.set_up_log()
    quantizing = QuantizeOptions.taken_from(plan)
    options = PlanOptions(**plan)
    if stopped(model, options, quantizing, stop_after, dump, talk):
        return
    if output is None:
        raise click.UsageError("name the package to write with -o PKG.tar")
    _compile(model, output, options, quantizing, dump_code, talk)


def _compile(
    model: Path, output: Path, options: PlanOptions, quantizing: QuantizeOptions, dump_code: Sequence[str], talk: Talk
) -> None:
    from npu_backend.files import check_writable, write_atomically
    from npu_backend.program import Program
    from npu_backend.report.stages import program_text
    from tvm_ext.cli.session import compile_file
    from tvm_ext.cli.tables import host_lines
    from tvm_ext.package import write_package

    plan = options.plan(model)
    dumps = [output.with_name(f"{output.name}.{suffix}") for suffix in dump_code]
    for path in (output, *dumps):
        check_writable(path)
    with source_of(model, options, quantizing, talk) as source, talk.progress("compile") as step:
        compiled = compile_file(source.path, plan, step)
    assert compiled.package is not None
    write_package(compiled.package, output)
    for path in dumps:
        texts = [program_text(Program.from_bytes(data)) for data in compiled.programs.values()]
        write_atomically(path, "".join(texts).encode())
    talk.show(f"{output}: {compiled.name} for {compiled.machine}, {compiled.cores} cores, strategy {compiled.strategy};"
              f" NPU programs: {len(compiled.programs)}",
              *host_lines(compiled.npu_ops, compiled.vector_ops, compiled.host_ops))  # fmt: skip
    if source.quantization is not None:
        talk.show(*quantization_lines(source.quantization))
    warn_of_float_model(model, compiled.machine, compiled.npu_ops, compiled.vector_ops, compiled.host_ops)
    LOG.info("compiled in %.3f s", compiled.compile_seconds)


def stopped(
    model: Path, options: PlanOptions, quantizing: QuantizeOptions, stop_after: str | None, dump: bool, talk: Talk
) -> bool:
    """Does what --stop-after and --dump ask; False when they ask for nothing."""
    if stop_after is None:
        if dump:
            raise click.UsageError("--dump prints the stage that --stop-after names; give both")
        return False
    from npu_backend.pipeline import STAGES

    if stop_after not in (IMPORT_STAGE, *STAGES):
        raise click.UsageError(
            f"--stop-after {stop_after}: no such stage; there are {', '.join((IMPORT_STAGE, *STAGES))}"
        )
    plan = options.plan(model)
    from npu_backend.report.stages import stage_text
    from tvm_ext.driver import import_model

    with source_of(model, options, quantizing, talk) as source, talk.progress("compile") as step:
        step(IMPORT_STAGE, None)
        front = import_model(source.path, plan.shapes, **plan.front_end)
        stages = [_stage(graph, plan, stop_after) for graph in front.partitioned.graphs.values()]
    for stage in stages:
        if dump:
            click.echo(stage_text(stage), nl=False)
    talk.show(*([] if dump else [f"stopped after {stop_after}; NPU graphs: {len(stages)}"]))
    return True


class _StopError(Exception):
    """Raised by the observer at the stage asked for, which it carries."""

    def __init__(self, stage: Any) -> None:
        super().__init__("stop")
        self.stage = stage


def _stage(graph: Graph, plan: Plan, name: str) -> Any:
    from npu_backend.pipeline import compile_graph

    if name == IMPORT_STAGE:
        return graph

    def observe(done: str, stage: Any) -> None:
        if done == name:
            raise _StopError(stage)

    try:
        compile_graph(graph, plan.machine, plan.strategy, observe)
    except _StopError as stop:
        return stop.stage
    raise AssertionError(f"the pipeline never came to {name}")
