"""Programs as one static library that TVM links into its exported module: bytes, entry points and the emulator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import npu_backend.toolchain as toolchain
from tvm_ext.generation import host

_SOURCE = Path(__file__).with_name("carrier.c")
_EMULATOR = Path(toolchain.__file__).parent / "emulator"
_FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread")


def build_carrier(programs: Mapping[str, bytes], folder: Path) -> Path:
    """An object file in `folder` by which TVM calls every program under its symbol, emulator included.

    Raises ToolchainError without a C compiler.
    """
    lines = []
    for symbol, program in programs.items():
        path = folder / f"{symbol}.npu"
        path.write_bytes(program)
        lines.append(f'PROGRAM({symbol}, "{path.name}")\n')
    (folder / "programs.h").write_text("".join(lines))
    compiler = toolchain.find_compiler()
    carrier, combined = folder / "carrier.o", folder / "npu.o"
    abi = host().HEADER
    includes = [f"-I{path}" for path in (*host().include_paths(), abi.parent, _EMULATOR, folder)]
    # The assembler looks for the programs where -Wa,-I says: their path may hold any character.
    toolchain.run_compiler([*compiler, *_FLAGS, *includes, f"-Wa,-I{folder}", '-DNPU_CARRIER_PROGRAMS="programs.h"',
                            f'-DNPU_CARRIER_ABI="{abi.name}"', "-c", str(_SOURCE), "-o", str(carrier)])  # fmt: skip
    toolchain.run_compiler([*compiler, "-r", "-nostdlib", "-o", str(combined), str(carrier),
                            str(toolchain.emulator_object())])  # fmt: skip
    return combined
