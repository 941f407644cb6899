"""The host's half: partitions handed to the carrier, the rest built by TVM, all exported as one shared library."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import relax

from npu_backend.errors import ToolchainError
from tvm_ext.outline import CODEGEN

_CARRIER_OPTION = "carrier"
# TVM's exported library links what the emulator needs.
_LINK_FLAGS = ("-pthread", "-lm")


def _codegen(functions: Sequence[relax.Function], options: Mapping[str, Any], _: object) -> list[tvm.runtime.Module]:
    """TVM's hook for the partitions: all of them are already in the carrier."""
    symbols = [str(function.attrs["global_symbol"]) for function in functions]
    return [tvm.runtime.load_static_library(str(options[_CARRIER_OPTION]), symbols)]


tvm_ffi.register_global_func(f"relax.ext.{CODEGEN}", _codegen, override=True)


def export_library(module: tvm.IRModule, carrier: Path | None, target: Path) -> None:
    """Builds what is left for the host with LLVM and links it with `carrier` into the shared library `target`.

    Raises ToolchainError when TVM's linker call fails.
    """
    if carrier is not None:
        module = relax.transform.RunCodegen({CODEGEN: {_CARRIER_OPTION: str(carrier)}})(module)
        # A second copy of every weight, which nothing reads: the program holds them.
        module = module.without_attr("const_name_to_constant")
    executable = tvm.compile(module, target=_host_target())
    try:
        executable.export_library(str(target), options=list(_LINK_FLAGS))
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        reason = lines[-1] if lines else "no message"
        raise ToolchainError(
            f"TVM cannot link the library: {reason}; install g++ or clang++, or name one in the environment's CXX"
        ) from error


def host_name() -> str:
    """The machine and system a library is for."""
    return f"{platform.machine()}-{platform.system().lower()}"


def _host_target() -> tvm.target.Target:
    return tvm.target.Target("llvm")
