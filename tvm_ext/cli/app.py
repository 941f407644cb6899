"""The commands in one group, and how each of them ends.

Exit codes: 0; 1 when a ``--verify`` or ``--check`` failed; 2 and one message for what the user can mend; 130 after
Ctrl-C; 141 when the reader of a pipe has gone. Anything else is our own bug, with its traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from tvm_ext.cli.benching import bench_command
from tvm_ext.cli.compiling import compile_command
from tvm_ext.cli.disassembling import disasm_command
from tvm_ext.cli.listing import machines_command, ops_command
from tvm_ext.cli.reporting import report_command
from tvm_ext.cli.running import run_command
from tvm_ext.cli.tuning import tune_command

USER_MISTAKE = 2
INTERRUPTED = 130
PIPE_CLOSED = 141


class _ClosedPipeError(Exception):
    """Standard output's reader has gone; click would end with the code of a failed verification."""


class _Group(click.Group):
    """Turns the errors that a user can mend into click's."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException):
            raise
        except BrokenPipeError as error:
            raise _ClosedPipeError from error
        # Evaluated only when something was raised: importing the errors takes longer than --help may.
        except _npu_error() as error:
            raise click.ClickException(str(error)) from error


def _npu_error() -> type[Exception]:
    from npu_backend.errors import NpuError

    return NpuError


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="npu-backend", prog_name="npuc")
def npuc() -> None:
    """Compile ONNX models for multicore mobile NPUs and run them on the emulator."""


for _command in (
    compile_command,
    run_command,
    tune_command,
    report_command,
    machines_command,
    ops_command,
    disasm_command,
    bench_command,
):
    npuc.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs ``npuc`` and exits."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs ``npuc`` with these arguments, by default those of the process; returns the exit code."""
    try:
        status = npuc.main(args=arguments, prog_name="npuc", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return USER_MISTAKE
    except (_ClosedPipeError, BrokenPipeError):
        _discard_output()
        return PIPE_CLOSED
    except OSError as error:
        # Only standard output is written without a handler of its own.
        if sys.stdout.closed or error.filename is not None:
            raise
        _discard_output()
        click.echo(f"Error: cannot write the standard output: {error.strerror}", err=True)
        return USER_MISTAKE
    return int(status or 0)


def _discard_output() -> None:
    """What is still buffered goes nowhere, else the interpreter complains at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
