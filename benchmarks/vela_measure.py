"""Networks on the resources that Arm's compiler Vela assumes: compiled and put on the emulator's clock, beside Vela."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from models.boundary import with_codes_outside
from models.quantize import build_quantized
from npu_backend import compile_graph
from npu_backend.machine_types import Core, Machine
from npu_backend.report.figures import Figures, TimedProgram, figures
from npu_backend.runtime import Emulator
from npu_backend.strategies import STRATEGIES
from tvm_ext.bench.measure import Imported, import_file

# Clocks do not depend on values, so calibrating may be short.
CALIBRATION_IMAGES = 1


@dataclass(frozen=True)
class Estimate:
    """What a compiler estimates for one inference; megabytes are 10^6 bytes."""

    latency_ms: float
    dram_mb: float


# Vela 5.2 for ethos-u85-2048 with the system configuration Ethos_U85_SYS_DRAM_High and 512 KB of SRAM, on TFLite models
# of the same networks, weight compression counted. It prints megabytes of 2^20 bytes under the name MB; taken as 10^6
# here, which is the stricter reading.
VELA: Mapping[str, Estimate] = {
    "mobilenet_v2": Estimate(1.654, 7.8),
    "resnet50": Estimate(5.858, 57.1),
    "inception_v3": Estimate(7.032, 63.1),
}


def _with_core(machine: Machine, change: Callable[[Core], Core]) -> Machine:
    return replace(machine, cores=tuple(change(core) for core in machine.cores))


def _with_bandwidth(machine: Machine, gb_per_s: float) -> Machine:
    slower = replace(machine, dram=replace(machine.dram, bandwidth_gb_per_s=gb_per_s))
    return _with_core(slower, lambda core: replace(core, memory_gb_per_s=gb_per_s))


def _with_array(machine: Machine, output_channels: int, pixels: int) -> Machine:
    return _with_core(machine, lambda core: replace(core, mac_array=replace(
        core.mac_array, output_channels=output_channels, pixels=pixels)))  # fmt: skip


AS_IT_IS = "as it is"
# What more scratchpad would mend, and how far the figures hang on what Vela's sources leave open.
VARIANTS: Mapping[str, Callable[[Machine], Machine]] = {
    AS_IT_IS: lambda machine: machine,
    "768 KiB of scratchpad": lambda machine: machine.with_spm_bytes(768 * 1024),
    "1 MiB of scratchpad": lambda machine: machine.with_spm_bytes(1024 * 1024),
    "2 MiB of scratchpad": lambda machine: machine.with_spm_bytes(2048 * 1024),
    "DRAM at 22.35 GB/s": lambda machine: _with_bandwidth(machine, 22.35),
    "DRAM latency of 250 ns": lambda machine: replace(machine, dram=replace(machine.dram, latency_ns=250)),
    "array of 2 x 2 x 64 outputs": lambda machine: _with_array(machine, output_channels=64, pixels=4),
}


@dataclass(frozen=True)
class LayerTraffic:
    """A layer's payload from and to DRAM, and by how much it moves the end of the run."""

    name: str
    op: str
    dram_bytes: int
    latency_us: float


@dataclass(frozen=True)
class VelaRow:
    """One network by one strategy on a variant of the machine; `constant_bytes`: weights and tables, uncompressed."""

    model: str
    strategy: str
    plan: str
    variant: str
    latency_us: float
    lower_bound_us: float
    dram_bytes: int
    constant_bytes: int
    utilization: float
    layers: tuple[LayerTraffic, ...]

    @property
    def latency_ratio(self) -> float:
        """Our latency over Vela's."""
        return self.latency_us / 1000 / VELA[self.model].latency_ms

    @property
    def dram_ratio(self) -> float:
        """Our traffic over Vela's."""
        return self.dram_bytes / 1e6 / VELA[self.model].dram_mb


def load(name: str) -> Imported:
    """A network in int8 that takes its image as codes, as the TFLite models do."""
    model = with_codes_outside(build_quantized(name, images=CALIBRATION_IMAGES))
    with tempfile.TemporaryDirectory(prefix="npu_vela.") as folder:
        path = Path(folder) / f"{name}.onnx"
        onnx.save(model, path)
        return import_file(path, computes_float=False)


def measure(imported: Imported, name: str, strategy: str, machine: Machine, variant: str = AS_IT_IS) -> VelaRow:
    """The row of a network; raises what `npu_backend.pipeline.compile_graph` does."""
    changed = VARIANTS[variant](machine)
    timed = [_timed(imported, index, strategy, changed) for index in range(len(imported.graphs))]
    found = figures(timed, len(machine.cores), imported.io_bytes)
    return VelaRow(
        model=name,
        strategy=strategy,
        plan=", ".join(dict.fromkeys(one.program.metadata["plan"] for one in timed)),
        variant=variant,
        latency_us=found.latency_us,
        lower_bound_us=found.lower_bound_us,
        dram_bytes=found.dram_bytes,
        constant_bytes=sum(value.nbytes for graph in imported.graphs for value in graph.constants.values()),
        utilization=found.utilization,
        layers=_layers(found),
    )


def _timed(imported: Imported, index: int, strategy: str, machine: Machine) -> TimedProgram:
    program = compile_graph(imported.graphs[index], machine, STRATEGIES[strategy])
    with Emulator(program.to_bytes()) as emulator:
        return TimedProgram(program, emulator.time(spans=True))


def _layers(found: Figures) -> tuple[LayerTraffic, ...]:
    return tuple(LayerTraffic(layer.name, layer.op, layer.dram_bytes, layer.latency_us) for layer in found.layers)
