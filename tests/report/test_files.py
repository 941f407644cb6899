"""Output files are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from npu_backend.errors import OutputError
from npu_backend.files import check_writable, write_atomically


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"", b"second" * 1000):
        check_writable(path)
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    # As any other file: what the umask leaves of rw-rw-rw-.
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode


def test_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_pipe_is_written_directly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    write_atomically(pipe, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()


def test_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(
        OutputError, match=r"cannot write .*file: No space left on device; free space or choose another"
    ):
        write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_directory_and_directory(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no directory"):
        check_writable(tmp_path / "none" / "file")
    with pytest.raises(OutputError, match=r"there is no|No such file"):
        write_atomically(tmp_path / "none" / "file", b"")
    with pytest.raises(OutputError, match="it is a directory"):
        check_writable(tmp_path)
