"""Where the emulator's time goes, kernel by kernel: samples of Linux's perf, summed by C function."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.table import Table

from benchmarks.provenance import ROOT, UserMistake

HERTZ = 999
MOST_KERNELS = 15
LIBRARY_STEM = "libnpu"
_LINE = re.compile(r"^\s*(?P<share>[\d.]+)%\s+(?P<object>\S+)\s+\[\.\]\s+(?P<symbol>\S+)")


def profiled(command: Sequence[str]) -> tuple[str, Mapping[str, float]]:
    """The command's output, and the share of the emulator's samples by function; raises UserMistake without perf."""
    if shutil.which("perf") is None:
        raise UserMistake("--profile needs Linux's perf, which is not installed; install it or leave out --profile")
    with tempfile.TemporaryDirectory(prefix="npu_profile.") as folder:
        data = str(Path(folder) / "perf.data")
        recorded = _run(["perf", "record", "-q", "-F", str(HERTZ), "-o", data, *command])
        reported = _run(["perf", "report", "--stdio", "-q", "-i", data, "--sort", "dso,symbol"])
    return recorded, shares(reported)


def shares(report: str) -> dict[str, float]:
    """Functions of the emulator by their share of its samples; host operators are not among them."""
    found = {}
    for line in report.splitlines():
        match = _LINE.match(line)
        if match and match["object"].startswith(LIBRARY_STEM):
            found[match["symbol"]] = float(match["share"])
    total = sum(found.values())
    return {symbol: share / total for symbol, share in sorted(found.items(), key=lambda item: -item[1])}


def profile_table(title: str, kernels: Mapping[str, float]) -> Table:
    """The functions that take most."""
    table = Table(title=f"{title}: the emulator's time by function")
    table.add_column("function")
    table.add_column("share", justify="right")
    for symbol, share in list(kernels.items())[:MOST_KERNELS]:
        table.add_row(symbol, f"{share:.1%}")
    return table


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command[:2])} ended with code {done.returncode}: {done.stderr.strip()}")
    return done.stdout
