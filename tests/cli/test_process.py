"""``npuc`` as a process: how fast it answers, what a closed pipe or Ctrl-C does."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tvm_ext.cli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=False)


HELP_ONLY = """
import sys
from tvm_ext.cli.app import run
run(["--help"])
run(["run", "--help"])
sys.exit(" ".join({"tvm", "numpy", "onnx", "rich", "npu_backend"} & set(sys.modules)) or 0)
"""


def test_help_imports_nothing_heavy() -> None:
    result = subprocess.run(
        [sys.executable, "-c", HELP_ONLY], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "--timing-only" in result.stdout


def test_help_answers_at_once() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(5):
        assert run("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, so that a loaded machine does not fail; 0.15 s on an idle one.
    assert (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 5 < 0.3


def test_user_mistake() -> None:
    result = run("machines", "exynos")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: no machine 'exynos': did you mean exynos")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [["disasm"], ["run", "--timing-only"]])
def test_closed_pipe_is_quiet(package: Path, command: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, *command, str(package)]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_standard_output() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([*COMMAND, "machines"], stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
                                check=False)  # fmt: skip
    assert (result.returncode, result.stderr) == (
        2,
        "Error: cannot write the standard output: No space left on device\n",
    )


INTERRUPTED = """
import os, signal, sys
import tvm_ext.cli.session
tvm_ext.cli.session.compile_graph = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
from tvm_ext.cli.app import main
main(["run", sys.argv[1]])
"""


def test_interrupt(tiny: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tiny)]
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (result.returncode, result.stdout) == (130, "")
    assert "Traceback" not in result.stderr
