"""Runs programs on the C emulator; the only user of ctypes.

``python -m npu_backend.runtime build [--sanitize]`` builds the emulator ahead of its first use.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import threading
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_double, c_int, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.errors import EmulatorError, InputError, NpuError, OptionError, ProgramError
from npu_backend.isa import DataType
from npu_backend.program import MAX_RANK
from npu_backend.toolchain import emulator_library

ABI_VERSION = 3
KERNELS: Mapping[str, int] = {"auto": 0, "portable": 1, "avx2": 2, "avx512": 3}

Array = npt.NDArray[Any]

_OK, _BAD_PROGRAM, _BAD_ARGUMENT = 0, 1, 2
_DTYPES: Mapping[int, np.dtype[Any]] = {member.value: np.dtype(member.name.lower()) for member in DataType}


class _Message(Structure):
    _fields_ = [("text", c_char * 1024)]


class _PortInfo(Structure):
    _fields_ = [("name", c_char_p), ("is_output", c_uint32), ("data_type", c_uint32), ("rank", c_uint32),
                ("shape", c_uint32 * MAX_RANK), ("bytes", c_uint64)]  # fmt: skip


class _RunOptions(Structure):
    _fields_ = [("bytes", c_uint32), ("threads", c_uint32), ("check", c_uint32), ("kernels", c_uint32)]


class _CoreTiming(Structure):
    _fields_ = [("dram_bytes", c_uint64), ("dram_read_bytes", c_uint64), ("network_bytes", c_uint64),
                ("macs", c_uint64), ("busy_ns", c_double), ("matrix_busy_ns", c_double), ("vector_busy_ns", c_double),
                ("sync_ns", c_double), ("idle_ns", c_double), ("energy_pj", c_double)]  # fmt: skip


class _Timing(Structure):
    _fields_ = [("bytes", c_uint32), ("core_count", c_uint32), ("total_ns", c_double), ("energy_pj", c_double),
                ("events", c_uint64), ("cores", POINTER(_CoreTiming)), ("spans", c_void_p),
                ("resource_bytes", c_void_p)]  # fmt: skip


# Function: result, arguments. A program is passed as an address; bytes are passed as they lie in the bytes object.
_SIGNATURES: Mapping[str, tuple[Any, list[Any]]] = {
    "npu_abi_version": (c_uint32, []),
    "npu_open": (c_int, [c_char_p, c_uint64, POINTER(c_void_p), POINTER(_Message)]),
    "npu_close": (None, [c_void_p]),
    "npu_instruction_count": (c_uint64, [c_void_p]),
    "npu_core_count": (c_uint32, [c_void_p]),
    "npu_resource_count": (c_uint32, [c_void_p]),
    "npu_spm_peak_bytes": (c_uint64, [c_void_p, c_uint32]),
    "npu_port_count": (c_uint32, [c_void_p]),
    "npu_port": (c_int, [c_void_p, c_uint32, POINTER(_PortInfo)]),
    "npu_run": (c_int, [c_void_p, POINTER(_RunOptions), POINTER(c_void_p), POINTER(c_void_p), POINTER(_Message)]),
    "npu_kernel_count": (c_uint32, [c_void_p]),
    "npu_kernel_symbol": (c_char_p, [c_void_p, c_uint32]),
    "npu_bind_kernel": (c_int, [c_void_p, c_uint32, c_void_p]),
    "npu_time": (c_int, [c_void_p, POINTER(_Timing), POINTER(_Message)]),
    "npu_instruction_ns": (c_int, [c_char_p, c_char_p, c_uint64, POINTER(c_double), POINTER(_Message)]),
    "npu_burst_bytes": (c_uint64, [c_char_p, c_uint64, c_uint64]),
}


@dataclass(frozen=True)
class PortInfo:
    """An input or output of a program: what the host passes or gets."""

    name: str
    is_output: bool
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class CoreTiming:
    """A core's share of a timed run; `idle_ns` is total - busy - sync, DRAM and network bytes are payload."""

    dram_bytes: int
    dram_read_bytes: int
    network_bytes: int
    macs: int
    busy_ns: float
    matrix_busy_ns: float
    vector_busy_ns: float
    sync_ns: float
    idle_ns: float
    energy_pj: float


@dataclass(frozen=True)
class Timing:
    """A timed run.

    `spans`, if asked for, is float64 [instruction][start, stop] in ns: streams in file order, instructions in stream
    order. `resource_bytes` is float64 [resource], what each resource of the program moved, DRAM's in whole bursts.
    """

    total_ns: float
    energy_pj: float
    events: int
    cores: tuple[CoreTiming, ...]
    spans: npt.NDArray[np.float64] | None
    resource_bytes: npt.NDArray[np.float64]


