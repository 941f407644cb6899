"""Weights in the safetensors format: 8 bytes with the header's length, a JSON header, then the tensors' bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_float_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every float32 tensor of the file by name; others (position ids are int64) are left out."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8:start]), memoryview(content)[start:]
    return {
        name: _tensor(body, entry["data_offsets"]).reshape(entry["shape"])
        for name, entry in header.items()
        if entry.get("dtype") == "F32"
    }


def _tensor(data: memoryview, offsets: list[int]) -> NDArray[np.float32]:
    first, end = offsets
    return np.frombuffer(data[first:end], "<f4")
