"""The cases of ONNX's backend test suite, of one pinned release whatever release is installed.

The release's wheel is fetched once and only its test data are taken out of it: nothing of it is imported, so that the
installed release, which everything else runs on, stays the only one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.runner import Runner

from benchmarks.provenance import ROOT

RELEASE = "1.19.1"
FOLDER = ROOT / "build" / f"onnx-{RELEASE}"
_DATA = "onnx/backend/test/data"
CATEGORIES = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
# The suite's own, where a case has no others.
RTOL, ATOL = 1e-3, 1e-7
_EXPANDED = re.compile(r"_expanded(_ver\d+)?$")


@dataclass(frozen=True)
class Case:
    """One case: its folder below the suite's data, and the model's file."""

    category: str
    name: str
    model_path: Path
    rtol: float = RTOL
    atol: float = ATOL

    @property
    def key(self) -> str:
        """Unique in the suite."""
        return f"{self.category}/{self.name}"

    @property
    def is_available(self) -> bool:
        """Whether the model is here: some are only named by an address."""
        return self.model_path.is_file()

    def model(self) -> onnx.ModelProto:
        """The model as it is stored."""
        return onnx.load(self.model_path)

    def data_sets(self, model: onnx.ModelProto) -> Iterator[tuple[list[Any], list[Any]]]:
        """Inputs and expected outputs, as ONNX's runner reads or makes them."""
        if self.category == "real":
            yield _made_up(self, model)
            return
        for folder in sorted(self.model_path.parent.glob("test_data_set*")):
            yield _loaded(folder, "input", model.graph.input), _loaded(folder, "output", model.graph.output)

    def check(self, expected: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Raises AssertionError where count, shape, data type or a value differs beyond the case's tolerances."""
        Runner.assert_similar_outputs(expected, outputs, self.rtol, self.atol)


def cases() -> list[Case]:
    """All cases, by category and name; fetches the release on first use."""
    return [case for category in CATEGORIES for case in _cases(category)]


def family(case: Case) -> str:
    """The operator that a case is about; of one written out as a function's body, that of the function."""
    folder = case.model_path.parent
    whole = folder.with_name(_EXPANDED.sub("", folder.name)) / "model.onnx"
    if case.category == "real":
        return "network"
    return _operator(whole if whole.is_file() else case.model_path)


def fetch() -> Path:
    """The folder of the suite's data."""
    data = FOLDER / _DATA
    if not data.is_dir():
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
                        f"onnx=={RELEASE}", "-d", str(FOLDER)], check=True)  # fmt: skip
        with zipfile.ZipFile(next(FOLDER.glob("onnx-*.whl"))) as wheel:
            wheel.extractall(FOLDER, [name for name in wheel.namelist() if name.startswith(f"{_DATA}/")])
    return data


def _cases(category: str) -> Iterator[Case]:
    for folder in sorted(path for path in (fetch() / category).iterdir() if path.is_dir()):
        described = folder / "data.json"
        given = json.loads(described.read_text()) if described.is_file() else {}
        path = FOLDER / given["url"] if str(given.get("url", "")).startswith(_DATA) else folder / "model.onnx"
        yield Case(category, folder.name, path, given.get("rtol", RTOL), given.get("atol", ATOL))


@cache
def _operator(path: Path) -> str:
    nodes = onnx.load(path, load_external_data=False).graph.node
    names = [f"{node.domain}.{node.op_type}".lstrip(".") for node in nodes if node.op_type != "Constant"]
    return max(names, key=names.count, default="Constant") if len(set(names)) < 3 else "several"


def _made_up(case: Case, model: onnx.ModelProto) -> tuple[list[Any], list[Any]]:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [Runner.generate_dummy_data(value) for value in model.graph.input if value.name not in weights]
    stem = case.model_path.with_suffix("").name
    return inputs, [_tensor(case.model_path.with_name(f"{stem}_output_{i}.pb").read_bytes())
                    for i in range(len(model.graph.output))]  # fmt: skip


def _loaded(folder: Path, kind: str, values: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    count = len(list(folder.glob(f"{kind}_*.pb")))
    return [_value((folder / f"{kind}_{i}.pb").read_bytes(), values[i].type) for i in range(count)]


def _value(data: bytes, declared: onnx.TypeProto) -> Any:
    if declared.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if declared.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return _tensor(data)


def _tensor(data: bytes) -> np.ndarray:
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))
