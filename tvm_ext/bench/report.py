"""A benchmark's JSON, held to ``npu_backend/schemas/bench.schema.json`` by the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from tvm_ext.bench.rows import Rows
from tvm_ext.bench.study import Choice, Study


@dataclass(frozen=True)
class Provenance:
    """The commit of the checkout that measured, None outside of one, and whether tracked files differ from it."""

    commit: str | None = None
    changed: bool = False

    def __str__(self) -> str:
        return "an unknown commit" if self.commit is None else f"commit {self.commit}{' with changes' * self.changed}"


def checkout() -> Provenance:
    """Of the repository that this module lies in."""
    try:
        from benchmarks.provenance import commit  # noqa: PLC0415
    except ModuleNotFoundError:
        return Provenance()
    return Provenance(*commit())


def document(choice: Choice, studies: Sequence[Study], rows: Rows, provenance: Provenance) -> dict[str, Any]:
    """The rows as they were measured, and what the studies make of them."""
    return {
        "machine": choice.machine.name,
        **asdict(provenance),
        "rows": [row.document() for row in rows.rows],
        "failures": [asdict(failure) for failure in rows.failures],
        "studies": {study.name: study.values(choice, rows) for study in studies},
    }


def sections(choice: Choice, studies: Sequence[Study], rows: Rows, provenance: Provenance) -> dict[str, str]:
    """Markdown of every table by its section's name, with the command, the machine and the commit it is from."""
    return {
        sheet.name: f"`{' '.join(['npuc bench', study.flag]).strip()}`, machine `{choice.machine.name}`,"
                    f" {provenance}:\n\n{sheet.markdown()}"
        for study in studies for sheet in study.sheets(choice, rows)
    }  # fmt: skip


def bench_schema() -> dict[str, Any]:
    """The JSON schema of `document`."""
    text = resources.files("npu_backend").joinpath("schemas/bench.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
