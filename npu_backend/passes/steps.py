"""What the schedule is built of: steps, buffers with their lives, and where resident tensors lie."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from npu_backend.box import Box
from npu_backend.isa import Engine
from npu_backend.stages import Buffer, DramLayout, Fused, Routed, Step, Tiled, aligned

Interval = tuple[int, int]
# A packed constant by its operator's output and its number, and the rows and columns of it.
Slice = tuple[tuple[str, int], tuple[Interval, Interval]]


def slice_bytes(key: tuple[Interval, Interval]) -> int:
    """Bytes of a slice of a packed constant: rows times columns."""
    (first, last), (low, high) = key
    return (last - first) * (high - low)


@dataclass
class StepBuilder:
    """The steps and buffers so far, the buffers of resident tensors, and the constants that were loaded early."""

    routed: Routed
    dram: DramLayout
    stored: frozenset[str]
    early_share: float
    buffers: list[Buffer] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    resident: dict[tuple[str, int], int] = field(default_factory=dict)
    # By core, then by layer.
    prefetched: dict[int, dict[int, dict[Slice, int]]] = field(default_factory=dict)
    groups: int = 0
    put_into_dram: set[tuple[str, Box]] = field(default_factory=set)

    @cached_property
    def tiled(self) -> Tiled:
        """The layers in tiles."""
        return self.routed.tiled

    @cached_property
    def fused(self) -> Fused:
        """The graph in layers."""
        return self.tiled.resident.partitioned.fused

    def buffer(self, core: int, size_bytes: int, label: str) -> int:
        """A new buffer whose life starts at the next step."""
        position = len(self.steps)
        self.buffers.append(Buffer(core, aligned(size_bytes), label, position, position))
        return len(self.buffers) - 1

    def hold(self, buffer: int) -> None:
        """Keeps a buffer alive until the newest step."""
        held, newest = self.buffers[buffer], len(self.steps) - 1
        if held.last_step < newest:
            self.buffers[buffer] = Buffer(held.core, held.size_bytes, held.label, held.first_step, newest)

    def step(self, step: Step) -> None:
        """Appends a step and keeps its buffers alive."""
        self.steps.append(step)
        for access in (*step.reads, *step.writes):
            if isinstance(access.buffer, int):
                self.hold(access.buffer)

    def early(self, index: int, core: int) -> dict[Slice, int]:
        """The buffers of a layer's constants that a core has loaded early and not used yet; the caller's to change."""
        return self.prefetched.setdefault(core, {}).setdefault(index, {})

    def new_groups(self, count: int) -> int:
        """The first of so many multicast groups that nothing uses yet."""
        self.groups += count
        return self.groups - count

    def share_loads(self, start: int) -> None:
        """Makes one transfer for all of the loads since step `start` that bring several cores the same from DRAM."""
        if not self.tiled.resident.partitioned.machine.network.multicast:
            return
        alike: dict[object, list[int]] = {}
        latest: dict[int, int] = {}
        for number, step in enumerate(self.steps[start:], start):
            key = _shared_key(step) if step.engine is Engine.LOAD else None
            if key is None:
                continue
            members = alike.setdefault(key, [number])
            # In the order of each one's first load: cores that took them in another order would wait for each other.
            if members[0] >= latest.get(step.core, 0) and step.core not in {self.steps[each].core for each in members}:
                members.append(number)
            latest[step.core] = max(latest.get(step.core, 0), members[0])
        for members in alike.values():
            self._share(members)

    def _share(self, members: list[int]) -> None:
        if len(members) > 1:
            group = self.new_groups(len(self.steps[members[0]].instructions))
            for number in members:
                self.steps[number] = replace(self.steps[number], group=group)

    def room_ahead_bytes(self, core: int, index: int, following: int) -> int:
        """Scratchpad bytes that stay free from one layer to another, beside what is loaded early already."""
        resident, spm_bytes = self.tiled.resident, self.tiled.resident.partitioned.machine.cores[core].spm_bytes
        busiest = max(
            resident.bytes_at(i, core) + (tiling.working_bytes if (tiling := self.tiled.tilings[i][core]) else 0)
            for i in range(index, following + 1)
        )
        slices = (key for early in self.prefetched.get(core, {}).values() for _, key in early)
        early = sum(aligned(slice_bytes(key)) for key in slices)
        return int(spm_bytes * self.early_share) - busiest - early

    def resident_box(self, tensor: str, core: int) -> Box:
        """The box of a resident tensor that a core's buffer holds."""
        box = self.tiled.resident.residencies[tensor].boxes[core]
        assert box is not None, (tensor, core)
        return box

    def open_resident(self, index: int, core: int) -> None:
        """Makes a core's buffer for what a layer leaves resident there, if it does and there is none yet."""
        tensor = self.fused.layers[index].output
        residency = self.tiled.resident.residencies.get(tensor)
        if residency is None or residency.boxes[core] is None or (tensor, core) in self.resident:
            return
        size = self.resident_box(tensor, core).size * self.fused.graph.tensor(tensor).itemsize
        self.resident[tensor, core] = self.buffer(core, size, tensor)


def _shared_key(step: Step) -> object:
    """The DRAM side of a step's loads, or None where they fetch rows by index."""
    sides = []
    for instruction in step.instructions:
        if instruction.name != "LOAD":
            return None
        sides.append(tuple(instruction.values[name] for name in ("dram", "run_bytes", "counts", "dram_strides")))
    return tuple(sides)
