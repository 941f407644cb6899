"""Whole models through the unmodified `tvmc` command: `python -m benchmarks.tvmc`, in an environment of Relay's.

Every model is compiled by one process and run by another; its outputs are compared with ONNX Runtime's.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.provenance import ROOT, UserMistake, commit, host
from models import NETWORKS
from models.quantize import build_quantized, calibration_feeds
from models.real import real_model
from models.zoo import write_model as write_quantized
from models.zoo import zoo_model, zoo_names
from npu_backend.errors import NpuError
from npu_backend.files import check_writable, write_atomically
from tvm_ext.cli.verify import Tolerance, verify
from tvm_ext.npz import read_npz
from tvm_ext.onnx_load import input_infos
from tvm_ext.package import ENGINE, VECTOR, read_package

RESNET = "resnet50_qint8"
TEXT = ("rapidocr_det", "rapidocr_cls", "rapidocr_rec")
MODELS = (*NETWORKS, RESNET, *TEXT)
COLUMNS = ("model", "compile s", "run s", "engine", "vector", "host", "elements", "mismatches", "max error")
TVMC = (sys.executable, "-m", "tvm.driver.tvmc")
TABLE_COLUMNS = 120


@dataclass(frozen=True)
class TvmcRow:
    """One model: seconds of both commands, loading Python and TVM included, and what differs from ONNX Runtime.

    `npu_ops`: operators by the part of the NPU that runs them. `max_abs`: the largest error of an output's element.
    """

    model: str
    compile_seconds: float = 0.0
    run_seconds: float = 0.0
    engine_ops: int = 0
    vector_ops: int = 0
    host_ops: int = 0
    elements: int = 0
    mismatches: int = 0
    max_abs: float | None = None
    error: str | None = None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--models", multiple=True, metavar="NAME", help="Only these; may be repeated. `list` shows them.")
@click.option("--machine", default="exynos2100", show_default=True, help="Name or TOML file.")
@click.option("--cores", type=int, default=3, show_default=True)
@click.option("--strategy", default="stratum", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures there.")
def main(models: tuple[str, ...], machine: str, cores: int, strategy: str, json_path: Path | None) -> None:
    """Six networks, a ResNet-50 and three text networks in 8 bits, through plain `tvmc`."""
    if models == ("list",):
        click.echo("\n".join(MODELS))
        return
    unknown = [name for name in models if name not in (*MODELS, *zoo_names())]
    if unknown:
        raise UserMistake(f"no model {unknown[0]!r}; choose from {', '.join(MODELS)}")
    if importlib.util.find_spec("tvm") is None or importlib.util.find_spec("tvm.driver.tvmc") is None:
        raise UserMistake("this Python has no tvmc: run it with the one that `make test-relay` sets up")
    target = f"npu -machine={machine} -cores={cores} -strategy={strategy}, llvm"
    try:
        if json_path is not None:
            check_writable(json_path)
        rows = [*_rows(models or MODELS, target)]
        _show(rows, target)
        if json_path is not None:
            write_atomically(json_path, _to_json(rows, target))
    except NpuError as error:
        raise UserMistake(str(error)) from error


def _rows(names: Sequence[str], target: str) -> Iterator[TvmcRow]:
    for name in names:
        click.echo(name, err=True)
        with tempfile.TemporaryDirectory(prefix="npu_tvmc.") as folder:
            yield _measure(name, target, Path(folder))


def _measure(name: str, target: str, folder: Path) -> TvmcRow:
    model, package, inputs, outputs = (folder / each for each in ("m.onnx", "m.tar", "in.npz", "out.npz"))
    feed = write_model(name, model)
    np.savez(inputs, **dict(feed))  # type: ignore[arg-type]
    try:
        compiling = _seconds([*TVMC, "compile", "--target", target, str(model), "-o", str(package)])
        running = _seconds([*TVMC, "run", str(package), "--inputs", str(inputs), "--outputs", str(outputs)])
    except subprocess.CalledProcessError as error:
        # In its row, so that the other models are measured.
        return TvmcRow(name, error=(error.stderr.strip().splitlines() or ["no message"])[-1])
    checked = verify(model, feed, _by_name(model, read_npz(outputs)), Tolerance())
    metadata = read_package(package).metadata
    engines = [op.engine for op in metadata.npu_ops]
    return TvmcRow(
        name, compiling, running, engines.count(ENGINE), engines.count(VECTOR), len(metadata.host_ops),
        checked.elements, checked.mismatches, checked.max_abs,
    )  # fmt: skip


def write_model(name: str, path: Path) -> Mapping[str, np.ndarray]:
    """Writes a model in 8 bits and returns inputs as its users feed it; raises MissingModelError when it is absent."""
    if name in NETWORKS:
        onnx.save(build_quantized(name), path)
        return calibration_feeds(onnx.load(path), 1)[0]
    if name == RESNET:
        path.write_bytes(real_model(RESNET).read_bytes())
        return _noise(path)
    entry = zoo_model(name)
    write_quantized(entry, "int8", entry.shapes, path)
    return entry.feed(entry.shapes)


def _noise(path: Path) -> Mapping[str, np.ndarray]:
    """Decibels, as a log-mel input is."""
    generator = np.random.default_rng(0)
    return {info.name: (generator.normal(size=info.shape) * 10 - 40).astype(info.dtype)
            for info in input_infos(onnx.load(path))}  # fmt: skip


def _by_name(model: Path, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """tvmc numbers the outputs: `output_0` and so on."""
    names = [value.name for value in onnx.load(model, load_external_data=False).graph.output]
    return {name: outputs[f"output_{index}"] for index, name in enumerate(names)}


def _seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return time.perf_counter() - start


def _show(rows: Sequence[TvmcRow], target: str) -> None:
    table = Table(title=f'tvmc --target "{target}" beside ONNX Runtime on {host().processor}')
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        table.add_row(*_cells(row))
    console = Console() if sys.stdout.isatty() else Console(width=TABLE_COLUMNS)
    console.print(table)
    for row in rows:
        if row.error is not None:
            console.print(f"{row.model}: {row.error}", markup=False)


def _cells(row: TvmcRow) -> tuple[str, ...]:
    if row.error is not None:
        return (row.model, *["-"] * (len(COLUMNS) - 1))
    error = "-" if row.max_abs is None else f"{row.max_abs:.2g}"
    counts = (row.engine_ops, row.vector_ops, row.host_ops, row.elements, row.mismatches)
    return (row.model, f"{row.compile_seconds:.1f}", f"{row.run_seconds:.1f}", *map(str, counts), error)


def _to_json(rows: Sequence[TvmcRow], target: str) -> bytes:
    revision, changed = commit()
    document = {"commit": revision, "changed": changed, "host": asdict(host()), "target": target,
                "rows": [asdict(row) for row in rows]}  # fmt: skip
    return (json.dumps(document, indent=1) + "\n").encode()


if __name__ == "__main__":
    main()
