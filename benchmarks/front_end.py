"""The front end alone: `python -m benchmarks.front_end`, in whichever TVM generation its Python has."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import click
from rich.console import Console

from benchmarks.provenance import UserMistake, commit
from models.quantize import build_quantized
from npu_backend.errors import NpuError
from npu_backend.files import check_writable, write_atomically
from tvm_ext.bench.sheet import Sheet, number
from tvm_ext.driver import import_model
from tvm_ext.generation import generation

NETWORK = "mobilenet_v2"
TABLE_COLUMNS = 120
COLUMNS = ("model", "TVM", "import of TVM s", "clean-up s", "import and partition s", "at first s", "NPU", "host")


@dataclass(frozen=True)
class FrontEndRow:
    """One model: seconds of importing TVM, which only the first model pays, and medians of the stages over all rounds.

    `first_seconds`: import and partition in the round that came first. `npu_ops` and `host_ops` count operators.
    """

    model: str
    generation: str
    tvm: str
    rounds: int
    import_tvm_seconds: float
    clean_seconds: float
    partition_seconds: float
    first_seconds: float
    npu_ops: int
    host_ops: int


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="[MODEL]...")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each is imported.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures there.")
def main(models: tuple[Path, ...], rounds: int, json_path: Path | None) -> None:
    """Seconds from an ONNX file to NPU graphs; of MobileNetV2 in int8 where no file is named."""
    try:
        if json_path is not None:
            check_writable(json_path)
        rows = [measure(path, rounds) for path in models] or [_measure_network(rounds)]
        Console(width=None if sys.stdout.isatty() else TABLE_COLUMNS).print(table(rows).rich())
        if json_path is not None:
            write_atomically(json_path, to_json(rows))
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
        len(parts.npu_ops), len(parts.host_ops),
    )  # fmt: skip


def _measure_network(rounds: int) -> FrontEndRow:
    with tempfile.TemporaryDirectory(prefix="npu_bench.") as folder:
        path = Path(folder) / f"{NETWORK}.onnx"
        write_atomically(path, build_quantized(NETWORK).SerializeToString())
        return measure(path, rounds)


def table(rows: Sequence[FrontEndRow]) -> Sheet:
    """One line a model."""
    lines = [(row.model, f"{row.generation} {row.tvm}", number(row.import_tvm_seconds), number(row.clean_seconds),
              number(row.partition_seconds), number(row.first_seconds), str(row.npu_ops), str(row.host_ops))
             for row in rows]  # fmt: skip
    return Sheet("front_end", "From ONNX to NPU graphs", COLUMNS, tuple(lines), words=2)


def to_json(rows: Sequence[FrontEndRow]) -> bytes:
    """The rows and the checkout they are of."""
    revision, changed = commit()
    document = {"commit": revision, "changed": changed, "rows": [asdict(row) for row in rows]}
    return (json.dumps(document, indent=1) + "\n").encode()


if __name__ == "__main__":
    main()
