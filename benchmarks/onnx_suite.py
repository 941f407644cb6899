"""ONNX's backend suite on the NPU and on TVM's own CPU build: `python -m benchmarks.onnx_suite`; takes up where it was.

Every result is a line of JSON under ``build/onnx_suite``: the NPU's by commit, TVM's by its version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import click

from benchmarks.onnx_cases import Case, cases
from benchmarks.onnx_suite_run import NPU, PASSED, TVM, UNAVAILABLE, Result, run_all
from benchmarks.onnx_suite_tables import document
from benchmarks.provenance import ROOT, commit
from npu_backend.files import write_atomically

FOLDER = ROOT / "build" / "onnx_suite"
_CHANGED = "-changed"
# The networks of category real take minutes, everything else a fraction of a second.
LIMIT_SECONDS, NETWORK_LIMIT_SECONDS = 60.0, 900.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", metavar="REGEX", default="", help="Cases whose category/name it is found in.")
@click.option("--side", "sides", type=click.Choice((NPU, TVM)), multiple=True, default=(TVM, NPU), show_default=True)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@click.option("--again", is_flag=True, help="Run what has a result too.")
@click.option("--report", is_flag=True, help="Run nothing: tell the results that are there.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the tables.")
def main(only: str, sides: tuple[str, ...], workers: int, again: bool, report: bool, markdown: Path | None) -> None:
    """Run the suite's cases, each in a process that may crash or hang, and say how they went."""
    chosen = [case for case in cases() if re.search(only, case.key)]
    results: dict[str, dict[str, Result]] = {}
    for side in sides:
        # What TVM passes comes first: a run that is cut short still says whether it passes here.
        passes = {key for key, result in results.get(TVM, {}).items() if result.status == PASSED}
        first = sorted(chosen, key=lambda case: case.key not in passes)
        results[side] = _results(side, [] if report else first, workers, again)
    revision, changed = commit()
    text = document(chosen, results, f"{revision}{' with changes' if changed else ''}")
    if markdown is None:
        click.echo(text)
    else:
        write_atomically(markdown, text.encode())


def _results(side: str, chosen: Sequence[Case], workers: int, again: bool) -> dict[str, Result]:
    path = FOLDER / f"{_name(side)}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    # What has changed since the commit may have changed again since the results.
    known = {} if again or path.stem.endswith(_CHANGED) else _read(path)
    known.update((case.key, Result(case.key, UNAVAILABLE)) for case in chosen if not case.is_available)
    left = [case for case in chosen if case.key not in known]
    with path.open("a") as file, click.progressbar(length=len(left), label=f"{side:4}") as bar:
        for is_network, limit_seconds in ((False, LIMIT_SECONDS), (True, NETWORK_LIMIT_SECONDS)):
            some = [case for case in left if (case.category == "real") == is_network]
            for result in run_all(some, side, workers=1 if is_network else workers, limit_seconds=limit_seconds):
                known[result.case] = result
                file.write(json.dumps(asdict(result)) + "\n")
                file.flush()
                bar.update(1)
    return known


def _name(side: str) -> str:
    if side == TVM:
        return f"tvm-{version('apache-tvm')}"
    revision, changed = commit()
    return f"npu-{revision}{_CHANGED if changed else ''}"


def _read(path: Path) -> dict[str, Result]:
    """The last result of every case; a line that was cut off counts as none."""
    lines: Iterable[str] = path.read_text().splitlines() if path.is_file() else ()
    results = [Result(**json.loads(line)) for line in lines if line.endswith("}")]
    return {result.case: result for result in results}


if __name__ == "__main__":
    main()
