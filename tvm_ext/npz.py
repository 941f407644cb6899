"""Reading npz files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.errors import InputError


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an npz file by name; raises InputError when it is missing, damaged or no such file."""
    try:
        # Opened here: numpy leaves a damaged file open.
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise InputError(f"{path} holds one array without a name; save it by numpy.savez(file, NAME=array)")
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is no npz file of plain arrays, or a damaged one; write it by"
                         " numpy.savez(file, NAME=array)") from error  # fmt: skip
