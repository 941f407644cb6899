"""The compiler's view of time: the emulator's own cost functions, asked about one instruction or one transfer.

An instruction costs what the emulator's clock gives it. A transfer costs the same set-up and latency, and its flow at
the rate it has when `sharers` equal transfers share the way to the DRAM and nothing else is under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from npu_backend import runtime
from npu_backend.encoding import encode
from npu_backend.isa import Instruction
from npu_backend.machine_types import Machine
from npu_backend.network import MachineRecords, machine_records
from npu_backend.program import DRAM_NODE, pack

_ORIGIN = slice(4, 8)


@dataclass(frozen=True)
class _Path:
    """A path by its resources; of each the bandwidth, and the share of all cores whose paths of this kind cross it."""

    latency_ns: float
    resources: tuple[int, ...]
    limits: tuple[tuple[float, float], ...]

    @property
    def own_rate(self) -> float:
        """Bytes a nanosecond of a lone transfer."""
        return min(bytes_per_ns for bytes_per_ns, _ in self.limits)

    def rate(self, sharers: int) -> float:
        """The same when so many cores, spread evenly, transfer alike."""
        return min(bytes_per_ns / max(1.0, sharers * share) for bytes_per_ns, share in self.limits)


class CostModel:
    """Costs on one machine; answers are remembered, so keep one model per machine."""

    def __init__(self, machine: Machine) -> None:
        records = machine_records(machine)
        self.machine = machine
        self.resource_bytes_per_ns: tuple[float, ...] = tuple(row["bytes_per_ns"] for row in records.resources)
        self._machine_record = pack("machine", records.machine)
        self._core_records = [pack("core", record) for record in records.cores]
        self._setup_ns = [core.dma_setup_cycles * 1000 / core.clock_mhz for core in machine.cores]
        self._paths: dict[tuple[int, int], _Path] = {}
        self._instructions: dict[tuple[int, bytes], float] = {}
        self._bursts: dict[int, int] = {}
        crossings = _crossings(records)
        for row in records.paths:
            self._paths[row["source"], row["destination"]] = self._path(row, _steps(records, row), crossings)

    def _path(self, row: Mapping[str, Any], steps: Sequence[int], crossings: Mapping[tuple[bool, int], int]) -> _Path:
        ends = row["source"], row["destination"]
        cores = len(self.machine.cores) if DRAM_NODE in ends else 0
        counts = [crossings[ends[0] == DRAM_NODE, step] / cores if cores else 0.0 for step in steps]
        latency_ns = row["latency_ns"] + (self.machine.dram.latency_ns if cores else 0)
        limits = zip((self.resource_bytes_per_ns[step] for step in steps), counts)
        return _Path(latency_ns, tuple(steps), tuple(dict.fromkeys(limits)))

    def kind(self, core: int, *, with_paths: bool) -> object:
        """What decides the costs on a core; `with_paths` also those of its transfers from and to DRAM."""
        paths = (self._paths[DRAM_NODE, core], self._paths[core, DRAM_NODE]) if with_paths else ()
        figures = tuple((path.latency_ns, path.limits) for path in paths)
        return self._core_records[core], self._setup_ns[core], figures

    def instruction_ns(self, core_index: int, instruction: Instruction) -> float:
        """Nanoseconds of one instruction of the matrix or vector engine on a core.

        Raises EmulatorError when the core cannot execute it, for example for its data type.
        """
        code = encode(instruction)
        key = core_index, code[: _ORIGIN.start] + code[_ORIGIN.stop :]
        known = self._instructions.get(key)
        if known is None:
            known = self._instructions[key] = runtime.compute_ns(self._core_records[core_index], code)
        return known

    def transfer_ns(self, core: int, payload_bytes: int, run_bytes: int, *, to_core: int | None = None,
                    store: bool = False, sharers: int = 1) -> float:  # fmt: skip
        """Nanoseconds to move `payload_bytes` in runs of `run_bytes`: from DRAM, with `store` to it, or to `to_core`.

        Set-up, latency, and whole bursts at the path's rate, with DRAM, ports and links on the way to it shared by
        `sharers` such transfers of cores spread evenly. Transfers between cores are not rounded to bursts.
        """
        if to_core is not None:
            path, moved = self._paths[core, to_core], payload_bytes
        else:
            path = self._paths[(core, DRAM_NODE) if store else (DRAM_NODE, core)]
            moved = self.burst_bytes(payload_bytes, run_bytes)
        return self._setup_ns[core] + path.latency_ns + moved / path.rate(sharers)

    def send_ns(self, core: int, to_cores: Sequence[int], payload_bytes: int) -> float:
        """Nanoseconds to send `payload_bytes` to all of `to_cores` at once, by one multicast.

        Set-up once, the latency of the farthest, and the rate of the narrowest link of the tree.
        """
        paths = [self._paths[core, to_core] for to_core in to_cores]
        latency_ns = max(path.latency_ns for path in paths)
        return self._setup_ns[core] + latency_ns + payload_bytes / min(path.own_rate for path in paths)

    def path_resources(self, source: int, destination: int) -> tuple[int, ...]:
        """What a transfer shares with others: resources of its path, by number, without those that never limit.

        An end is a core, or DRAM_NODE. The numbers are those of the program's records and of `resource_bytes_per_ns`.
        """
        return self._limiting_steps[source, destination]

    @cached_property
    def _limiting_steps(self) -> Mapping[tuple[int, int], tuple[int, ...]]:
        kept = self._limiting
        return {ends: tuple(step for step in path.resources if step in kept) for ends, path in self._paths.items()}

    @cached_property
    def _limiting(self) -> frozenset[int]:
        """Resources without those whose every path crosses one that is no wider, and is kept."""
        crossing: dict[int, set[int]] = {}
        rows = [path.resources for path in self._paths.values()]
        for number, resources in enumerate(rows):
            for resource in resources:
                crossing.setdefault(resource, set()).add(number)
        kept = set(crossing)
        for resource in sorted(crossing):
            others = kept.intersection(rows[next(iter(crossing[resource]))]) - {resource}
            if any(self._covers(crossing, other, resource) for other in others):
                kept.discard(resource)
        return frozenset(kept)

    def _covers(self, crossing: Mapping[int, set[int]], other: int, resource: int) -> bool:
        is_narrower = self.resource_bytes_per_ns[other] <= self.resource_bytes_per_ns[resource]
        return is_narrower and crossing[resource] <= crossing[other]

    def load_bytes_per_ns(self, core: int, sharers: int) -> float:
        """The rate at which a core loads from DRAM while so many cores in all do so."""
        return self._paths[DRAM_NODE, core].rate(sharers)

    def rows_ns(self, core: int, instruction: Instruction, *, sharers: int = 1) -> float:
        """Nanoseconds of a LOAD_ROWS: as many runs as its indices name."""
        values: Mapping[str, Any] = instruction.values
        run_bytes = values["run_bytes"]
        payload_bytes = run_bytes * values["index_count"] * prod(values["counts"])
        return self.transfer_ns(core, payload_bytes, run_bytes, sharers=sharers)

    def burst_bytes(self, payload_bytes: int, run_bytes: int) -> int:
        """Bytes DRAM moves for a payload in contiguous runs, each rounded up to whole bursts."""
        runs, rest = divmod(payload_bytes, run_bytes) if run_bytes else (0, payload_bytes)
        return runs * self._burst(run_bytes) + self._burst(rest)

    def _burst(self, run_bytes: int) -> int:
        if run_bytes not in self._bursts:
            self._bursts[run_bytes] = runtime.burst_bytes(self._machine_record, 1, run_bytes)
        return self._bursts[run_bytes]

    def reaches(self, core: int, to_core: int) -> bool:
        """Whether a core can write into another core's scratchpad."""
        return (core, to_core) in self._paths

    def signal_ns(self, core: int, to_core: int) -> float:
        """Nanoseconds of a signal between engines of one core, or to another core."""
        synchronization = self.machine.synchronization
        return synchronization.signal_ns if core == to_core else synchronization.cross_signal_ns


def _steps(records: MachineRecords, path: Mapping[str, Any]) -> Sequence[int]:
    return records.path_steps[path["first_step"] : path["first_step"] + path["step_count"]]


def _crossings(records: MachineRecords) -> Counter[tuple[bool, int]]:
    """How many cores' loads (True) and stores cross a resource."""
    return Counter(
        (path["source"] == DRAM_NODE, step)
        for path in records.paths if DRAM_NODE in (path["source"], path["destination"])
        for step in _steps(records, path)
    )  # fmt: skip
