"""Calibrates the exynos2100: the free parameters that bring four published latencies within five percent.

`python -m benchmarks.calibrate` searches from the assumptions below and writes what it finds into the machine's file;
`make calibrate` is that. Only the InceptionV3 stem of Jung et al., CGO 2023, and the one-core figure of the ISCA 2021
industry track are looked at; everything else the model predicts is a test of it.

The search goes over the parameters in turn and takes the best of the neighbouring values, until none is better. Where
all four figures are well inside five percent it goes for what lies nearest to the assumptions.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import cycle
from pathlib import Path

import click
import onnx
from rich.console import Console
from rich.table import Table

from models.boundary import with_codes_outside
from models.inception_v3 import inception_v3_stem
from models.quantize import build_quantized, calibration_feeds, quantize
from npu_backend import compile_graph, load_machine
from npu_backend.files import write_atomically
from npu_backend.graph import Graph
from npu_backend.machine import machine_path
from npu_backend.machine_types import Machine
from npu_backend.runtime import Emulator
from npu_backend.strategies import STRATEGIES, STRATUM_ONLY, Strategy
from tvm_ext.bench.paper import STEM
from tvm_ext.driver import import_model

MACHINE = "exynos2100"
IMAGES = 1
# The fit is as good as asked for where no figure is further off than this.
GOOD_ENOUGH = 0.045
# What a step away from an assumption must gain.
STEP_PRICE = 1e-4


@dataclass(frozen=True)
class Target:
    """A published latency in us, and what to run for it."""

    name: str
    latency_us: float
    network: str
    strategy: Strategy
    cores: int


TARGETS = (
    Target("stem, +Halo only [CGO23]", STEM["halo"].latency_us, "stem", STRATEGIES["halo"], 3),
    Target("stem, +Stratum only [CGO23]", STEM["stratum-only"].latency_us, "stem", STRATUM_ONLY, 3),
    Target("stem, both [CGO23]", STEM["stratum"].latency_us, "stem", STRATEGIES["stratum"], 3),
    Target("InceptionV3, one core [ISCA21]", 3440.0, "inception_v3", STRATEGIES["single"], 1),
)


@dataclass(frozen=True)
class Parameter:
    """A key of the machine's file with the values that are plausible, and the one assumed before."""

    key: str
    values: tuple[float, ...]
    assumed: float


PARAMETERS = (
    Parameter("fill_cycles", tuple(range(25)), 0),
    Parameter("vector_lanes", (64, 128, 256), 64),
    Parameter("npu0.memory_gb_per_s", (22, 26, 30, 34, 38), 22),
    Parameter("npu1.memory_gb_per_s", (10, 12, 14, 16, 20, 24), 16),
    Parameter("npu2.memory_gb_per_s", (14, 16, 18, 20, 24, 28), 18),
    Parameter("efficiency", (0.7, 0.75, 0.8, 0.85), 0.75),
    Parameter("matrix_fill_cycles", (16, 32, 64, 96), 64),
    Parameter("dma_setup_cycles", (24, 60, 120, 240), 120),
    Parameter("cross_signal_ns", (500, 1000, 2000, 4000), 1000),
)
Values = tuple[float, ...]


def with_values(machine: Machine, values: Values) -> Machine:
    """The machine with the parameters set."""
    given = dict(zip((parameter.key for parameter in PARAMETERS), values, strict=True))
    cores = []
    for core in machine.cores:
        array = replace(core.mac_array, fill_cycles=int(given["fill_cycles"]))
        port = float(given.get(f"{core.name}.memory_gb_per_s", core.memory_gb_per_s))
        cores.append(replace(
            core, mac_array=array, memory_gb_per_s=port, vector_lanes=int(given["vector_lanes"]),
            matrix_fill_cycles=int(given["matrix_fill_cycles"]), dma_setup_cycles=int(given["dma_setup_cycles"]),
        ))  # fmt: skip
    waits = replace(machine.synchronization, cross_signal_ns=float(given["cross_signal_ns"]))
    dram = replace(machine.dram, efficiency=given["efficiency"])
    return replace(machine, cores=tuple(cores), synchronization=waits, dram=dram)


@dataclass
class Fit:
    """What the model says for parameters, remembered."""

    machine: Machine
    known: dict[tuple[Values, Target], float] = field(default_factory=dict)

    @cached_property
    def graphs(self) -> dict[str, Graph]:
        """The two networks, codes in and out as on the phone."""
        stem = inception_v3_stem()
        return {
            "stem": _imported(quantize(stem, calibration_feeds(stem, IMAGES))),
            "inception_v3": _imported(build_quantized("inception_v3", images=IMAGES)),
        }

    def latency_us(self, values: Values, target: Target) -> float:
        """What the model says."""
        if (values, target) not in self.known:
            machine = with_values(self.machine, values).take(target.cores)
            self.known[values, target] = _latency_us(self.graphs[target.network], machine, target.strategy)
        return self.known[values, target]

    def error(self, values: Values, target: Target) -> float:
        """Relative."""
        return self.latency_us(values, target) / target.latency_us - 1

    def price(self, values: Values, bound: float = float("inf")) -> float:
        """What the search makes small; where it is above `bound`, some price above."""
        steps = sum(abs(parameter.values.index(value) - parameter.values.index(parameter.assumed))
                    for parameter, value in zip(PARAMETERS, values, strict=True))  # fmt: skip
        price = GOOD_ENOUGH + STEP_PRICE * steps
        for target in TARGETS:
            # The stem comes first: it takes a fraction of the time of the whole network.
            if price > bound:
                break
            price = max(price, abs(self.error(values, target)) + STEP_PRICE * steps)
        return price


