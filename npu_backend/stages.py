"""The stages between the passes: what each pass hands to the next, frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from npu_backend.box import Box, subtract_all
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa import Engine
from npu_backend.machine_types import Machine
from npu_backend.ops import spec_of
from npu_backend.ops.base import LoweredInstruction, PackedConstant, Reduction


@dataclass(frozen=True)
class Layer:
    """Operators that run as one, tile by tile: the first is the anchor, the rest are element-wise on its output."""

    ops: tuple[Op, ...]

    @property
    def anchor(self) -> Op:
        """The operator that decides how the layer may be divided."""
        return self.ops[0]

    @property
    def output(self) -> str:
        """The tensor the layer leaves behind."""
        return self.ops[-1].output

    @property
    def name(self) -> str:
        """The ONNX node a user would call it by."""
        return self.anchor.origin[0]

    @cached_property
    def inner(self) -> frozenset[str]:
        """Tensors that exist only inside the layer."""
        return frozenset(op.output for op in self.ops[:-1])


@dataclass(frozen=True)
class Fused:
    """A graph whose operators are grouped into layers, in an order in which they can run."""

    graph: Graph
    layers: tuple[Layer, ...]

    def reordered(self, sequence: Sequence[int]) -> Fused:
        """The same layers in another order in which they can run."""
        made = Fused(self.graph, tuple(self.layers[index] for index in sequence))
        # Packing them takes longer than anything else here, and they are the same.
        made.__dict__["constants"] = self.constants
        return made

    def inputs(self, layer: Layer) -> tuple[str, ...]:
        """Tensors the layer reads, each once."""
        names = (name for op in layer.ops for name in self.graph.activations(op) if name not in layer.inner)
        return tuple(dict.fromkeys(names))

    @cached_property
    def readers(self) -> Mapping[str, tuple[int, ...]]:
        """Tensor to the indices of the layers that read it, ascending."""
        readers: dict[str, list[int]] = {}
        for index, layer in enumerate(self.layers):
            for name in self.inputs(layer):
                readers.setdefault(name, []).append(index)
        return {name: tuple(indices) for name, indices in readers.items()}

    @cached_property
    def constants(self) -> Mapping[str, tuple[PackedConstant, ...]]:
        """The packed constants of every operator, by the operator's output."""
        return {op.output: spec_of(op).constants(self.graph, op) for layer in self.layers for op in layer.ops}

    def constant_bytes(self, layer: Layer) -> int:
        """Bytes of all constants of a layer, as they lie in DRAM."""
        return sum(constant.rows.size for op in layer.ops for constant in self.constants[op.output])

    def output(self, layer: Layer) -> Tensor:
        """The layer's output tensor."""
        return self.graph.tensor(layer.output)

    def needed(self, layer: Layer, out_box: Box) -> dict[str, Box]:
        """The box of every outside tensor that an output box of the layer needs."""
        boxes: dict[str, Box] = {}
        for op in layer.ops:
            for name, box in zip(self.graph.activations(op), spec_of(op).input_boxes(self.graph, op, out_box)):
                if name not in layer.inner:
                    boxes[name] = boxes[name].hull(box) if name in boxes else box
        return boxes


