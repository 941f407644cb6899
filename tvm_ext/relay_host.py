"""The host's half under Relay: partitions handed to the carrier, the rest built by TVM, exported as one library."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relay
from tvm.contrib.graph_executor import GraphModule

from npu_backend.errors import ToolchainError
from tvm_ext.parts import CODEGEN

Array = npt.NDArray[Any]
HEADER = Path(__file__).with_name("carrier_relay.h")
# TVM's exported library links what the emulator needs.
_LINK_FLAGS = ("-pthread", "-lm")
_carrier: ContextVar[tvm.runtime.Module] = ContextVar("npu_carrier")


def include_paths() -> Sequence[Path]:
    """Where the headers are that `HEADER` includes."""
    root = Path(tvm.__file__).parent
    return root / "include", root / "dlpack" / "include"


@contextlib.contextmanager
def carrying(carrier: Path, symbols: Sequence[str]) -> Iterator[None]:
    """Inside, TVM builds partitions by linking `carrier`, which holds all of them by symbol."""
    token = _carrier.set(tvm.runtime.load_static_library(str(carrier), list(symbols)))
    try:
        yield
    finally:
        _carrier.reset(token)


def _codegen(_: relay.Function) -> tvm.runtime.Module:
    """TVM's hook for one partition: all of them are in the carrier, which is linked once."""
    return _carrier.get()


def _no_constants(_: relay.Function, __: str) -> Mapping[str, tvm.nd.NDArray]:
    """TVM would store the weights a second time, which nothing reads: the program holds them."""
    return {}


tvm.register_func(f"relay.ext.{CODEGEN}", _codegen, override=True)
tvm.register_func(f"relay.ext.{CODEGEN}.constant_updater", _no_constants, override=True)


def export_library(module: tvm.IRModule, carrier: Path | None, symbols: Sequence[str], target: Path) -> None:
    """Builds what is left for the host with LLVM and links it with `carrier` into the shared library `target`.

    Raises ToolchainError when TVM's linker call fails.
    """
    with contextlib.nullcontext() if carrier is None else carrying(carrier, symbols):
        with tvm.transform.PassContext(opt_level=3):
            built = relay.build(module, target=tvm.target.Target(f"llvm -mtriple={_triple()}"))
        try:
            built.export_library(str(target), options=list(_LINK_FLAGS))
        except RuntimeError as error:
            lines = str(error).strip().splitlines()
            reason = lines[-1] if lines else "no message"
            raise ToolchainError(
                f"TVM cannot link the library: {reason}; install g++ or clang++, or name one in the environment's CXX"
            ) from error


def open_library(path: Path) -> Callable[[Sequence[Array]], list[Array]]:
    """The library's model as a function of its inputs in order, which gives its outputs in order."""
    module = GraphModule(tvm.runtime.load_module(str(path))["default"](tvm.cpu()))

    def run(inputs: Sequence[Array]) -> list[Array]:
        for index, array in enumerate(inputs):
            module.set_input(index, tvm.nd.array(array))
        module.run()
        return [np.array(module.get_output(index).numpy()) for index in range(module.get_num_outputs())]

    return run


def _triple() -> str:
    """The host's, which this build of LLVM does not know by itself."""
    return f"{platform.machine()}-linux-gnu"
