"""``npuc report`` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.tiny import npuc

Capture = pytest.CaptureFixture[str]


def test_page_of_a_model_and_its_package(tiny: Path, package: Path, tmp_path: Path, capsys: Capture) -> None:
    for model, options in ((tiny, ["--cores", 2]), (package, [])):
        page = tmp_path / f"{model.suffix[1:]}.html"
        result = npuc(capsys, "report", model, "-o", page, *options)
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith(f"{page}: tiny on exynos2100, ")
        text = page.read_text("utf-8")
        assert text.startswith("<!DOCTYPE html>")
        assert "c0_Conv" in text
        assert '"cores":2' in text


def test_what_cannot_be_written_is_told_before_compiling(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    result = npuc(capsys, "report", tiny, "-o", tmp_path / "none" / "page.html", "-v")
    assert result.code == 2
    assert "there is no directory" in result.err
    assert "npuc: import" not in result.err
    assert npuc(capsys, "report", tiny, "-o", tmp_path).code == 2
    assert npuc(capsys, "report", tiny).code == 2


def test_mistakes_leave_no_file(tiny: Path, package: Path, tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "page.html"
    for model, options, told in (
        (package, ["--cores", 3], "is compiled already: leave out --cores"),
        (tiny, ["--strategy", "magic"], "no strategy 'magic'"),
        (tmp_path / "absent.onnx", [], "absent.onnx"),
    ):
        result = npuc(capsys, "report", model, "-o", page, *options)
        assert result.code == 2
        assert told in result.err
    assert list(tmp_path.iterdir()) == []