@dataclass(frozen=True)
class Split:
    """How a layer is divided: the output box of every core (None: the core has no part), and why."""

    direction: str
    boxes: tuple[Box | None, ...]
    reason: str

    @cached_property
    def owned(self) -> tuple[tuple[Box, ...], ...]:
        """What of its part each core is to hand on: elements that several cores compute belong to the first."""
        before: list[Box] = []
        owned = []
        for box in self.boxes:
            owned.append(() if box is None else subtract_all(box, before))
            before += [] if box is None else [box]
        return tuple(owned)

    @cached_property
    def slices(self) -> tuple[int, ...]:
        """Along every axis, into how many different intervals the cores divide the output."""
        boxes = [box for box in self.boxes if box is not None]
        return tuple(len({box.interval(axis) for box in boxes}) for axis in range(boxes[0].rank))

    @cached_property
    def shares_nothing(self) -> bool:
        """Whether no element is computed by several cores."""
        return all(owned == (() if box is None else (box,)) for owned, box in zip(self.owned, self.boxes))

    def owners(self, box: Box) -> list[tuple[int, Box]]:
        """The box in disjoint pieces, each with the core that is to hand it on."""
        starts, stops = self._bounds
        # At once for all cores: many cores ask this for what each of them needs.
        found = np.flatnonzero(((starts < box.stops) & (stops > box.starts)).all(axis=1))
        pieces = [self._owners[number] for number in found.tolist()]
        return [(core, owned.intersect(box)) for core, owned in pieces]

    @cached_property
    def _owners(self) -> list[tuple[int, Box]]:
        return [(core, box) for core, boxes in enumerate(self.owned) for box in boxes]

    @cached_property
    def _bounds(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The first and the last but one elements of all owned boxes."""
        starts = np.array([box.starts for _, box in self._owners], np.int64)
        return starts, np.array([box.stops for _, box in self._owners], np.int64)


@dataclass(frozen=True)
class Join:
    """The stratum a layer is in, and why it does or does not run on into the layer after it.

    The costs that were compared, where no rule decided: computing the overlap once more, and the waiting it saves. The
    first is negative where the parts that the next layer needs are the better balanced ones.
    """

    stratum: int
    reason: str
    recompute_ns: float | None = None
    synchronization_ns: float | None = None


@dataclass(frozen=True)
class Partitioned:
    """Every layer divided over the machine's cores.

    `barriers`: all cores wait for each other after every stratum. Layers of one stratum stand side by side.
    """

    fused: Fused
    machine: Machine
    splits: tuple[Split, ...]
    barriers: bool
    joins: tuple[Join, ...]

    def in_stratum(self, layer_index: int) -> tuple[int, ...]:
        """The readers of a layer's output that are in its own stratum."""
        readers = self.fused.readers.get(self.fused.layers[layer_index].output, ())
        return tuple(reader for reader in readers if self.joins[reader].stratum == self.joins[layer_index].stratum)

    def needed(self, layer_index: int, core: int) -> Mapping[str, Box]:
        """The box of every outside tensor that a core's part of a layer needs; empty without a part."""
        key = layer_index, core
        if key not in self._needed:
            box = self.splits[layer_index].boxes[core]
            layer = self.fused.layers[layer_index]
            self._needed[key] = {} if box is None else self.fused.needed(layer, box)
        return self._needed[key]

    @cached_property
    def _needed(self) -> dict[tuple[int, int], Mapping[str, Box]]:
        """Asked for again and again by the passes behind."""
        return {}

    def cores_of(self, layer_index: int) -> tuple[int, ...]:
        """Cores that have a part in a layer."""
        return tuple(core for core, box in enumerate(self.splits[layer_index].boxes) if box is not None)

    def out_box(self, layer_index: int, core: int) -> Box | None:
        """The core's part of the layer's output."""
        return self.splits[layer_index].boxes[core]

    def owned(self, layer_index: int, core: int) -> tuple[Box, ...]:
        """What of its part the core is to hand on: elements that several cores compute belong to the first."""
        return self.splits[layer_index].owned[core]


@dataclass(frozen=True)
class Residency:
    """A tensor that stays in the scratchpads: the box each core holds, and the last layer that reads it there."""

    tensor: str
    boxes: tuple[Box | None, ...]
    first_layer: int
    last_layer: int


@dataclass(frozen=True)
class Resident:
    """Which tensors stay in the scratchpads; all others go through DRAM."""

    partitioned: Partitioned
    residencies: Mapping[str, Residency]

    def in_scratchpad(self, tensor: str, layer_index: int) -> Residency | None:
        """The residency through which a layer reads a tensor, if it does."""
        residency = self.residencies.get(tensor)
        return residency if residency is not None and layer_index <= residency.last_layer else None

    def bytes_at(self, layer_index: int, core: int) -> int:
        """Scratchpad bytes that resident tensors take on a core while a layer runs."""
        return self._bytes[layer_index][core]

    @cached_property
    def _bytes(self) -> list[list[int]]:
        """By layer and core."""
        taken = [[0] * len(split.boxes) for split in self.partitioned.splits]
        for residency in self.residencies.values():
            itemsize = self.partitioned.fused.graph.tensor(residency.tensor).itemsize
            sizes = [0 if box is None else aligned(box.size * itemsize) for box in residency.boxes]
            for layer_index in range(residency.first_layer, residency.last_layer + 1):
                taken[layer_index] = [before + more for before, more in zip(taken[layer_index], sizes)]
        return taken


ALIGNMENT_BYTES = 64


def aligned(size_bytes: int) -> int:
    """Scratchpad bytes that a buffer of this size takes."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(frozen=True)
class TilePart:
    """One tile's output box, and the part of the reduction it sums."""

    out_box: Box
    reduction: Reduction | None = None


@dataclass(frozen=True)
class Tiling:
    """A core's part of a layer as a sequence of tiles; with two buffers, loads run one tile ahead."""

    parts: tuple[TilePart, ...]
    estimate_ns: float
    working_bytes: int
    buffers: int


@dataclass(frozen=True)
class Tiled:
    """Every core's part of every layer cut into tiles that fit its scratchpad beside what is resident.

    `planned_share` is the part of the free scratchpad that the tiles were allowed.
    """

    resident: Resident
    tilings: tuple[tuple[Tiling | None, ...], ...]
    planned_share: float


@dataclass(frozen=True, slots=True)
class Move:
    """A box of a layer's output on its way from the core that hands it on to those that need it.

    `direct`: over the network, to several readers at a time where there are more than one. Else the source puts it into
    DRAM, where the readers fetch it.
    """

    producer: int
    box: Box
    source: int
    readers: tuple[int, ...]
    direct: bool


@dataclass(frozen=True, slots=True)
class Fetch:
    """A box of a layer's output that a core loads from DRAM."""

    producer: int
    box: Box
    reader: int


@dataclass(frozen=True)
class Routed:
    """What is on its way between cores, in the order of its start, after the computation of every layer."""

    tiled: Tiled
    moves: tuple[tuple[Move, ...], ...]
    fetches: tuple[tuple[Fetch, ...], ...]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A region of one core's scratchpad: bytes, and the first and last step of the schedule that need it."""

    core: int
    size_bytes: int
    label: str
    first_step: int
    last_step: int


@dataclass(frozen=True, slots=True)
class Access:
    """What a step reads or writes: a box of a scratchpad buffer, or of a tensor in DRAM (`buffer` is then its name).

    `is_first`: a write of what no step before reads or writes there.
    """

    buffer: int | str
    box: Box
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Instructions that one engine runs back to back, with what they read and write; layer and operator of origin.

    `group`: the first of the multicast groups of the instructions, where they are parts of transfers to several cores.
    """

    core: int
    engine: Engine
    instructions: tuple[LoweredInstruction, ...]
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    layer: int
    origin: str
    group: int | None = None


@dataclass(frozen=True)
class DramLayout:
    """Where everything lies in DRAM, in bytes: packed constants, constant tensors, then all other tensors.

    The first `constant_bytes` bytes are the constants' image.
    """

    constants: Mapping[tuple[str, int], int]
    tensors: Mapping[str, int]
    constant_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Scheduled:
    """All steps in an order that is right when executed one by one; engines and semaphores relax it later."""

    routed: Routed
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    dram: DramLayout

    @property
    def tiled(self) -> Tiled:
        """The stage before routing."""
        return self.routed.tiled


@dataclass(frozen=True)
class Placed:
    """Every buffer at an address of its core's scratchpad."""

    scheduled: Scheduled
    addresses: tuple[int, ...]
    peak_bytes: tuple[int, ...]
