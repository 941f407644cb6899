"""The wheel holds what plain `tvmc` and a machine without this checkout need."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tvm_ext.tvmc_hook import PTH_LINE, PTH_NAME

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", ".*", "build", "downloaded", "*.egg-info")
    for name in ("npu_backend", "tvm_ext"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(command, check=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        assert wheel.read(PTH_NAME).decode() == PTH_LINE
        (record,) = (name for name in names if name.endswith("RECORD"))
        # What is in the record goes when the wheel is uninstalled.
        assert f"{PTH_NAME},sha256=" in wheel.read(record).decode()
    assert {"tvm_ext/carrier.c", "tvm_ext/carrier_relay.h", "npu_backend/machines/exynos2100.toml"} <= set(names)
