"""The JSON of a run: names that are a contract, held to ``schemas/run.schema.json`` by the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

from npu_backend.report.critical_path import CriticalPath, critical_path
from npu_backend.report.figures import Figures, TimedProgram
from npu_backend.report.links import LinkFigures, link_figures

LONGEST_SEGMENTS = 20


@dataclass(frozen=True)
class HostOperator:
    """An operator that stays on the host: ONNX node name and type, and why."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True)
class Verification:
    """Outputs compared with a reference, all elements of all outputs together.

    `max_lsb` is the largest difference in steps of the output's codes, None where an output has no known step.
    `max_abs` is in the outputs' own unit, None where one side only is infinite or no number. `max_relative` (the error
    over its output's largest magnitude), `cosine` and `sqnr_db` (signal over error, in dB) are those of the worst
    output, None where no number can be given; `top1_agreement` is the share of rows of scores whose largest is the same
    one, None where no output looks like scores. `failures`, which is not part of the JSON, counts the mismatches beyond
    what was promised.
    """

    reference: str
    elements: int
    mismatches: int
    max_lsb: float | None
    max_abs: float | None
    max_relative: float | None
    cosine: float | None
    sqnr_db: float | None
    top1_agreement: float | None
    failures: int


@dataclass(frozen=True)
class QuantizedOutput:
    """How far an output of the quantised model is from the float model's, over the calibration samples.

    `sqnr_db`: energy of the signal over that of the error, in dB. `max_abs`: the largest error. Both are None where no
    number can be given: no error at all or no signal, values that are not finite, shapes that differ. `top1_agreement`:
    the share of samples whose largest score is the same one, None where the output is none of a classifier.
    """

    name: str
    sqnr_db: float | None
    max_abs: float | None
    top1_agreement: float | None


@dataclass(frozen=True)
class Quantization:
    """How a float model was quantised before it was compiled: types, where the `samples` came from, what it cost."""

    type: str
    activation_type: str
    weight_type: str
    per_channel: bool
    calibration: str
    samples: int
    outputs: tuple[QuantizedOutput, ...]


@dataclass(frozen=True)
class NetworkReport:
    """What the run's time is made of, and how busy each resource of the network is."""

    path: CriticalPath
    links: tuple[LinkFigures, ...]

    @staticmethod
    def of(programs: Sequence[TimedProgram]) -> NetworkReport:
        """That of programs timed with spans."""
        return NetworkReport(critical_path(programs), link_figures(programs))


@dataclass(frozen=True)
class Run:
    """Everything a run reports.

    `plan` names the strategy whose plan was taken. `npu_ops` counts ONNX nodes, `vector_ops` those of
    them that kernels of the vector processors compute; seconds are None for what was not done.
    `network` takes a moment with many instructions, so that it is None where nobody asks for it.
    """

    model: str
    machine: str
    cores: int
    strategy: str
    plan: str
    figures: Figures
    npu_ops: int
    vector_ops: int
    host_ops: Sequence[HostOperator]
    compile_seconds: float | None
    emulate_seconds: float | None
    verify: Verification | None
    quantization: Quantization | None = None
    network: NetworkReport | None = None


def run_document(run: Run) -> dict[str, Any]:
    """The run, with its network, as JSON values, in the order of the contract."""
    figures = run.figures
    assert run.network is not None, "the document tells of the network"
    return {
        "model": run.model,
        "machine": run.machine,
        "cores": run.cores,
        "cores_used": figures.cores_used,
        "cores_reason": figures.cores_reason,
        "strategy": run.strategy,
        "plan": run.plan,
        "cycles": figures.cycles,
        "latency_us": figures.latency_us,
        "lower_bound_us": figures.lower_bound_us,
        "macs": figures.macs,
        "macs_executed": figures.macs_executed,
        "dram_bytes": figures.dram_bytes,
        "noc_bytes": figures.noc_bytes,
        "spm_peak_bytes": figures.spm_peak_bytes,
        "energy_uj": figures.energy_uj,
        "compile_seconds": run.compile_seconds,
        "emulate_seconds": run.emulate_seconds,
        "synchronization": asdict(figures.synchronization),
        "per_core": [asdict(core) for core in figures.per_core],
        "layers": [{**asdict(layer), "tiles": list(layer.tiles)} for layer in figures.layers],
        "critical_path": _critical_path(run.network.path),
        "links": [asdict(link) for link in run.network.links],
        "npu_ops": run.npu_ops,
        "vector_ops": run.vector_ops,
        "host_ops": [asdict(op) for op in run.host_ops],
        "verify": None if run.verify is None else _verification(run.verify),
        **({} if run.quantization is None else {"quantization": _quantization(run.quantization)}),
    }


def _critical_path(path: CriticalPath) -> dict[str, Any]:
    segments = [asdict(segment) for segment in path.longest(LONGEST_SEGMENTS)]
    return {
        "total_us": path.total_us, "by_kind": path.by_kind, "by_layer": list(path.by_layer), "segments": segments,
    }  # fmt: skip


def _quantization(quantization: Quantization) -> dict[str, Any]:
    return {**asdict(quantization), "outputs": [asdict(output) for output in quantization.outputs]}


def _verification(verification: Verification) -> dict[str, Any]:
    return {name: value for name, value in asdict(verification).items() if name != "failures"}


def to_json(document: Any) -> bytes:
    """Text for a file; not a number and infinities are our own bugs."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def run_schema() -> dict[str, Any]:
    """The JSON schema of `run_document`."""
    return _schema("run")


def ops_schema() -> dict[str, Any]:
    """The JSON schema of where every node of a model runs."""
    return _schema("ops")


@cache
def _schema(name: str) -> dict[str, Any]:
    text = resources.files("npu_backend").joinpath(f"schemas/{name}.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
