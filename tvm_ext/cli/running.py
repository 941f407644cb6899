"""``npuc run``: an ONNX file or a package on the emulator, with its figures."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median, pstdev
from typing import TYPE_CHECKING, Any

import click

from tvm_ext.cli.compiling import stage_options, stopped
from tvm_ext.cli.options import FILE, PlanOptions, plan_options, talk_options, tvmc_options
from tvm_ext.cli.quantizing import (
    QuantizeOptions,
    Source,
    quantization_lines,
    quantize_options,
    source_of,
    warn_of_float_model,
)
from tvm_ext.cli.talk import LOG, Talk

if TYPE_CHECKING:
    from npu_backend.report.document import Run, Verification
    from npu_backend.report.figures import TimedProgram
    from tvm_ext.cli.session import Compiled
    from tvm_ext.cli.tensors import Array
    from tvm_ext.cli.verify import Tolerance
    from tvm_ext.driver import PackageRunner

CHECK_VARIABLE = "NPU_CHECK"
# A second compile, for one core, is worth its time when the first took no longer than this.
BASELINE_SECONDS = 30.0
FAILED = 1
# tvmc's flags: docs/tvmc.md has the table.
_TAKEN = {"--device": "cpu"}
_REFUSED = {
    "--profile": "npuc report PACKAGE shows where the NPU's time goes",
    "--end-to-end": "inputs and outputs lie in this process",
    "--list-options": "there is no device but the emulator",
    **dict.fromkeys(("--rpc-key", "--rpc-tracker"), "the emulator runs in this process"),
}


@dataclass(frozen=True)
class RunOptions:
    """What to do with the compiled model."""

    inputs: Path | None = None
    outputs: Path | None = None
    fill_mode: str | None = None
    print_time: bool = False
    print_top: int | None = None
    repeat: int | None = None
    number: int | None = None
    verify: bool = False
    reference: Path | None = None
    tolerance_lsb: float = 0.0
    tolerance: float | None = None
    check: bool = False
    timing_only: bool = False
    threads: int = 1
    json_file: Path | None = None
    baseline: bool | None = None


@click.command("run")
@click.argument("model", type=FILE)
@plan_options
@quantize_options
@click.option("--inputs", "-i", type=FILE, metavar="FILE.npz", help="The inputs by name; made up by default.")
@click.option("--outputs", "-o", type=FILE, metavar="FILE.npz", help="Write the outputs.")
@click.option(
    "--fill-mode",
    type=click.Choice(["random", "zeros", "ones"]),
    help="How to make up inputs; random (always the same) by default. Beside --inputs: those it lacks.",
)
@click.option("--print-time", is_flag=True, help="Print what compiling and emulating took.")
@click.option(
    "--repeat", type=click.IntRange(min=1), metavar="N", help="With --print-time: emulate so many times more."
)
@click.option("--number", type=click.IntRange(min=1), metavar="N", help="With --print-time: runs that one of these is.")
@click.option("--print-top", type=click.IntRange(min=1), metavar="N", help="Print each output's N largest values and"
              " where they are.")  # fmt: skip
@tvmc_options(_TAKEN, _REFUSED)
@click.option("--verify", is_flag=True, help="Compare every output element with ONNX Runtime on the original file.")
@click.option("--reference", type=FILE, metavar="FILE.onnx", help="The original file, to verify a package.")
@click.option("--tolerance-lsb", type=click.FloatRange(min=0), default=0.0, metavar="N",
              help="Let --verify accept differences up to N steps of the output's codes; 0 by default.")  # fmt: skip
@click.option("--tolerance", type=click.FloatRange(min=0), metavar="SHARE",
              help="Let --verify accept errors of float arithmetic up to this share of an output (root mean squares);"
                   " by default 0.02 where the NPU computes in half precision, 0.001 on 16-bit codes.")  # fmt: skip
@click.option("--check", is_flag=True, help="Verify every stage; trap races, unwritten reads and semaphores left over.")
@click.option("--timing-only", is_flag=True, help="Only the clock: compute no tensors.")
@click.option("--threads", type=int, default=1, metavar="N", help="Host threads of the emulator; 1 by default.")
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write the figures.")
@click.option("--baseline/--no-baseline", default=None,
              help="Also compile for one core, for the speed-up; by default when the first compile took less than"
                   f" {BASELINE_SECONDS:.0f} s and the figures are printed.")  # fmt: skip
@stage_options
@talk_options
def run_command(model: Path, verbose: bool, quiet: bool, stop_after: str | None, dump: bool, **given: Any) -> int:
    """Compile the ONNX file MODEL, or take a package, and run it on the emulator."""
    talk = Talk(verbose, quiet)
    talk.set_up_log()
    plan = PlanOptions(**{name: given.pop(name) for name in PlanOptions.__dataclass_fields__})
    quantizing = QuantizeOptions.taken_from(given)
    options = RunOptions(**given)
    _check_options(options)
    if stopped(model, plan, quantizing, stop_after, dump, talk):
        return 0
    return _run(model, plan, quantizing, options, talk)


def _check_options(options: RunOptions) -> None:
    if options.timing_only:
        computing = ("inputs", "outputs", "fill_mode", "print_top", "repeat", "number", "verify", "check")
        flags = [f"--{name.replace('_', '-')}" for name in computing if getattr(options, name)]
        if flags:
            raise click.UsageError(f"--timing-only computes no tensors, so it leaves nothing for {', '.join(flags)}")
    if not options.print_time and (options.repeat or options.number):
        raise click.UsageError("--repeat and --number say what --print-time measures; give it too")
    if options.reference is not None and not options.verify:
        raise click.UsageError("--reference is what --verify compares with; give both")
    if not 1 <= options.threads <= 1024:
        raise click.UsageError(f"--threads {options.threads}: use 1 to 1024")


def _run(model: Path, plan: PlanOptions, quantizing: QuantizeOptions, options: RunOptions, talk: Talk) -> int:
    from npu_backend.errors import EmulatorError
    from npu_backend.files import check_writable, write_atomically
    from npu_backend.report.document import run_document, to_json

    for path in filter(None, (options.outputs, options.json_file)):
        check_writable(path)
    inputs = _given_inputs(options)
    try:
        with source_of(model, plan, quantizing, talk) as source:
            compiled = compiled_model(source.path, plan, options, talk)
            run, timed = execute(source, compiled, inputs, options, talk)
            if options.json_file is not None or talk.verbose:
                run = with_network(run, timed)
    except EmulatorError as error:
        if not options.check:
            raise
        click.echo(f"Error: --check: {error}", err=True)
        return FAILED
    if options.json_file is not None:
        write_atomically(options.json_file, to_json(run_document(run)))
    _show(run, timed, compiled, plan, options, talk)
    warn_of_float_model(model, compiled.machine, compiled.npu_ops, compiled.vector_ops, compiled.host_ops)
    return FAILED if run.verify is not None and run.verify.failures else 0


def _given_inputs(options: RunOptions) -> dict[str, Array] | None:
    from tvm_ext.npz import read_npz

    return None if options.inputs is None else read_npz(options.inputs)


def compiled_model(model: Path, plan: PlanOptions, options: RunOptions, talk: Talk) -> Compiled:
    """The model compiled by the plan, or the package read.

    Raises OptionError for options that a package leaves no room for, and what compiling and reading do.
    """
    from npu_backend.errors import OptionError
    from tvm_ext.cli.session import compile_file, is_package, read_compiled

    if not is_package(model):
        with talk.progress("compile") as step:
            return compile_file(model, plan.plan(model), step, programs_only=options.timing_only, check=options.check)
    if plan.given():
        raise OptionError(f"{model} is compiled already: leave out {', '.join(plan.given())} or name the ONNX file")
    if options.verify and options.reference is None:
        raise OptionError(f"{model} is a package: name the ONNX file it was made of with --reference FILE.onnx")
    if options.baseline:
        raise OptionError(f"{model} is a package: --baseline compiles a second time, so name the ONNX file")
    return read_compiled(model)


def execute(
    source: Source, compiled: Compiled, inputs: Mapping[str, Array] | None, options: RunOptions, talk: Talk
) -> tuple[Run, tuple[TimedProgram, ...]]:
    """Computes the outputs unless it is `options.timing_only`, and times the programs."""
    from npu_backend.report.document import Run
    from npu_backend.report.figures import figures, plan_name
    from tvm_ext.cli.session import emulator_of, time_programs

    seconds, verification = 0.0, None
    if not options.timing_only:
        seconds, verification = _compute(source, compiled, inputs, options, talk)
    start = time.perf_counter()
    with talk.progress("time"), emulator_of(compiled.package) as library:
        timed = time_programs(compiled.programs.values(), library)
    seconds += time.perf_counter() - start
    run = Run(
        model=compiled.name,
        machine=compiled.machine,
        cores=compiled.cores,
        strategy=compiled.strategy,
        plan=plan_name(timed, compiled.strategy),
        figures=figures(timed, compiled.cores, compiled.io_bytes),
        npu_ops=compiled.npu_ops,
        vector_ops=compiled.vector_ops,
        host_ops=compiled.host_ops,
        compile_seconds=compiled.compile_seconds,
        emulate_seconds=None if options.timing_only else seconds,
        verify=verification,
        quantization=source.quantization,
    )
    return run, timed


def with_network(run: Run, timed: tuple[TimedProgram, ...]) -> Run:
    """The run, and how its time comes about."""
    from npu_backend.report.document import NetworkReport

    return replace(run, network=NetworkReport.of(timed))


def _compute(
    source: Source, compiled: Compiled, inputs: Mapping[str, Array] | None, options: RunOptions, talk: Talk
) -> tuple[float, Verification | None]:
    """Runs the package, writes and verifies its outputs; the seconds are those of the run alone."""
    from tvm_ext.cli.tensors import made_up_inputs, top_lines, write_outputs
    from tvm_ext.cli.verify import verify
    from tvm_ext.driver import PackageRunner

    assert compiled.package is not None
    if inputs is None or options.fill_mode is not None:
        inputs = {**made_up_inputs(compiled.package.metadata.inputs, options.fill_mode or "random"), **(inputs or {})}
    with talk.progress("emulate") as step, PackageRunner(compiled.package) as runner:
        step("run", None)
        start = time.perf_counter()
        with _checking(options.check):
            outputs = runner.run(inputs, options.threads)
        seconds = time.perf_counter() - start
        if options.repeat or options.number:
            talk.show(*_repeated(runner, inputs, options))
    if options.print_top is not None:
        talk.show(*top_lines(outputs, options.print_top))
    if options.outputs is not None:
        write_outputs(options.outputs, outputs)
    if not options.verify:
        return seconds, None
    with talk.progress("verify"):
        found = verify(options.reference or source.path, inputs, outputs, _tolerance(compiled, options))
    if source.quantization is None or options.reference is not None:
        return seconds, found
    return seconds, replace(found, reference=f"{found.reference} on the model quantised to {source.quantization.type}")


def _repeated(runner: PackageRunner, inputs: Mapping[str, Array], options: RunOptions) -> list[str]:
    """What --repeat and --number ask for, in tvmc's words: milliseconds of a run, each the mean of a repetition's."""
    number, times_ms = options.number or 1, []
    with _checking(False):
        for _ in range(options.repeat or 1):
            start = time.perf_counter()
            for _ in range(number):
                runner.run(inputs, options.threads)
            times_ms.append((time.perf_counter() - start) * 1000 / number)
    names = ("mean", "median", "max", "min", "std")
    figures = (mean(times_ms), median(times_ms), max(times_ms), min(times_ms), pstdev(times_ms))
    return ["Execution time summary, of the emulation:", "".join(f"{name + ' (ms)':>14}" for name in names),
            "".join(f"{figure:14.4f}" for figure in figures)]  # fmt: skip


def _tolerance(compiled: Compiled, options: RunOptions) -> Tolerance:
    """Eight-bit codes are exact; wider ones ONNX Runtime computes in float, and half precision rounds."""
    from tvm_ext.cli.session import layer_records
    from tvm_ext.cli.verify import FLOAT_ROUNDING, HALF_ROUNDING, PEAK, WIDE_ROUNDING, Tolerance

    layers = layer_records(compiled.programs.values())
    in_half, wide = (any(layer[name] for layer in layers) for name in ("in_float", "wide_codes"))
    usual = (
        HALF_ROUNDING
        if in_half
        else WIDE_ROUNDING
        if wide
        else FLOAT_ROUNDING
        if compiled.host_ops or compiled.vector_ops
        else 0.0
    )
    relative = usual if options.tolerance is None else options.tolerance
    return Tolerance(options.tolerance_lsb, relative, PEAK if in_half or wide else 1.0, codes_too=in_half or wide)


@contextmanager
def _checking(wanted: bool) -> Iterator[None]:
    """The package's library reads from the environment whether to check, and reports traps as RuntimeError."""
    from npu_backend.errors import EmulatorError

    before = os.environ.pop(CHECK_VARIABLE, None)
    if wanted:
        os.environ[CHECK_VARIABLE] = "1"
    try:
        yield
    except RuntimeError as error:
        raise EmulatorError(str(error)) from error
    finally:
        os.environ.pop(CHECK_VARIABLE, None)
        if before is not None:
            os.environ[CHECK_VARIABLE] = before


