from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.tiny import save, tiny_model
from tvm_ext.cli.app import run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_model(), tmp_path_factory.mktemp("tiny") / "tiny.onnx")


@pytest.fixture(scope="session")
def package(tiny: Path) -> Path:
    path = tiny.with_name("tiny.tar")
    assert run(["compile", str(tiny), "-o", str(path), "-q", "--cores", "2", "--strategy", "base"]) == 0
    return path