class Library:
    """The emulator's C functions, with their signatures set."""

    def __init__(self, handle: ctypes.CDLL, path: Path) -> None:
        self.path = path
        self.functions = handle
        try:
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(handle, name)
                function.restype, function.argtypes = result, arguments
        except AttributeError as error:
            raise EmulatorError(f"{path} is no emulator library: {error}") from error
        found = handle.npu_abi_version()
        if found != ABI_VERSION:
            raise EmulatorError(f"emulator library {path} has interface version {found}, this package needs "
                                f"{ABI_VERSION}: remove it or install both from one release")  # fmt: skip

    @staticmethod
    def from_path(path: str | Path) -> Library:
        """Loads a library that contains the emulator, such as the one a package carries.

        Raises EmulatorError when it cannot be loaded, is no emulator, or is of another interface version.
        """
        try:
            return Library(ctypes.CDLL(str(path)), Path(path))
        except OSError as error:
            raise EmulatorError(f"emulator library {path} cannot be loaded: {error}") from error


@cache
def default_library() -> Library:
    """The emulator of this installation, built on first use. Raises ToolchainError when it cannot be built."""
    return Library.from_path(emulator_library())


def _error(status: int, message: _Message) -> NpuError:
    text = message.text.decode("utf-8", "replace")
    if status == _BAD_PROGRAM:
        return ProgramError(text)
    return InputError(text) if status == _BAD_ARGUMENT else EmulatorError(text)


