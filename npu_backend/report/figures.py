"""The figures of a timed run: latency, traffic, energy, the lower bound, and the share of every core and layer.

A model may have several NPU programs, between them operators of the host; they run one after the other, so their times
add up. Time of the host is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod, sqrt

import numpy as np

from npu_backend.isa import DATA_TYPES
from npu_backend.program import Program, Record
from npu_backend.report.instructions import Instructions, instructions_of
from npu_backend.report.layers import LayerFigures, layer_figures
from npu_backend.runtime import CoreTiming, Timing


@dataclass(frozen=True)
class TimedProgram:
    """A program and how long it takes; `timing` must have spans for figures per layer."""

    program: Program
    timing: Timing

    @cached_property
    def instructions(self) -> Instructions:
        """The program's instructions as columns."""
        return instructions_of(self.program)

    @cached_property
    def layers(self) -> tuple[LayerFigures, ...]:
        """Every layer of the program, in order."""
        return layer_figures(self.program, self.instructions, self.timing)


@dataclass(frozen=True)
class CoreFigures:
    """One core over all programs.

    Its time is `busy_us` (some engine works), `sync_us` (none works, one waits for another core) and `idle_us` (the
    rest); `matrix_busy_us` and `vector_busy_us` are parts of `busy_us` that overlap. `load_bytes` and `store_bytes` are
    payload from and to DRAM, together `dram_bytes`; `noc_bytes` is what the core sends to others.
    """

    busy_us: float
    idle_us: float
    sync_us: float
    matrix_busy_us: float
    vector_busy_us: float
    dram_bytes: int
    load_bytes: int
    store_bytes: int
    noc_bytes: int
    macs: int


@dataclass(frozen=True)
class SynchronizationFigures:
    """How long a core waits for others in one layer: over all cores of the `layers` in which any does."""

    layers: int
    mean_us: float
    deviation_us: float


@dataclass(frozen=True)
class Figures:
    """What the NPU does for one inference.

    `cores_used` is the most that any program uses, the compiler may leave others idle; `cores_reason` says why it does.
    `cycles` are of core 0's clock. `macs` are the model's, on the NPU; `macs_executed` also those computed twice
    because parts overlap. `dram_bytes` and `noc_bytes` are payload. `lower_bound_us`: see `lower_bound_us`.
    """

    cycles: int
    latency_us: float
    lower_bound_us: float
    macs: int
    macs_executed: int
    dram_bytes: int
    noc_bytes: int
    spm_peak_bytes: int
    energy_uj: float
    peak_macs_per_us: float
    per_core: tuple[CoreFigures, ...]
    layers: tuple[LayerFigures, ...]
    cores_used: int
    cores_reason: str

    @property
    def utilization(self) -> float:
        """Share of the cores' peak multiply-accumulates that the model needs, 0 to 1."""
        return _ratio(self.macs, self.latency_us * self.peak_macs_per_us)

    @property
    def synchronization(self) -> SynchronizationFigures:
        """Mean and standard deviation of the waits for other cores."""
        waits = [(layer.sync_us, layer.sync_deviation_us) for layer in self.layers if layer.sync_us > 0]
        mean_us = _ratio(sum(mean for mean, _ in waits), len(waits))
        square = _ratio(sum(mean**2 + deviation**2 for mean, deviation in waits), len(waits))
        return SynchronizationFigures(len(waits), mean_us, sqrt(max(0.0, square - mean_us**2)))

    @property
    def bound_share(self) -> float:
        """The lower bound as a share of the latency, 0 to 1."""
        return _ratio(self.lower_bound_us, self.latency_us)


def figures(programs: Sequence[TimedProgram], cores: int, model_io_bytes: int | None = None) -> Figures:
    """The figures of a model's programs on `cores` cores; a model without any has zeros.

    `model_io_bytes`: bytes of the model's inputs and outputs, by default those of the programs' ports.
    """
    rows = [core for timed in programs for core in timed.timing.cores]
    latency_us = sum(timed.timing.total_ns for timed in programs) / 1000
    return Figures(
        cycles=round(latency_us * (programs[0].program.cores[0]["clock_mhz"] if programs else 0)),
        latency_us=latency_us,
        lower_bound_us=lower_bound_us([timed.program for timed in programs], model_io_bytes),
        macs=sum(map(_model_macs, programs)),
        macs_executed=sum(row.macs for row in rows),
        dram_bytes=sum(row.dram_bytes for row in rows),
        noc_bytes=sum(row.network_bytes for row in rows),
        spm_peak_bytes=max((max(timed.program.metadata["spm_peak_bytes"]) for timed in programs), default=0),
        energy_uj=sum(timed.timing.energy_pj for timed in programs) / 1e6,
        peak_macs_per_us=_peak_macs_per_us([timed.program for timed in programs]),
        per_core=tuple(_core(programs, core) for core in range(cores)),
        layers=_layers(programs),
        cores_used=max((_cores_used(timed, cores) for timed in programs), default=cores),
        cores_reason="; ".join(dict.fromkeys(filter(None, map(_cores_reason, programs)))),
    )


