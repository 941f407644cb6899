"""The command line must refuse, in one message, and write nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.tiny import Result, npuc, save, tiny_model
from tvm_ext.cli.app import run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny_model(), tmp_path_factory.mktemp("tiny") / "tiny.onnx")


@pytest.fixture(scope="session")
def package(tiny: Path) -> Path:
    path = tiny.with_name("tiny.tar")
    assert run(["compile", str(tiny), "-o", str(path), "-q"]) == 0
    return path


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must end as a user's mistake and write nothing; returns its message."""

    def check(*arguments: Any) -> str:
        before = _contents(tmp_path)
        result = npuc(capsys, *arguments)
        assert_mistake(result)
        assert _contents(tmp_path) == before
        return result.err

    return check


def assert_mistake(result: Result) -> None:
    assert result.code == 2, (result.out, result.err)
    assert result.out == ""
    # A usage error shows click's usage lines first; either way there is one message.
    assert result.err.count("Error: ") == 1, result.err
    assert "Traceback" not in result.err


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