def _show(
    run: Run, timed: tuple[TimedProgram, ...], compiled: Compiled, plan: PlanOptions, options: RunOptions, talk: Talk
) -> None:
    from tvm_ext.cli.tables import run_tables, time_line, verification_line

    one_core_us = _one_core_us(compiled, plan, options, talk) if timed else None
    talk.show(*run_tables(run, one_core_us, all_layers=talk.verbose, width=talk.console.width))
    if options.print_time or talk.verbose:
        talk.show(time_line(run))
    if run.quantization is not None:
        talk.show(*quantization_lines(run.quantization))
    if options.check:
        talk.show("checked: no race, no read of unwritten bytes, semaphores balanced")
    if run.verify is not None:
        if run.verify.failures:
            click.echo(f"Error: {verification_line(run.verify)}", err=True)
        else:
            talk.show(verification_line(run.verify))


def _one_core_us(compiled: Compiled, plan: PlanOptions, options: RunOptions, talk: Talk) -> float | None:
    from tvm_ext.cli.session import one_core_latency_us

    wanted = compiled.compile_seconds < BASELINE_SECONDS if options.baseline is None else options.baseline
    if talk.quiet or not wanted or not compiled.graphs or (compiled.cores == 1 and not options.baseline):
        return None
    LOG.info("compile for one core")
    with talk.progress("compile for one core"):
        return one_core_latency_us(compiled.graphs, plan.plan().machine)