class Emulator:
    """An opened program. Close it, or use it as a context manager.

    Different emulators may be used from different threads at once; runs of one emulator follow each other.
    """

    def __init__(self, program: bytes, *, library: Library | None = None, kernels: ctypes.CDLL | None = None) -> None:
        """Validates and copies the program, and binds its kernels to functions of the library `kernels`.

        By default they are looked for in `library`, which a package's are in; what is not found stays unbound, which
        only a run minds. Raises ProgramError when the program is refused.
        """
        self._functions = (library or default_library()).functions
        self._lock = threading.Lock()
        self._handle: c_void_p | None = c_void_p()
        message = _Message()
        status = self._functions.npu_open(program, len(program), byref(self._handle), byref(message))
        if status != _OK:
            self._handle = None
            raise _error(status, message)
        self._bind(kernels or (library.functions if library is not None else None))
        count = self._functions.npu_port_count(self._handle)
        self.ports = tuple(self._port(index) for index in range(count))

    def _bind(self, kernels: ctypes.CDLL | None) -> None:
        self._kernels = kernels  # keeps it loaded
        for index in range(self._functions.npu_kernel_count(self._handle) if kernels is not None else 0):
            symbol = self._functions.npu_kernel_symbol(self._handle, index).decode()
            function = getattr(kernels, symbol, None)
            if function is not None:
                self._functions.npu_bind_kernel(self._handle, index, ctypes.cast(function, c_void_p))

    def _port(self, index: int) -> PortInfo:
        info = _PortInfo()
        status = self._functions.npu_port(self._handle, index, byref(info))
        assert status == _OK, (index, status)
        name = info.name.decode("utf-8", "replace")
        return PortInfo(name, bool(info.is_output), _DTYPES[info.data_type], tuple(info.shape[: info.rank]))

    @property
    def inputs(self) -> tuple[PortInfo, ...]:
        return tuple(port for port in self.ports if not port.is_output)

    @property
    def outputs(self) -> tuple[PortInfo, ...]:
        return tuple(port for port in self.ports if port.is_output)

    @property
    def instruction_count(self) -> int:
        return int(self._functions.npu_instruction_count(self._open_handle()))

    @property
    def core_count(self) -> int:
        return int(self._functions.npu_core_count(self._open_handle()))

    def spm_peak_bytes(self, core: int) -> int:
        """One past the highest scratchpad byte that any instruction touches on a core."""
        return int(self._functions.npu_spm_peak_bytes(self._open_handle(), core))

    def run(
        self,
        inputs: Mapping[str, Array] | Sequence[Array],
        *,
        threads: int = 1,
        check: bool = False,
        kernels: str = "auto",
    ) -> dict[str, Array]:
        """Computes the outputs by name; equal for any number of threads and any kernels.

        `check` also traps races, reads of unwritten bytes and semaphores that do not end at zero. Raises InputError
        for inputs that do not fit the ports, OptionError for unknown kernels, EmulatorError for a program that traps
        or deadlocks.
        """
        if kernels not in KERNELS:
            raise OptionError(f"kernels {kernels!r} do not exist: use one of {', '.join(KERNELS)}")
        arrays = _match_inputs(self.inputs, inputs)
        results = [np.empty(port.shape, port.dtype) for port in self.outputs]
        options = _RunOptions(ctypes.sizeof(_RunOptions), _thread_count(threads), int(check), KERNELS[kernels])
        message = _Message()
        with self._lock:
            status = self._functions.npu_run(
                self._open_handle(), byref(options), _addresses(arrays), _addresses(results), byref(message)
            )
        if status != _OK:
            raise _error(status, message)
        return {port.name: result for port, result in zip(self.outputs, results, strict=True)}

    def time(self, *, spans: bool = False) -> Timing:
        """Replays the program on the machine's clock, without data; `spans` also gives every instruction's times.

        Raises EmulatorError for a deadlock.
        """
        cores = (_CoreTiming * self.core_count)()
        table = np.zeros((self.instruction_count, 2), np.float64) if spans else None
        moved = np.zeros(self._functions.npu_resource_count(self._open_handle()), np.float64)
        timing = _Timing(bytes=ctypes.sizeof(_Timing), core_count=len(cores), cores=cores,
                         spans=None if table is None else table.ctypes.data,
                         resource_bytes=moved.ctypes.data)  # fmt: skip
        message = _Message()
        status = self._functions.npu_time(self._open_handle(), byref(timing), byref(message))
        if status != _OK:
            raise _error(status, message)
        rows = tuple(CoreTiming(*(getattr(core, field[0]) for field in _CoreTiming._fields_)) for core in cores)
        return Timing(timing.total_ns, timing.energy_pj, timing.events, rows, table, moved)

    def close(self) -> None:
        """Frees the program; closing again does nothing."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            self._functions.npu_close(handle)

    def _open_handle(self) -> c_void_p:
        if self._handle is None:
            raise EmulatorError("the emulator is closed: open the program again")
        return self._handle

    def __enter__(self) -> Emulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()


def _thread_count(threads: int) -> int:
    if not 1 <= threads <= 1024:
        raise OptionError(f"threads {threads}: use 1 to 1024")
    return threads


def _addresses(arrays: Sequence[Array]) -> ctypes.Array[c_void_p]:
    return (c_void_p * max(len(arrays), 1))(*(array.ctypes.data for array in arrays))


def _match_inputs(ports: Sequence[PortInfo], inputs: Mapping[str, Array] | Sequence[Array]) -> list[Array]:
    """The inputs in port order, contiguous. Raises InputError."""
    names = [port.name for port in ports]
    if isinstance(inputs, Mapping):
        if set(inputs) != set(names):
            raise InputError(f"inputs are named {_listed(inputs)}; the program expects {_listed(names)}")
        given = [inputs[name] for name in names]
    else:
        given = list(inputs)
        if len(given) != len(ports):
            raise InputError(f"{len(given)} inputs given; the program expects {len(ports)}: {_listed(names)}")
    return [_match_input(port, array) for port, array in zip(ports, given, strict=True)]


def _match_input(port: PortInfo, array: Array) -> Array:
    array = np.asarray(array)
    if array.dtype != port.dtype or array.shape != port.shape:
        raise InputError(f"input {port.name!r} is {array.dtype}{list(array.shape)}; "
                         f"the program expects {port.dtype}{list(port.shape)}")  # fmt: skip
    return np.require(array, requirements=["C", "A"])


def _listed(names: Mapping[str, Array] | Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def compute_ns(core_record: bytes, instruction: bytes) -> float:
    """Nanoseconds that a core (a packed `core` record) takes for one encoded matrix or vector instruction.

    Raises InputError when the bytes are no such instruction.
    """
    function, duration = default_library().functions.npu_instruction_ns, c_double()
    if function(core_record, instruction, len(instruction), byref(duration), None) == _OK:
        return duration.value
    message = _Message()
    status = function(core_record, instruction, len(instruction), byref(duration), byref(message))
    raise _error(status, message)


def burst_bytes(machine_record: bytes, runs: int, run_bytes: int) -> int:
    """Bytes DRAM moves for `runs` contiguous runs of `run_bytes`, each rounded up to whole bursts."""
    return int(default_library().functions.npu_burst_bytes(machine_record, runs, run_bytes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the emulator; 0, or 2 and a message on the error stream."""
    parser = argparse.ArgumentParser(prog="python -m npu_backend.runtime", description="Builds the emulator.")
    parser.add_argument("verb", choices=["build"])
    parser.add_argument("--sanitize", action="store_true", help="with address and undefined-behaviour checks")
    options = parser.parse_args(arguments)
    try:
        emulator_library(sanitize=options.sanitize)
    except NpuError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
