"""Entry point of `python -m models`."""

from __future__ import annotations

from models.cli import main

main(prog_name="python -m models")
