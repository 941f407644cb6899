"""The package a compile writes: tvmc's tar of library, executor's description and parameters, and what the NPU adds.

``mod.so`` is TVM's exported library with programs and emulator inside: TVM's runtime alone executes it, as
``mod.json`` tells (Relay: the graph executor's graph; Relax: which function the virtual machine calls), with the
parameters in ``mod.params``. ``npu.json`` describes model and machine; the ``<symbol>.npu`` of every partition hold
the same programs once more, for timing and disassembly.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from npu_backend.errors import ProgramError
from npu_backend.files import write_atomically

# How the reason of an operator begins that stays on the host because it is in float.
NOT_QUANTIZED = "not quantised"
ENGINE, VECTOR = "engine", "vector"
FORMAT = "npu-package"
FORMAT_VERSION = 2
# Not metadata.json, by which tvmc knows another format.
METADATA = "npu.json"
_FIRST_METADATA = "metadata.json"
LIBRARY = "mod.so"
EXECUTOR = "mod.json"
PARAMETERS = "mod.params"
PROGRAM_SUFFIX = ".npu"


# In place of a data type: a list of tensors, which only the host knows.
SEQUENCE = "sequence"
UNKNOWN_EXTENT = -1


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of the model as the caller sees it; of what the host computes, extents may be -1, unknown."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class NpuOp:
    """An operator that the NPU runs: ONNX node name and type, the partition that holds it, and what runs it there.

    `engine`: ENGINE, the fixed functions, or VECTOR, the vector processors by kernels of native code.
    """

    name: str
    op: str
    partition: str
    engine: str = ENGINE


def vector_ops(npu_ops: Sequence[NpuOp]) -> int:
    """How many of them kernels compute."""
    return sum(op.engine == VECTOR for op in npu_ops)


@dataclass(frozen=True)
class HostOp:
    """An operator that TVM runs on the host, and why."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True)
class Metadata:
    """What a package says of itself; `host` is the processor and system its library is for."""

    model: str
    machine: str
    cores: int
    strategy: str
    host: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    npu_ops: tuple[NpuOp, ...]
    host_ops: tuple[HostOp, ...]
    compile_seconds: float


@dataclass(frozen=True)
class Package:
    """A compiled model: metadata, what TVM's runtime reads, and the program files by symbol."""

    metadata: Metadata
    library: bytes
    executor: bytes
    parameters: bytes
    programs: Mapping[str, bytes]


def write_package(package: Package, path: str | Path) -> None:
    """Writes the tar whole or not at all; raises OutputError naming the path and the cause."""
    file = io.BytesIO()
    _write_tar(package, file)
    write_atomically(Path(path), file.getvalue())


def read_package(path: str | Path) -> Package:
    """Reads and checks a package; raises ProgramError when it is missing, corrupted or of another version."""
    source = Path(path)
    members = read_members(source)
    described = _read_description(source, members)
    for name, digest in described["checksums"].items():
        if name not in members:
            raise ProgramError(f"{source}: the package lacks {name}; compile the model again")
        if hashlib.sha256(members[name]).hexdigest() != digest:
            raise ProgramError(f"{source}: {name} is corrupted (its checksum differs); copy or compile it again")
    programs = {name.removesuffix(PROGRAM_SUFFIX): members[name] for name in described["checksums"]
                if name.endswith(PROGRAM_SUFFIX)}  # fmt: skip
    return Package(
        _metadata(source, described["metadata"]), members[LIBRARY], members[EXECUTOR], members[PARAMETERS], programs
    )


def _write_tar(package: Package, file: io.BytesIO) -> None:
    files = {LIBRARY: package.library, EXECUTOR: package.executor, PARAMETERS: package.parameters}
    files |= {f"{symbol}{PROGRAM_SUFFIX}": program for symbol, program in package.programs.items()}
    metadata = asdict(package.metadata)
    described = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "checksums": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "metadata_checksum": _metadata_checksum(metadata),
        "metadata": metadata,
    }
    files = {METADATA: json.dumps(described, indent=1).encode(), **files}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))


def read_members(path: Path) -> dict[str, bytes]:
    """The files of a tar; raises ProgramError."""
    try:
        with tarfile.open(path, "r:") as tar:
            return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    except FileNotFoundError:
        raise ProgramError(f"{path}: no such file") from None
    except tarfile.TarError as error:
        raise ProgramError(f"{path}: no package, or a truncated one ({error}); compile the model again") from error
    except OSError as error:
        raise ProgramError(f"{path}: the package cannot be read: {error.strerror or error}") from error


def _read_description(path: Path, members: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        described = json.loads(members.get(METADATA) or members.get(_FIRST_METADATA, b""))
    except ValueError:
        described = None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ProgramError(f"{path}: no package of this compiler: it has no valid {METADATA}")
    version = described.get("format_version")
    if version != FORMAT_VERSION:
        raise ProgramError(f"{path}: the package has version {version}, this program reads version {FORMAT_VERSION};"
                           " compile the model again")  # fmt: skip
    checksums = described.get("checksums")
    if (
        not isinstance(checksums, dict)
        or not checksums.keys() >= {LIBRARY, EXECUTOR, PARAMETERS}
        or not isinstance(described.get("metadata"), dict)
    ):
        raise ProgramError(f"{path}: {METADATA} is corrupted; compile the model again")
    if described.get("metadata_checksum") != _metadata_checksum(described["metadata"]):
        raise ProgramError(f"{path}: {METADATA} is corrupted (its checksum differs); copy or compile it again")
    return described


def _metadata_checksum(metadata: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


_LISTS = {"inputs": TensorInfo, "outputs": TensorInfo, "npu_ops": NpuOp, "host_ops": HostOp}


def _metadata(path: Path, values: dict[str, Any]) -> Metadata:
    try:
        lists = {name: tuple(kind(**entry) for entry in values[name]) for name, kind in _LISTS.items()}
        for name in ("inputs", "outputs"):
            lists[name] = tuple(TensorInfo(t.name, tuple(t.shape), t.dtype) for t in lists[name])
        return Metadata(**{field.name: values[field.name] for field in fields(Metadata)} | lists)
    except (KeyError, TypeError) as error:
        raise ProgramError(f"{path}: {METADATA} is corrupted ({error}); compile the model again") from error
