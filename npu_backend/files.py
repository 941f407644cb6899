"""Output files that are whole or absent."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from npu_backend.errors import OutputError


def check_writable(path: Path) -> None:
    """Finds out before long work whether `path` can be written; leaves nothing behind.

    Raises OutputError.
    """
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a directory; name a file in it")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no directory {folder}; make it or choose another place")
    wanted = path if path.exists() and not path.is_file() else folder
    if not os.access(wanted, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission to write in {folder}; choose another place")


def write_atomically(path: Path, content: bytes) -> None:
    """Writes through a temporary file beside `path` that replaces it once complete; devices and pipes directly.

    Raises OutputError, and then leaves what was there before.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            # A link stays one: what it points at is replaced.
            _replace(path.resolve(), content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {reason}; free space or choose another place") from error


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
