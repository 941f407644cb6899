"""A table as data, drawn in a terminal and in Markdown from the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

MISSING = "-"


@dataclass(frozen=True)
class Sheet:
    """Cells by line; the first `words` columns are text, the others numbers.

    `name` is its section's in a page, `note` says what the cells are.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""
    words: int = 1

    def rich(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title, title_justify="left", title_style="bold", caption=self.note or None,
                      caption_justify="left", box=None, header_style="bold", padding=(0, 1))  # fmt: skip
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="left" if index < self.words else "right", overflow="fold")
        for line in self.lines:
            table.add_row(*line)
        return table

    def markdown(self) -> str:
        """For a page."""
        rules = ["---" if index < self.words else "---:" for index in range(len(self.columns))]
        lines = [_markdown_line(line) for line in (self.columns, rules, *self.lines)]
        return "\n".join([*lines, *(["", self.note] if self.note else [])])


def number(value: float | None, digits: int = 2) -> str:
    """With so many decimals and thousands apart."""
    return MISSING if value is None else f"{value:,.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Of a share, 0 to 1."""
    return MISSING if share is None else f"{share:.{digits}%}"


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def difference(value: float | None, reference: float) -> str:
    """By how much a value is off its reference, in percent with sign."""
    return MISSING if value is None else f"{value / reference - 1:+.1%}"
