"""The host's half under Relax: partitions handed to the carrier, the rest built by TVM, exported as one library."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tvm
import tvm_ffi
from tvm import relax

from npu_backend.errors import UnsupportedError
from tvm_ext.generation import Built, cannot_link
from tvm_ext.parts import CODEGEN

Array = npt.NDArray[Any]
HEADER = Path(__file__).with_name("carrier_relax.h")
_CARRIER_OPTION = "carrier"
_MAIN = "main"
# TVM's exported library links what the emulator needs.
_LINK_FLAGS = ("-pthread", "-lm")


def _codegen(functions: Sequence[relax.Function], options: Mapping[str, Any], _: object) -> list[tvm.runtime.Module]:
    """TVM's hook for the partitions: all of them are already in the carrier."""
    symbols = [str(function.attrs["global_symbol"]) for function in functions]
    return [tvm.runtime.load_static_library(str(options[_CARRIER_OPTION]), symbols)]


tvm_ffi.register_global_func(f"relax.ext.{CODEGEN}", _codegen, override=True)


def include_paths() -> Sequence[Path]:
    """Where the headers are that `HEADER` includes."""
    return [Path(path) for path in tvm_ffi.libinfo.include_paths()]


def build(module: tvm.IRModule, carrier: Path | None, symbols: Sequence[str], library: Path) -> Built:
    """Builds what is left for the host with LLVM and links it with `carrier` into the shared library `library`.

    `symbols` are those of the partitions, which Relax knows itself. Raises ToolchainError when TVM's linker call fails.
    """
    del symbols
    if carrier is not None:
        module = relax.transform.RunCodegen({CODEGEN: {_CARRIER_OPTION: str(carrier)}})(module)
        # A second copy of every weight, which nothing reads: the program holds them.
        module = module.without_attr("const_name_to_constant")
    try:
        executable = tvm.compile(module, target=_host_target())
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnsupportedError(f"TVM cannot compile what is left for the host: {reason}; npuc ops lists its"
                               " operators: replace one or cut the model before it") from error  # fmt: skip
    try:
        executable.export_library(str(library), options=list(_LINK_FLAGS))
    except (RuntimeError, AssertionError) as error:
        # TVM asserts that the compiler names its target.
        raise cannot_link(error) from error
    # The virtual machine's constants are in its library.
    return Built(json.dumps({"executor": "relax.VirtualMachine", "function": _MAIN}).encode(),
                 bytes(tvm.runtime.save_param_dict({})))  # fmt: skip


def open_library(library: Path, _: Built) -> Callable[[Sequence[Array]], list[Array]]:
    """The library's model as a function of its inputs in order, which gives its outputs in order."""
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())

    def run(inputs: Sequence[Array]) -> list[Array]:
        result = machine[_MAIN](*map(_to_tvm, inputs))
        return [_from_tvm(result)] if hasattr(result, "numpy") else list(map(_from_tvm, result))

    return run


def _to_tvm(value: Any) -> Any:
    return list(map(_to_tvm, value)) if isinstance(value, list) else tvm.runtime.tensor(value)


def _from_tvm(value: Any) -> Any:
    """Arrays, and lists of arrays, which ONNX calls sequences."""
    return value.numpy() if hasattr(value, "numpy") else list(map(_from_tvm, value))


def _host_target() -> tvm.target.Target:
    return tvm.target.Target("llvm")
