"""Which generation of TVM is installed, and the two rooms that are its own: the front end and the host's half.

Both call themselves `tvm`: apache-tvm has Relax, older releases (and hhb-tvm, a maintained fork) Relay and tvmc.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module, util
from pathlib import Path
from typing import Any, Protocol, cast

import numpy.typing as npt
import onnx

from npu_backend.errors import ToolchainError
from tvm_ext.parts import Partitioned

Array = npt.NDArray[Any]
RELAX, RELAY = "relax", "relay"


@dataclass(frozen=True)
class Built:
    """What the executor reads beside its library: which functions to call on what, and the parameters."""

    executor: bytes
    parameters: bytes


class FrontEnd(Protocol):
    """`tvm_ext.relax` or `tvm_ext.relay`."""

    def partition(
        self, model: onnx.ModelProto, *, computes_float: bool = False, kernel_spm_bytes: int | None = None
    ) -> Partitioned: ...


class Host(Protocol):
    """`tvm_ext.relax_host` or `tvm_ext.relay_host`. `HEADER`: what the carrier includes to be called by this TVM."""

    HEADER: Path

    def include_paths(self) -> Sequence[Path]: ...

    def build(self, module: Any, carrier: Path | None, symbols: Sequence[str], library: Path) -> Built: ...

    def open_library(self, library: Path, built: Built) -> Callable[[Sequence[Array]], list[Array]]: ...


@cache
def generation() -> str:
    """RELAX or RELAY, without importing TVM; raises ToolchainError where there is none."""
    found = util.find_spec("tvm")
    if found is None or not found.submodule_search_locations:
        raise ToolchainError("there is no TVM: install npu-backend[relax], or npu-backend[relay] on Python 3.10")
    is_relay = (Path(found.submodule_search_locations[0]) / "relay").is_dir()
    return RELAY if is_relay else RELAX


def front_end() -> FrontEnd:
    """The installed generation's; imports TVM."""
    return cast(FrontEnd, import_module(f"tvm_ext.{generation()}"))


def host() -> Host:
    """The installed generation's; imports TVM."""
    return cast(Host, import_module(f"tvm_ext.{generation()}_host"))


def host_name() -> str:
    """The machine and system that libraries are built for."""
    return f"{platform.machine()}-{platform.system().lower()}"


def cannot_link(error: Exception) -> ToolchainError:
    """What to say when the linker that TVM calls for a host library fails; its last line is the reason."""
    lines = str(error).strip().splitlines() or ["no message"]
    return ToolchainError(
        f"TVM cannot link the library: {lines[-1]}; install g++ or clang++, or name one in the environment's CXX"
    )
