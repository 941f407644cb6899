"""The weightless graphs that torch exported: what real exporters emit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.exported import FOLDER_VARIABLE, exported_names

FOLDER = Path(os.environ.get(FOLDER_VARIABLE, Path(__file__).parents[2] / "shared" / "models"))
_ABSENT = f"no exported graphs in {FOLDER}: set {FOLDER_VARIABLE} to the folder that holds them"

# One parameter of a test per graph, its path; a single one that skips and says why where there are none.
EXPORTED = [pytest.param(FOLDER / f"{name}.onnx", id=name) for name in exported_names(FOLDER)] or [
    pytest.param(FOLDER, marks=pytest.mark.skip(_ABSENT), id="absent")
]
