"""The measured sections of a Markdown page, between `<!-- begin NAME -->` and `<!-- end NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from npu_backend.errors import OptionError
from npu_backend.files import write_atomically

_MARK = re.compile(r"^<!-- (begin|end) (\S+) -->$", re.MULTILINE)


def section_names(text: str, source: str) -> list[str]:
    """The sections of a page; raises OptionError for marks that do not pair, and for a page without any."""
    marks = _MARK.findall(text)
    names = [name for kind, name in marks if kind == "begin"]
    if not names or marks != [(kind, name) for name in names for kind in ("begin", "end")]:
        found = " ".join(" ".join(mark) for mark in marks) or "none"
        raise OptionError(f"{source}: sections stand between lines <!-- begin NAME --> and <!-- end NAME -->, one after"
                          f" the other; found {found}")  # fmt: skip
    return names


def read_page(path: Path) -> str:
    """The text of a page. Raises OptionError for what cannot be read or has no sections."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--markdown {path}: cannot read it: {error}") from error
    section_names(text, str(path))
    return text


def with_sections(text: str, sections: Mapping[str, str]) -> str:
    """The page with the text of these sections anew; sections of other names stay."""
    for name, body in sections.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        head, found, rest = text.partition(begin)
        if found:
            text = f"{head}{begin}{body.strip()}\n{end}{rest.partition(end)[2]}"
    return text


def rewrite_page(path: Path, sections: Mapping[str, str]) -> None:
    """Rewrites sections of a file in place, whole or not at all.

    Raises OptionError, OutputError.
    """
    write_atomically(path, with_sections(read_page(path), sections).encode())
