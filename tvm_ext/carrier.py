"""Programs as one static library that TVM links into its exported module: bytes, entry points, kernels, emulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import npu_backend.toolchain as toolchain
from tvm_ext.generation import host
from tvm_ext.tir_native import compile_kernels

_SOURCE = Path(__file__).with_name("carrier.c")
_EMULATOR = Path(toolchain.__file__).parent / "emulator"
_FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread")


def build_carrier(programs: Mapping[str, bytes], folder: Path, kernels: Sequence[str] = ()) -> Path:
    """An object file in `folder` by which TVM calls every program under its symbol, emulator included.

    `kernels`: symbols of the native functions that the programs call. Raises ToolchainError without a C compiler.
    """
    lines = []
    for symbol, program in programs.items():
        path = folder / f"{symbol}.npu"
        path.write_bytes(program)
        lines.append(f'PROGRAM({symbol}, "{path.name}")\n')
    (folder / "programs.h").write_text("".join(lines))
    objects = compile_kernels(kernels, folder)
    (folder / "kernels.h").write_text("".join(f"KERNEL({symbol})\n" for symbol in kernels))
    compiler, abi = toolchain.find_compiler(), host().HEADER
    carrier, combined = folder / "carrier.o", folder / "npu.o"
    includes = [f"-I{path}" for path in (*host().include_paths(), abi.parent, _EMULATOR, folder)]
    defines = {"ABI": abi.name, "PROGRAMS": "programs.h", "KERNELS": "kernels.h"}
    # The assembler looks for the programs where -Wa,-I says: their path may hold any character.
    toolchain.run_compiler([*compiler, *_FLAGS, *includes, f"-Wa,-I{folder}",
                            *(f'-DNPU_CARRIER_{name}="{value}"' for name, value in defines.items()),
                            "-c", str(_SOURCE), "-o", str(carrier)])  # fmt: skip
    toolchain.run_compiler([*compiler, "-r", "-nostdlib", "-o", str(combined), str(carrier), *map(str, objects),
                            str(toolchain.emulator_object())])  # fmt: skip
    return combined
