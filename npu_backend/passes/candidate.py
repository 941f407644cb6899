"""What the partition pass looks at: a layer, how it may be divided, and how its inputs are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm

from npu_backend.box import Box
from npu_backend.graph import Op
from npu_backend.machine_types import Machine
from npu_backend.ops import spec_of
from npu_backend.stages import Fused, Layer, Split

# A feature map is expected to stay in the scratchpads when it takes no more than this share of all of them.
SCRATCHPAD_SHARE = 0.5


@dataclass(frozen=True)
class Candidate:
    """A layer with what decides how it is divided; `axes` maps a possible direction to its axis and multiple."""

    fused: Fused
    layer: Layer
    machine: Machine
    axes: dict[str, tuple[int, int]]
    input_bytes: int
    weight_bytes: int
    # How the inputs that layers compute are divided.
    sources: Mapping[str, Split]
    # Whether feature maps stay in the scratchpads where they can.
    forward: bool

    @staticmethod
    def of(fused: Fused, layer: Layer, machine: Machine, sources: Mapping[str, Split], forward: bool) -> Candidate:
        graph = fused.graph
        inputs = sum(graph.tensor(name).size_bytes for name in fused.inputs(layer))
        axes, weights = axes_of(fused, layer, machine), fused.constant_bytes(layer)
        return Candidate(fused, layer, machine, axes, inputs, weights, sources, forward)

    @property
    def output_box(self) -> Box:
        return self.fused.output(self.layer).box

    @property
    def op(self) -> Op:
        return self.layer.anchor

    def can_stay(self, name: str) -> bool:
        """Whether a tensor may live in the scratchpads between its layers: it is computed, read, and small enough."""
        graph = self.fused.graph
        inside = name in graph.producers and name not in graph.output_names
        room = sum(core.spm_bytes for core in self.machine.cores) * SCRATCHPAD_SHARE
        return self.forward and inside and graph.tensor(name).size_bytes <= room


def axes_of(fused: Fused, layer: Layer, machine: Machine) -> dict[str, tuple[int, int]]:
    """The axis of every direction in which a layer can be divided, and the multiple that its parts must have."""
    allowed = dict(spec_of(layer.anchor).split_axes(fused.graph, layer.anchor))
    shape = fused.output(layer).shape
    last = len(shape) - 1
    outer = next((axis for axis in sorted(allowed) if axis != last and shape[axis] > 1), None)
    wanted = {"rows": 1 if len(shape) == 4 else outer, "columns": 2 if len(shape) == 4 else None, "channels": last}
    axes = {}
    for direction, axis in wanted.items():
        if axis is None or axis not in allowed:
            continue
        multiple = allowed[axis]
        if direction == "channels":
            multiple = lcm(multiple, machine.cores[0].channel_alignment)
        if shape[axis] > multiple:
            axes[direction] = (axis, multiple)
    return axes
