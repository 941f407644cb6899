"""Writes that are whole or absent."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from npu_backend.errors import OutputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write through a temporary file beside `path` and rename; raises OutputError and leaves nothing when it cannot."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary_name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(temporary_name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        # mkstemp makes files for the owner alone; these are ordinary outputs.
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose another place or free space"
        ) from error
