"""A benchmark's JSON, held to ``npu_backend/schemas/bench.schema.json`` by the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema

from npu_backend.errors import OptionError
from tvm_ext.bench.rows import BenchRow, Failure, Rows
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
    except ImportError:
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


@dataclass(frozen=True)
class Recorded:
    """What an earlier run wrote: the machine's name, where the rows come from, and which studies they are for."""

    machine: str
    provenance: Provenance
    rows: Rows
    studies: tuple[str, ...]


def read_recorded(path: Path) -> Recorded:
    """The rows of a file that `document` describes. Raises OptionError for any other."""
    try:
        values = json.loads(path.read_bytes())
        jsonschema.validate(values, bench_schema())
    except (OSError, ValueError, jsonschema.ValidationError) as error:
        reason = error.message if isinstance(error, jsonschema.ValidationError) else str(error)
        raise OptionError(f"--from {path}: not what npuc bench --json writes: {reason[:200]}") from error
    rows = tuple(BenchRow.from_document(row) for row in values["rows"])
    failures = tuple(Failure(**failure) for failure in values["failures"])
    provenance = Provenance(values["commit"], values["changed"])
    return Recorded(values["machine"], provenance, Rows(rows, failures), tuple(values["studies"]))


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
