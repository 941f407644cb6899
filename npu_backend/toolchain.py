"""Builds the C emulator on first use, into a per-user cache keyed by everything the result depends on.

Several processes may build at once: each builds in a directory of its own and renames the result into place.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from npu_backend.errors import ToolchainError

SANITIZE_VARIABLE = "NPU_SANITIZE"
CACHE_VARIABLE = "NPU_CACHE_DIR"
_EMULATOR = Path(__file__).parent / "emulator"
_LIBRARY_NAME = "libnpu_emulator" + (".dylib" if sys.platform == "darwin" else ".so")
_OBJECT_NAME = "npu_emulator.o"
# Contraction would let one kernel level round differently from another. Nobody reads errno or exception flags, whose
# upkeep would keep roots, roundings and selections out of vector registers.
_FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC",
          "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-pthread")  # fmt: skip
_SANITIZE_FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_INSTALL_HINT = (
    "install one (Debian, Ubuntu: apt install gcc libc6-dev; Fedora: dnf install gcc; macOS: xcode-select --install) "
    "or name it in the environment variable CC"
)


def emulator_library(*, sanitize: bool | None = None) -> Path:
    """The emulator as a shared library: the one shipped inside the package, else built and cached.

    `sanitize` asks for address and undefined-behaviour checks; by default the environment's NPU_SANITIZE=1 does.
    Raises ToolchainError without a working C compiler or a writable cache.
    """
    wanted = os.environ.get(SANITIZE_VARIABLE) == "1" if sanitize is None else sanitize
    shipped = _EMULATOR / _LIBRARY_NAME
    return shipped if shipped.exists() and not wanted else _cached(_LIBRARY_NAME, wanted)


def emulator_object() -> Path:
    """The emulator as one relocatable object, every symbol hidden but the public interface, to link into a package.

    It needs libm and pthreads. Raises ToolchainError as `emulator_library` does.
    """
    return _cached(_OBJECT_NAME, sanitize=False)


@cache
def _cached(name: str, sanitize: bool) -> Path:
    compiler = find_compiler()
    flags = _FLAGS + (_SANITIZE_FLAGS if sanitize else ())
    target = cache_directory() / _key(compiler, flags) / name
    if not target.exists():
        _build(compiler, flags, target)
    return target


def cache_directory() -> Path:
    """Where things dear to make are kept per user: NPU_CACHE_DIR, else where this system keeps caches."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else user_cache_path("npu_backend", appauthor=False)


def find_compiler() -> tuple[str, ...]:
    """The command of the C compiler: CC, else cc, gcc or clang. Raises ToolchainError when there is none."""
    named = os.environ.get("CC", "").strip()
    if named:
        command = tuple(shlex.split(named))
        if shutil.which(command[0]) is None:
            raise ToolchainError(f"the C compiler {command[0]!r} named by CC does not exist: {_INSTALL_HINT}")
        return command
    for candidate in ("cc", "gcc", "clang"):
        if shutil.which(candidate):
            return (candidate,)
    raise ToolchainError(f"the emulator needs a C compiler and none of cc, gcc, clang is there: {_INSTALL_HINT}")


def _sources() -> list[Path]:
    return sorted(_EMULATOR.glob("*.c"))


def _key(compiler: Sequence[str], flags: Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join([*compiler, *flags, platform.machine(), _version(compiler)]).encode())
    for path in [*_sources(), *sorted(_EMULATOR.glob("*.h"))]:
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _version(compiler: Sequence[str]) -> str:
    return run_compiler([*compiler, "--version"]).stdout


def run_compiler(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a compiler command; raises ToolchainError with its first lines of complaint when it fails."""
    try:
        # A sanitizer preloaded for Python would slow the compiler down, and refuse its leaks.
        environment = {**os.environ, "LC_ALL": "C", "LD_PRELOAD": ""}
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False,
                                stdin=subprocess.DEVNULL, env=environment)  # fmt: skip
    except OSError as error:
        raise ToolchainError(f"the C compiler {command[0]!r} cannot be run: {error}; {_INSTALL_HINT}") from error
    if result.returncode != 0:
        complaint = "\n".join(result.stderr.splitlines()[:20])
        raise ToolchainError(f"the C compiler failed: {shlex.join(command)}\n{complaint}\n"
                             f"use another one by the environment variable CC")  # fmt: skip
    return result


def _build(compiler: Sequence[str], flags: Sequence[str], target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as workspace:
            joined, library = Path(workspace) / _OBJECT_NAME, Path(workspace) / _LIBRARY_NAME
            objects = _compile_all(compiler, flags, Path(workspace))
            run_compiler([*compiler, "-r", "-nostdlib", "-o", str(joined), *objects])
            run_compiler([*compiler, "-shared", *flags, "-o", str(library), str(joined), "-lm"])
            for made in (joined, library):
                made.replace(target.parent / made.name)
    except OSError as error:
        lever = f"name a writable directory in the environment variable {CACHE_VARIABLE}"
        raise ToolchainError(f"the emulator cannot be built in {target.parent}: {error}; {lever}") from error


def _compile_all(compiler: Sequence[str], flags: Sequence[str], workspace: Path) -> list[str]:
    def compile_one(source: Path) -> str:
        made = str(workspace / f"{source.stem}.o")
        run_compiler([*compiler, *flags, "-c", str(source), "-o", made])
        return made

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(compile_one, _sources()))