def plan_name(programs: Sequence[TimedProgram], strategy: str) -> str:
    """The strategy whose plan the programs follow: `strategy` falls back on a simpler one that is faster.

    Where a model's programs follow different ones, all of them.
    """
    plans = [timed.program.metadata["plan"] for timed in programs]
    return ", ".join(dict.fromkeys(plans)) or strategy


def lower_bound_us(programs: Sequence[Program], model_io_bytes: int | None = None) -> float:
    """What no plan can beat: all MACs at the peak rate of all cores, or every byte that must cross DRAM at its peak.

    The bytes are each constant, model input and model output once, as dense tensors. Intermediate tensors, latencies
    and the DRAM's efficiency are left out. The multiply-accumulates are those of the NPU's operators.
    """
    if not programs:
        return 0.0
    compute_us = sum(map(_compute_us, programs))
    io_bytes = sum(map(_port_bytes, programs)) if model_io_bytes is None else model_io_bytes
    constant_bytes: int = sum(program.metadata["constant_bytes"] for program in programs)
    # GB/s are bytes a nanosecond.
    dram_us: float = (constant_bytes + io_bytes) / programs[0].metadata["dram_peak_gb_per_s"] / 1000
    return max(compute_us, dram_us)


def peak_macs_per_us(core: Record, data_type: str = "int8") -> float:
    """Multiply-accumulates of a type a microsecond of a core's array when every lane is used."""
    lanes = core["lanes_input_channels"] * core["lanes_output_channels"] * core["lanes_pixels"]
    return float(lanes * core["rate"][DATA_TYPES[data_type]] * core["clock_mhz"])


def _compute_us(program: Program) -> float:
    """Every layer's multiply-accumulates at the peak rate of its data type, on all cores."""
    macs: Counter[str] = Counter()
    for layer in program.metadata["layers"]:
        macs[layer["data_type"]] += layer["macs"]
    return sum(
        _ratio(count, sum(peak_macs_per_us(core, data_type) for core in program.cores))
        for data_type, count in macs.items() if count
    )  # fmt: skip


def _peak_macs_per_us(programs: Sequence[Program]) -> float:
    """What all cores do of the model's multiply-accumulates, in its mixture of data types; of int8 without any."""
    if not programs:
        return 0.0
    macs: int = sum(layer["macs"] for program in programs for layer in program.metadata["layers"])
    return macs / sum(map(_compute_us, programs)) if macs else sum(map(peak_macs_per_us, programs[0].cores))


def _cores_used(timed: TimedProgram, cores: int) -> int:
    used: int = timed.program.metadata.get("cores_used", cores)
    return used


def _cores_reason(timed: TimedProgram) -> str:
    reason: str = timed.program.metadata.get("cores_reason", "")
    return reason


def _core(programs: Sequence[TimedProgram], core: int) -> CoreFigures:
    rows = [_row(timed.timing, core) for timed in programs]
    return CoreFigures(
        busy_us=sum(row.busy_ns for row in rows) / 1000,
        idle_us=sum(row.idle_ns for row in rows) / 1000,
        sync_us=sum(row.sync_ns for row in rows) / 1000,
        matrix_busy_us=sum(row.matrix_busy_ns for row in rows) / 1000,
        vector_busy_us=sum(row.vector_busy_ns for row in rows) / 1000,
        dram_bytes=sum(row.dram_bytes for row in rows),
        load_bytes=sum(row.dram_read_bytes for row in rows),
        store_bytes=sum(row.dram_bytes - row.dram_read_bytes for row in rows),
        noc_bytes=sum(row.network_bytes for row in rows),
        macs=sum(row.macs for row in rows),
    )


def _row(timing: Timing, core: int) -> CoreTiming:
    """Of a core that a program does not know it is idle."""
    return timing.cores[core] if core < len(timing.cores) else CoreTiming(0, 0, 0, 0, 0, 0, 0, 0, timing.total_ns, 0)


def _layers(programs: Sequence[TimedProgram]) -> tuple[LayerFigures, ...]:
    """All layers; strata are numbered through."""
    layers: list[LayerFigures] = []
    for timed in programs:
        first = max((layer.stratum for layer in layers), default=-1) + 1
        layers += [replace(layer, stratum=first + layer.stratum) for layer in timed.layers]
    return tuple(layers)


def _model_macs(timed: TimedProgram) -> int:
    return sum(layer["macs"] for layer in timed.program.metadata["layers"])


def _port_bytes(program: Program) -> int:
    return sum(prod(port.host_shape) * np.dtype(port.dtype).itemsize for port in program.ports)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
