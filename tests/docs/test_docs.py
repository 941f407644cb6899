"""Code that the documentation quotes is the code that runs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
QUOTE = re.compile(r"^`(?P<file>[\w/.]+)`:\n\n```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def test_quoted_code_stands_in_its_file() -> None:
    quotes = list(QUOTE.finditer((ROOT / "docs" / "add_an_operator.md").read_text()))
    assert len(quotes) == 5
    for quote in quotes:
        assert quote["code"] in (ROOT / quote["file"]).read_text(), quote["file"]
