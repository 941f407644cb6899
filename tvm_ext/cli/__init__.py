"""The command line ``npuc``: it sits on top of both packages, and imports neither before a command needs it."""

from __future__ import annotations

from tvm_ext.cli.app import main

__all__ = ["main"]
