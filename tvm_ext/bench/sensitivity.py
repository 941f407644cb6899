"""The paper's ratios on variants of the machine: one of its resources halved and doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from npu_backend.machine_types import Core, Machine
from npu_backend.strategies import STRATEGIES
from tvm_ext.bench.ladder import mean_ratio, ratio_of
from tvm_ext.bench.measure import Case
from tvm_ext.bench.paper import ONE_CORE, RATIOS, Ratio
from tvm_ext.bench.rows import Rows
from tvm_ext.bench.sheet import MISSING, Sheet, number
from tvm_ext.bench.sources import Source
from tvm_ext.bench.study import Choice

FACTORS = (0.5, 2.0)


@dataclass(frozen=True)
class Sensitivity:
    """One core and the ladder on all cores, for every variant."""

    name: str = "sensitivity"
    flag: str = "--sensitivity"

    def sources(self, choice: Choice) -> Sequence[Source]:
        return choice.sources

    def cases(self, choice: Choice) -> Sequence[Case]:
        return [case for machine in variants(choice.machine).values() for case in _cases(choice, machine)]

    def sheets(self, choice: Choice, rows: Rows) -> Sequence[Sheet]:
        return [
            Sheet(
                name="sensitivity",
                title=f"{choice.machine.name}, {choice.most_cores} cores: the ratios where a resource is scaled",
                columns=("variant", *(ratio.name for ratio in RATIOS)),
                lines=tuple(_lines(choice, rows)),
                note="Geometric means. DRAM bandwidth: the memory's and that of the cores' ports to it. MACs: pixels a"
                     " cycle.",
            )
        ]  # fmt: skip

    def values(self, choice: Choice, rows: Rows) -> Mapping[str, Any]:
        return {
            name: {ratio.name.replace(" ", "_"): mean_ratio(replace(choice, machine=machine), rows, ratio)
                   for ratio in RATIOS}
            for name, machine in variants(choice.machine).items()
        }  # fmt: skip


def variants(machine: Machine) -> dict[str, Machine]:
    """The machine as it is, and with each resource scaled; every one has a name of its own."""
    scaled = {
        f"{resource} x {factor:g}": scale(machine, factor) for resource, scale in _SCALES.items() for factor in FACTORS
    }
    named = {name: replace(variant, name=f"{machine.name}, {name}") for name, variant in scaled.items()}
    return {"as it is": machine, **named}


def _dram(machine: Machine, factor: float) -> Machine:
    dram = replace(machine.dram, bandwidth_gb_per_s=machine.dram.bandwidth_gb_per_s * factor)
    scaled = replace(machine, dram=dram)
    return _cores(scaled, lambda core: replace(core, memory_gb_per_s=core.memory_gb_per_s * factor))


def _synchronization(machine: Machine, factor: float) -> Machine:
    costs = machine.synchronization
    scaled = replace(costs, signal_ns=costs.signal_ns * factor, cross_signal_ns=costs.cross_signal_ns * factor)
    return replace(machine, synchronization=scaled)


def _scratchpad(machine: Machine, factor: float) -> Machine:
    def scale(core: Core) -> Core:
        banks = max(1, round(core.spm_bytes * factor / core.spm_banks))
        return replace(core, spm_bytes=banks * core.spm_banks)

    return _cores(machine, scale)


def _macs(machine: Machine, factor: float) -> Machine:
    def scale(core: Core) -> Core:
        array = core.mac_array
        pixels, depthwise = (max(1, round(count * factor)) for count in (array.pixels, array.depthwise_pixels))
        return replace(core, mac_array=replace(array, pixels=pixels, depthwise_pixels=depthwise))

    return _cores(machine, scale)


def _cores(machine: Machine, scale: Callable[[Core], Core]) -> Machine:
    return replace(machine, cores=tuple(map(scale, machine.cores)))


_SCALES: Mapping[str, Callable[[Machine, float], Machine]] = {
    "DRAM bandwidth": _dram,
    "synchronisation cost": _synchronization,
    "scratchpad": _scratchpad,
    "MACs": _macs,
}


def _cases(choice: Choice, machine: Machine) -> Iterator[Case]:
    ladder = [STRATEGIES[name] for name in dict.fromkeys(ratio.strategy for ratio in RATIOS)]
    for source in choice.sources:
        yield choice.case(source.name, STRATEGIES[ONE_CORE], 1, machine)
        for strategy in ladder:
            yield choice.case(source.name, strategy, choice.most_cores, machine)


def _lines(choice: Choice, rows: Rows) -> Iterator[tuple[str, ...]]:
    for name, machine in variants(choice.machine).items():
        on_variant = replace(choice, machine=machine)
        yield (name, *(_cell(on_variant, rows, ratio) for ratio in RATIOS))


def _cell(choice: Choice, rows: Rows, ratio: Ratio) -> str:
    """The mean; where models are missing, of how many."""
    there = sum(ratio_of(choice, rows, ratio, source.name) is not None for source in choice.sources)
    some = f" ({there} of {len(choice.sources)})" if 0 < there < len(choice.sources) else ""
    return f"{number(mean_ratio(choice, rows, ratio))}{some}" if there else MISSING
