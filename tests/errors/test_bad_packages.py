"""Packages and programs that are damaged, of another version or of another machine."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from npu_backend.program import Program
from tvm_ext.package import read_package, write_package

Folder = Path
Mistake = Callable[..., str]


@pytest.mark.parametrize("command", ["run", "disasm"])
def test_truncated_package(mistake: Mistake, package: Path, tmp_path: Folder, command: str) -> None:
    data, path = package.read_bytes(), tmp_path / "cut.tar"
    for length in (0, 100, 700, len(data) // 2, len(data) - 20_000):
        path.write_bytes(data[:length])
        message = mistake(command, path)
        assert str(path) in message
        assert "compile" in message or "package" in message


@pytest.mark.parametrize("command", ["run", "disasm"])
def test_corrupted_package(mistake: Mistake, package: Path, tmp_path: Folder, command: str) -> None:
    path = tmp_path / "broken.tar"
    members = _members(package)
    for name in members:
        data = bytearray(members[name])
        data[len(data) // 2] ^= 0xFF
        _write(path, {**members, name: bytes(data)})
        message = mistake(command, path)
        assert f"{path}: {name}" in message or "npu.json" in message


def test_package_of_another_version(mistake: Mistake, package: Path, tmp_path: Folder) -> None:
    path, members = tmp_path / "other.tar", _members(package)
    described = json.loads(members["npu.json"])
    described["format_version"] = 99
    _write(path, {**members, "npu.json": json.dumps(described).encode()})
    assert "has version 99, this program reads version 2; compile the model again" in " ".join(
        mistake("run", path).split()
    )


def test_package_of_another_processor(mistake: Mistake, package: Path, tmp_path: Folder) -> None:
    path, here = tmp_path / "other.tar", read_package(package)
    write_package(replace(here, metadata=replace(here.metadata, host="pdp11-unix")), path)
    assert "is for pdp11-unix" in mistake("run", path)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b'"cores": 3', b'"cores": 7'),
        (b'"float32"', b'"float99"'),
        (b'"strategy": "stratum"', b'"strategy": "stratus"'),
    ],
)
def test_changed_metadata(mistake: Mistake, package: Path, tmp_path: Folder, right: bytes, wrong: bytes) -> None:
    """Still JSON with every key, so that nothing but the checksum can tell."""
    path, members = tmp_path / "changed.tar", _members(package)
    changed = members["npu.json"].replace(right, wrong)
    assert changed != members["npu.json"]
    _write(path, {**members, "npu.json": changed})
    assert "npu.json is corrupted" in mistake("run", path)


def test_tar_of_something_else(mistake: Mistake, tmp_path: Folder) -> None:
    path = tmp_path / "photos.tar"
    _write(path, {"photo.jpg": b"..."})
    assert "no package of this compiler" in mistake("run", path)


def test_damaged_programs(mistake: Mistake, package: Path, tmp_path: Folder) -> None:
    (program,) = (data for name, data in _members(package).items() if name.endswith(".npu"))
    path = tmp_path / "program.npu"
    other_version = program[:4] + (99).to_bytes(4, "little") + program[8:]
    for data, expected in [
        (b"", "not an NPU program"),
        (b"hello", "not an NPU program"),
        (program[:1000], "program cut short: 1000 of"),
        (program[:-1] + bytes([program[-1] ^ 1]), "checksum does not match"),
        (other_version, "program of format 99"),
    ]:
        path.write_bytes(data)
        assert expected in mistake("disasm", path)
    assert "no such file" in mistake("disasm", tmp_path / "none.npu").lower()
    assert Program.from_bytes(program).to_bytes() == program


def _members(path: Path) -> dict[str, bytes]:
    members = {}
    with tarfile.open(path) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            assert stream is not None
            members[member.name] = stream.read()
    return members


def _write(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
