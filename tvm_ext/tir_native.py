"""Native code of kernels: TVM compiles their TIR, and all that programs call becomes one object file."""

from __future__ import annotations

import ctypes
import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from npu_backend import toolchain
from npu_backend.isa import DATA_TYPES
from tvm_ext import tir_api as api
from tvm_ext.generation import RELAX, generation, host

# Data types that tensors of the NPU may have.
RUNNABLE = frozenset(DATA_TYPES)
_ENTRIES = Path(__file__).with_name("kernels.c")
_FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
# What TVM's code calls to report an error, of its runtime; kernels have an own one and need no runtime.
_RUNTIME_ERRORS = ("TVMFFIErrorSetRaisedFromCStrParts", "TVMFFIErrorSetRaisedFromCStr", "TVMAPISetLastError")
_OWN_ERROR = "npu_kernel_error"
# The functions of this process by the symbol that stands for their text.
_functions: dict[str, Any] = {}


def native_symbol(function: Any) -> str:
    """The symbol of a specialised function, the same for equal ones; it can be compiled by this name afterwards."""
    symbol = "npu_kernel_" + hashlib.sha256(function.script().encode()).hexdigest()[:20]
    _functions.setdefault(symbol, function)
    return symbol


def compile_kernels(symbols: Iterable[str], folder: Path) -> list[Path]:
    """Object files in `folder` that define all of these; none of none. Raises ToolchainError."""
    named = {symbol: _functions[symbol] for symbol in dict.fromkeys(symbols)}
    if not named:
        return []
    module = tvm.IRModule({f"{symbol}_tir": function.with_attr("global_symbol", f"{symbol}_tir")
                           for symbol, function in named.items()})  # fmt: skip
    assembly, entries = folder / "kernels.s", folder / "kernel_entries.c"
    assembly.write_text(_assembly(module))
    entries.write_text("".join(_entry(symbol, function) for symbol, function in named.items()))
    compiler, abi = toolchain.find_compiler(), host().HEADER
    includes = [f"-I{path}" for path in (*host().include_paths(), abi.parent, folder)]
    objects = [folder / "kernels.o", folder / "kernel_entries.o"]
    toolchain.run_compiler([*compiler, "-c", str(assembly), "-o", str(objects[0])])
    toolchain.run_compiler([*compiler, *_FLAGS, *includes, f'-DNPU_KERNELS_ABI="{abi.name}"',
                            f'-DNPU_KERNELS="{entries.name}"', "-c", str(_ENTRIES), "-o", str(objects[1])])  # fmt: skip
    return objects


def _entry(symbol: str, function: Any) -> str:
    places = api.places_of(function)
    return f"KERNEL({symbol}, {len(function.params) - places}, {places})\n"


def kernel_library(symbols: Iterable[str], folder: Path) -> ctypes.CDLL:
    """The native functions in a library of their own, for programs that run outside a package."""
    library = folder / "kernels.so"
    objects = compile_kernels(symbols, folder)
    toolchain.run_compiler([*toolchain.find_compiler(), "-shared", *map(str, objects), "-o", str(library), "-lm"])
    return ctypes.CDLL(str(library))


def run_whole(function: Any, inputs: Sequence[np.ndarray], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The output of a kernel for a whole dense tensor, computed in this process."""
    output, symbol = np.empty(shape, dtype), native_symbol(function)
    with tempfile.TemporaryDirectory(prefix="npu_kernel.") as folder:
        native = getattr(kernel_library([symbol], Path(folder)), symbol)
        addresses = (ctypes.c_void_p * (len(inputs) + 1))(*(each.ctypes.data for each in (*inputs, output)))
        assert native(addresses) == 0, symbol
    return output


def _assembly(module: Any) -> str:
    """The module compiled by LLVM, as text, so that its calls of TVM's runtime can be given to our own function."""
    if generation() == RELAX:
        text = str(api.tir.build(module, target="llvm").inspect_source("s"))
    else:
        from tvm_ext.relay_host import host_triple  # noqa: PLC0415

        text = str(tvm.build(module, target=f"llvm -mtriple={host_triple()}").get_source("asm"))
    for name in _RUNTIME_ERRORS:
        text = text.replace(name, _OWN_ERROR)
    # Line numbers in a form that assemblers before DWARF 5 refuse.
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(("\t.file", "\t.loc")))
