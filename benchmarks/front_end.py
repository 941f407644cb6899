"""The front end alone, beside TVM's own importer: `python -m benchmarks.front_end`, in whichever TVM is there."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import click
import onnx
from rich.console import Console

from benchmarks.provenance import UserMistake, commit
from models.quantize import build_quantized
from npu_backend.errors import NpuError
from npu_backend.files import check_writable, write_atomically
from tvm_ext.bench.page import read_page, rewrite_page
from tvm_ext.bench.sheet import Sheet, number
from tvm_ext.driver import import_model
from tvm_ext.generation import RELAY, generation

NETWORK = "mobilenet_v2"
TABLE_COLUMNS = 120
COLUMNS = ("model", "TVM", "clean-up", "import and partition", "the first time", "TVM's own import", "loading TVM",
           "on the NPU", "on the host")  # fmt: skip
NOTE = "Seconds, medians but for the first time and TVM's; and how many operators run where."
OWN_IMPORTERS = {RELAY: "tvm.relay.frontend"}


@dataclass(frozen=True)
class FrontEndRow:
    """One model: seconds of importing TVM, which only the first model pays, and medians of the stages over all rounds.

    `first_seconds`: import and partition in the round that came first. `own_seconds`: TVM's importer alone, once, on
    the cleaned model; None where it refuses. `npu_ops` and `host_ops` count operators.
    """

    model: str
    generation: str
    tvm: str
    rounds: int
    import_tvm_seconds: float
    clean_seconds: float
    partition_seconds: float
    first_seconds: float
    own_seconds: float | None
    npu_ops: int
    host_ops: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="[MODEL]...")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each is imported.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures there.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), metavar="FILE",
              help="Rewrite this generation's section of a page.")  # fmt: skip
def main(models: tuple[Path, ...], rounds: int, json_path: Path | None, page: Path | None) -> None:
    """Seconds from an ONNX file to NPU graphs; of MobileNetV2 in int8 where no file is named."""
    try:
        if json_path is not None:
            check_writable(json_path)
        if page is not None:
            read_page(page)
        rows = [measure(path, rounds) for path in models] or [_measure_network(rounds)]
        sheet = table(rows)
        Console(width=None if sys.stdout.isatty() else TABLE_COLUMNS).print(sheet.rich())
        if json_path is not None:
            write_atomically(json_path, to_json(rows))
        if page is not None:
            rewrite_page(page, {sheet.name: sheet.markdown()})
    except NpuError as error:
        raise UserMistake(str(error)) from error


def measure(path: Path, rounds: int) -> FrontEndRow:
    """Imports a model so many times; raises what `import_model` raises."""
    fronts = [import_model(path) for _ in range(rounds)]
    clean, partition = ([front.stage_seconds[stage] for front in fronts] for stage in ("clean", "partition"))
    parts = fronts[0].partitioned
    return FrontEndRow(
        path.stem, generation(), import_module("tvm").__version__, rounds,
        fronts[0].import_tvm_seconds, statistics.median(clean), statistics.median(partition), partition[0],
        _own_seconds(fronts[0].model), len(parts.npu_ops), len(parts.host_ops),
    )  # fmt: skip


def _own_seconds(model: onnx.ModelProto) -> float | None:
    importer = import_module(OWN_IMPORTERS.get(generation(), "tvm.relax.frontend.onnx"))
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importer.from_onnx(model)
        # It has no error class of its own.
        except Exception:  # noqa: BLE001
            return None
    return time.perf_counter() - start


def _measure_network(rounds: int) -> FrontEndRow:
    with tempfile.TemporaryDirectory(prefix="npu_bench.") as folder:
        path = Path(folder) / f"{NETWORK}.onnx"
        write_atomically(path, build_quantized(NETWORK).SerializeToString())
        return measure(path, rounds)


def table(rows: Sequence[FrontEndRow]) -> Sheet:
    """One line a model."""
    lines = [(row.model, f"{row.generation} {row.tvm}", number(row.clean_seconds),
              number(row.partition_seconds), number(row.first_seconds), number(row.own_seconds),
              number(row.import_tvm_seconds), str(row.npu_ops), str(row.host_ops)) for row in rows]  # fmt: skip
    return Sheet(f"front_end_{generation()}", "From ONNX to NPU graphs", COLUMNS, tuple(lines), NOTE, words=2)


def to_json(rows: Sequence[FrontEndRow]) -> bytes:
    """The rows and the checkout they are of."""
    revision, changed = commit()
    document = {"commit": revision, "changed": changed, "rows": [asdict(row) for row in rows]}
    return (json.dumps(document, indent=1) + "\n").encode()


if __name__ == "__main__":
    main()
