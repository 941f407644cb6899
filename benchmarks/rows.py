"""What a benchmark run found, as it stands in the JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ThreadsRow:
    """One inference on so many host threads: medians over `rounds` of alternating runs.

    `emulate_ms` is a functional emulation: computing (`run_ms`) and timing (`timing_ms`). `ratio` is the median over
    the rounds of its quotient with ONNX Runtime's time in the same round.
    """

    threads: int
    rounds: int
    onnxruntime_ms: float
    run_ms: float
    timing_ms: float
    emulate_ms: float
    ratio: float

    @property
    def timing_speed_up(self) -> float:
        """How many times faster timing alone is than a functional emulation."""
        return self.emulate_ms / self.timing_ms


@dataclass(frozen=True)
class CoresRow:
    """The modelled machine with so many cores, in the terms of `npuc run --json`; `speed_up` is over one core."""

    cores: int
    latency_us: float
    speed_up: float
    utilization: float
    lower_bound_us: float
    dram_bytes: int
    energy_uj: float
    instructions: int
    compile_seconds: float


@dataclass(frozen=True)
class NetworkRow:
    """One network; compile seconds are those of the most cores, without the front end.

    `mismatches` counts the output elements that differ from ONNX Runtime's, which computes transposed convolutions in
    float32. `peak_rss_bytes` is that of a process that imports, compiles and runs and does nothing else.
    """

    model: str
    input_size: int
    elements: int
    mismatches: int
    import_tvm_seconds: float
    import_seconds: float
    compile_seconds: float
    stage_seconds: Mapping[str, float]
    peak_rss_bytes: int
    threads: tuple[ThreadsRow, ...]
    cores: tuple[CoresRow, ...]

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> NetworkRow:
        """The row that `asdict` and JSON were made of."""
        lists = {
            "threads": tuple(ThreadsRow(**row) for row in values["threads"]),
            "cores": tuple(CoresRow(**row) for row in values["cores"]),
        }
        return NetworkRow(**{**values, **lists})


@dataclass(frozen=True)
class Host:
    """Where the times were taken."""

    processor: str
    logical_processors: int
    python: str
    onnxruntime: str


@dataclass(frozen=True)
class Report:
    """A whole run; `commit` is None outside a checkout, `changed` says whether tracked files differ from it."""

    machine: str
    strategy: str
    commit: str | None
    changed: bool
    host: Host
    rows: tuple[NetworkRow, ...]

    def to_json(self) -> str:
        """Indented, with a final newline."""
        return json.dumps(asdict(self), indent=1) + "\n"
