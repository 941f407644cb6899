"""Where figures come from: checkout and host; and how a benchmark command ends on a user's mistake."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import click
import onnxruntime

from benchmarks.rows import Host

ROOT = Path(__file__).resolve().parent.parent


class UserMistake(click.ClickException):
    """One message and exit code 2, as every command of this project does."""

    exit_code = 2


def commit() -> tuple[str | None, bool]:
    """Commit of this checkout, and whether tracked files differ from it; None without git or a checkout."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    return commit, bool(commit and _git("status", "--porcelain", "--untracked-files=no"))


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def host() -> Host:
    """This machine and what runs on it."""
    return Host(_processor(), os.cpu_count() or 1, platform.python_version(), onnxruntime.__version__)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
