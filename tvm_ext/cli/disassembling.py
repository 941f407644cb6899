"""``npuc disasm``: the instructions of a package or a program file, with the ONNX node of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from tvm_ext.cli.options import FILE

ENGINES = ("load", "store", "network", "matrix", "vector")


@click.command("disasm")
@click.argument("file", type=FILE)
@click.option("--core", type=int, metavar="N", help="Of this core only.")
@click.option("--engine", type=click.Choice(ENGINES), help="Of this engine only.")
def disasm_command(file: Path, core: int | None, engine: str | None) -> None:
    """Print the instructions of FILE, a package or a program file inside one."""
    from npu_backend.errors import OptionError
    from npu_backend.isa import Engine
    from npu_backend.program import Program
    from npu_backend.report.stages import disassembly

    for symbol, data in _programs(file).items():
        program = Program.from_bytes(data)
        if core is not None and not 0 <= core < len(program.cores):
            raise OptionError(f"--core {core}: the program has cores 0 to {len(program.cores) - 1}")
        click.echo(f"program {symbol}: {program.metadata.get('graph', symbol)}, {len(data)} bytes")
        for line in disassembly(program, core, None if engine is None else Engine[engine.upper()]):
            click.echo(line)


def _programs(file: Path) -> Mapping[str, bytes]:
    from npu_backend.errors import ProgramError
    from tvm_ext.cli.session import is_package
    from tvm_ext.package import read_package

    if is_package(file):
        return read_package(file).programs
    try:
        return {file.stem: file.read_bytes()}
    except OSError as error:
        raise ProgramError(f"{file}: the program cannot be read: {error.strerror}") from error