def search(fit: Fit, told: Console) -> Values:
    """The values at which no neighbour is better."""
    best = tuple(parameter.assumed for parameter in PARAMETERS)
    price, unchanged = fit.price(best), 0
    for index in cycle(range(len(PARAMETERS))):
        if unchanged == len(PARAMETERS):
            break
        unchanged += 1
        for values in _neighbours(best, index):
            other = fit.price(values, price)
            if other < price:
                best, price, unchanged = values, other, 0
        errors = ", ".join(f"{fit.error(best, target):+.1%}" for target in TARGETS)
        told.print(f"{len(fit.known):4} tried, price {price:.4f}: {_listed(best)}: {errors}")
    return best


def _neighbours(values: Values, index: int) -> Iterator[Values]:
    """One parameter some steps up or down, alone or with the first one a step the other way."""
    parameter, first = PARAMETERS[index], PARAMETERS[0]
    position = parameter.values.index(values[index])
    for step in (-8, -4, -2, -1, 1, 2, 4, 8):
        if 0 <= position + step < len(parameter.values):
            moved = (*values[:index], parameter.values[position + step], *values[index + 1 :])
            yield moved
            for turn in (-1, 1) if index else ():
                yield (first.values[min(max(first.values.index(values[0]) + turn, 0), 24)], *moved[1:])


def _imported(model: onnx.ModelProto) -> Graph:
    with tempfile.TemporaryDirectory(prefix="npu_calibrate.") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(with_codes_outside(model), path)
        (graph,) = import_model(path).partitioned.graphs.values()
    return graph


def _latency_us(graph: Graph, machine: Machine, strategy: Strategy) -> float:
    with Emulator(compile_graph(graph, machine, strategy).to_bytes()) as emulator:
        return emulator.time().total_ns / 1000


def _listed(values: Values) -> str:
    return " ".join(f"{parameter.key}={value:g}" for parameter, value in zip(PARAMETERS, values, strict=True))


def written(text: str, values: Values) -> str:
    """The machine's file with the values; comments stay."""
    for parameter, value in zip(PARAMETERS, values, strict=True):
        core, _, key = parameter.key.rpartition(".")
        before = rf'(name = "{core}"\n(?:.*\n)*?{key} = )' if core else rf"(^{key} = )"
        found = re.search(rf"{before}([0-9._]+ *)", text, re.MULTILINE)
        assert found is not None, parameter.key
        # In the old number's width, so that the comments stay in line.
        number = f"{float(value):.1f}" if core else f"{value:g}"
        text = text[: found.start(2)] + number.ljust(len(found[2])) + text[found.end(2) :]
    return text


def _table(fit: Fit, values: Values) -> Table:
    table = Table(box=None, header_style="bold")
    for name in ("figure", "published us", "model us", "off by"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for target in TARGETS:
        us, error = fit.latency_us(values, target), fit.error(values, target)
        table.add_row(target.name, f"{target.latency_us:g}", f"{us:.1f}", f"{error:+.1%}")
    return table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--check", is_flag=True, help="Search nothing: show what the file's values give.")
def main(check: bool) -> None:
    """Search the exynos2100's free parameters and write them into its file."""
    console, path = Console(width=120), machine_path(MACHINE)
    machine = load_machine(MACHINE)
    fit = Fit(machine)
    values = values_of(machine) if check else search(fit, console)
    console.print(_table(fit, values))
    if not check:
        write_atomically(path, written(path.read_text(), values).encode())
        console.print(f"written into {path.name}: {_listed(values)}")


def values_of(machine: Machine) -> Values:
    """The parameters as the machine has them."""
    core = machine.cores[0]
    ports = {f"{each.name}.memory_gb_per_s": each.memory_gb_per_s for each in machine.cores}
    known = {"fill_cycles": core.mac_array.fill_cycles, "vector_lanes": core.vector_lanes,
             "matrix_fill_cycles": core.matrix_fill_cycles, "dma_setup_cycles": core.dma_setup_cycles,
             "efficiency": machine.dram.efficiency, "cross_signal_ns": machine.synchronization.cross_signal_ns,
             **ports}  # fmt: skip
    return tuple(known[parameter.key] for parameter in PARAMETERS)


if __name__ == "__main__":
    main()
