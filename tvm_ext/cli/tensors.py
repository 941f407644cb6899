"""Inputs and outputs of a run: read from and written to npz files, or made up."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.files import write_atomically
from tvm_ext.package import TensorInfo

Array = npt.NDArray[Any]
FILL_MODES = ("random", "zeros", "ones")
_SEED = 0


def write_outputs(path: Path, outputs: Mapping[str, Array]) -> None:
    """An npz file of the arrays by name, whole or not at all; raises OutputError."""
    buffer = io.BytesIO()
    # Not numpy.savez: a tensor called "file" would be taken for its argument.
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in outputs.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def top_lines(outputs: Mapping[str, Array], count: int) -> Iterator[str]:
    """Of each output the largest values and the places they have in it, flattened; the largest first."""
    for name, array in outputs.items():
        flat = array.reshape(-1)
        places = np.argsort(flat, kind="stable")[::-1][:count]
        yield f"{name}: {', '.join(f'{flat[place]:g} at {place}' for place in places)}"


def made_up_inputs(infos: Sequence[TensorInfo], fill_mode: str) -> dict[str, Array]:
    """Inputs that are the same at every run; random ones are uniform in [-1, 1), integers over their whole range."""
    generator = np.random.default_rng(_SEED)
    return {info.name: _filled(generator, info.shape, np.dtype(info.dtype), fill_mode) for info in infos}


def _filled(generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any], fill_mode: str) -> Array:
    if fill_mode != "random":
        return np.full(shape, FILL_MODES.index(fill_mode) - 1, dtype)
    if dtype.kind == "f":
        return generator.uniform(-1, 1, shape).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
