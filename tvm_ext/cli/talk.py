"""What a command says: its log, tables on standard output, progress on the error stream of a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LOG = logging.getLogger("npuc")
# Of tables that go into a file or a pipe.
_PLAIN_WIDTH = 140

# Shows a step of long work, with its share done or None where that is not known.
Step = Callable[[str, "float | None"], None]


@dataclass(frozen=True)
class Talk:
    """How much a command says."""

    verbose: bool = False
    quiet: bool = False

    @cached_property
    def console(self) -> Console:
        """Standard output."""
        from rich.console import Console

        return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False, emoji=False, markup=False)

    def show(self, *parts: RenderableType) -> None:
        """Prints unless --quiet."""
        if self.quiet or not parts:
            return
        with self.console.capture() as capture:
            for part in parts:
                # Lines are never broken, only tables fit the width.
                self.console.print(part, soft_wrap=isinstance(part, str))
        # Not by rich: its tables end in blanks, and it exits by itself when the pipe is closed.
        click.echo("\n".join(line.rstrip(" ") for line in capture.get().splitlines()))

    def set_up_log(self) -> None:
        """Messages of level INFO with --verbose, else warnings, on the error stream."""
        level = logging.INFO if self.verbose else logging.ERROR if self.quiet else logging.WARNING
        LOG.setLevel(level)
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("npuc: %(message)s"))
        # Replaced, not added: one process may run several commands.
        LOG.handlers[:] = [handler]
        LOG.propagate = False

    @contextmanager
    def progress(self, title: str) -> Iterator[Step]:
        """A bar for long work: yields a function that names the step; nothing is drawn on what is no terminal."""
        if self.quiet or not sys.stderr.isatty():
            yield _log_step
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=None)

            def step(name: str, share: float | None = None) -> None:
                _log_step(name, share)
                bar.update(
                    task, description=f"{title}: {name}", total=None if share is None else 1.0, completed=share or 0
                )

            yield step


def _log_step(name: str, share: float | None = None) -> None:
    del share
    LOG.info("%s", name)
