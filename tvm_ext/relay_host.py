"""The host's half under Relay: partitions handed to the carrier, the rest built by TVM, exported as one library."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relay
from tvm.contrib import graph_executor

from tvm_ext.generation import Built, cannot_link
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


def carry(carrier: Path, symbols: Sequence[str]) -> None:
    """From here on TVM builds partitions by linking `carrier`, which holds all of them by symbol."""
    _carrier.set(tvm.runtime.load_static_library(str(carrier), list(symbols)))


def _codegen(_: relay.Function) -> tvm.runtime.Module:
    """TVM's hook for one partition: all of them are in the carrier, which is linked once."""
    return _carrier.get()


def _no_constants(_: relay.Function, __: str) -> Mapping[str, tvm.nd.NDArray]:
    """TVM would store the weights a second time, which nothing reads: the program holds them."""
    return {}


tvm.register_func(f"relay.ext.{CODEGEN}", _codegen, override=True)
tvm.register_func(f"relay.ext.{CODEGEN}.constant_updater", _no_constants, override=True)


def build(module: tvm.IRModule, carrier: Path | None, symbols: Sequence[str], library: Path) -> Built:
    """Builds what is left for the host with LLVM and links it with `carrier` into the shared library `library`.

    Raises ToolchainError when TVM's linker call fails.
    """
    if carrier is not None:
        carry(carrier, symbols)
    with tvm.transform.PassContext(opt_level=3):
        built = relay.build(module, target=tvm.target.Target(f"llvm -mtriple={host_triple()}"))
    try:
        built.get_lib().export_library(str(library), options=list(_LINK_FLAGS))
    except RuntimeError as error:
        raise cannot_link(error) from error
    return Built(built.get_graph_json().encode(), bytes(relay.save_param_dict(built.get_params())))


def open_library(library: Path, built: Built) -> Callable[[Sequence[Array]], list[Array]]:
    """The library's model as a function of its inputs in order, which gives its outputs in order."""
    module = graph_executor.create(built.executor.decode(), tvm.runtime.load_module(str(library)), tvm.cpu())
    module.load_params(built.parameters)

    def run(inputs: Sequence[Array]) -> list[Array]:
        for index, array in enumerate(inputs):
            module.set_input(index, tvm.nd.array(array))
        module.run()
        return [np.array(module.get_output(index).numpy()) for index in range(module.get_num_outputs())]

    return run


def host_triple() -> str:
    """The host's, which this build of LLVM does not know by itself."""
    return f"{platform.machine()}-linux-gnu"
