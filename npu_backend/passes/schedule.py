"""Schedule: every load, computation and store as one list of steps that is right when run in order.

Within a core the loads of a tile stand before the computation of the one before it, so that they overlap; the first
tile's constants stand before the last computation of the layer before. Halos move right after the layer that computes
them. Emission later keeps only the order that data demands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from npu_backend.box import Box, subtract_all
from npu_backend.graph import Op
from npu_backend.isa import CHANNEL_BLOCK, FORMAT_BY_NAME, Engine
from npu_backend.ops.base import Address, ConstantOperand, LoweredInstruction, Operand
from npu_backend.passes.dram import lay_out_dram, stored_tensors
from npu_backend.passes.lower import LoweredOp, constant_slice, dense_operand, lower_part, ops_of_part, part_needs
from npu_backend.passes.reside import needed_boxes
from npu_backend.passes.transfers import constant_load, load_box, send_box, store_box
from npu_backend.stages import (
    Access,
    Buffer,
    DramLayout,
    Fused,
    Layer,
    Scheduled,
    Step,
    Tiled,
    TilePart,
    Tiling,
    aligned,
)


def schedule(tiled: Tiled, early_share: float) -> Scheduled:
    """The steps of the whole graph and the buffers they use.

    `early_share` of a scratchpad may be taken when constants are loaded before their layer; 0 loads none early.
    """
    builder = _Builder(tiled, lay_out_dram(tiled), stored_tensors(tiled.resident), early_share)
    for index in range(len(tiled.tilings)):
        builder.add_layer(index)
    return Scheduled(tiled, tuple(builder.buffers), tuple(builder.steps), builder.dram)


# How many layers ahead constants are loaded; more brings nothing and costs compile time.
LAYERS_AHEAD = 4

Interval = tuple[int, int]
# A packed constant by its operator's output and its number, and the rows and columns of it.
_Slice = tuple[tuple[str, int], tuple[Interval, Interval]]


@dataclass(frozen=True)
class _Loaded:
    """What lies in a tile buffer, and the buffer."""

    key: tuple[object, ...]
    buffer: int


@dataclass
class _Builder:
    tiled: Tiled
    dram: DramLayout
    stored: frozenset[str]
    early_share: float
    buffers: list[Buffer] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    resident: dict[tuple[str, int], int] = field(default_factory=dict)
    prefetched: dict[tuple[int, int], dict[_Slice, int]] = field(default_factory=dict)

    @property
    def fused(self) -> Fused:
        return self.tiled.resident.partitioned.fused

    def add_layer(self, index: int) -> None:
        """All cores' tiles of a layer, then the halos that its readers need."""
        for core in self.tiled.resident.partitioned.cores_of(index):
            self._open_resident(index, core)
            _CoreLayer(self, index, core).run()
        if self.fused.layers[index].output in self.tiled.resident.residencies:
            self._exchange(index)

    def buffer(self, core: int, size_bytes: int, label: str) -> int:
        """A new buffer whose life starts at the next step."""
        position = len(self.steps)
        self.buffers.append(Buffer(core, aligned(size_bytes), label, position, position))
        return len(self.buffers) - 1

    def hold(self, buffer: int) -> None:
        """Keeps a buffer alive until the newest step."""
        newest = max(self.buffers[buffer].last_step, len(self.steps) - 1)
        self.buffers[buffer] = replace(self.buffers[buffer], last_step=newest)

    def step(self, step: Step) -> None:
        """Appends a step and keeps its buffers alive."""
        self.steps.append(step)
        for access in (*step.reads, *step.writes):
            if isinstance(access.buffer, int):
                self.hold(access.buffer)

    def room_ahead_bytes(self, core: int, index: int, following: int) -> int:
        """Scratchpad bytes that stay free from one layer to another, beside what is loaded early already."""
        resident, spm_bytes = self.tiled.resident, self.tiled.resident.partitioned.machine.cores[core].spm_bytes
        busiest = max(
            resident.bytes_at(i, core) + (tiling.working_bytes if (tiling := self.tiled.tilings[i][core]) else 0)
            for i in range(index, following + 1)
        )
        early = sum(aligned(slice_bytes(key)) for (_, owner), slices in self.prefetched.items() if owner == core
                    for _, key in slices)  # fmt: skip
        return int(spm_bytes * self.early_share) - busiest - early

    def resident_box(self, tensor: str, core: int) -> Box:
        """The box of a resident tensor that a core's buffer holds."""
        box = self.tiled.resident.residencies[tensor].boxes[core]
        assert box is not None, (tensor, core)
        return box

    def _open_resident(self, index: int, core: int) -> None:
        tensor = self.fused.layers[index].output
        residency = self.tiled.resident.residencies.get(tensor)
        if residency is None or residency.boxes[core] is None or (tensor, core) in self.resident:
            return
        size = self.resident_box(tensor, core).size * self.fused.graph.tensor(tensor).itemsize
        self.resident[tensor, core] = self.buffer(core, size, tensor)

    def _exchange(self, index: int) -> None:
        """Moves what cores need of a resident tensor and did not compute themselves."""
        layer, partitioned = self.fused.layers[index], self.tiled.resident.partitioned
        residency = self.tiled.resident.residencies[layer.output]
        readers = [i for i in self.fused.readers[layer.output] if i <= residency.last_layer]
        halos = []
        for core, need in needed_boxes(partitioned, layer.output, readers).items():
            own = partitioned.out_box(index, core)
            missing = subtract_all(need, [own] if own is not None else [])
            halos += [(core, owner, piece) for box in missing for owner, piece in self._owners(index, box)]
        for core, owner, piece in halos:
            self._open_resident(index, core)
            self._send(index, owner, core, piece)
        for core, _, piece in halos:
            self._fetch(index, core, piece)

    def _owners(self, index: int, box: Box) -> list[tuple[int, Box]]:
        """The box in disjoint pieces, each with the core that hands it on."""
        partitioned = self.tiled.resident.partitioned
        pieces = [(core, owned.intersect(box)) for core in partitioned.cores_of(index)
                  for owned in partitioned.owned(index, core)]  # fmt: skip
        filled = [(core, piece) for core, piece in pieces if not piece.is_empty]
        assert sum(piece.size for _, piece in filled) == box.size, f"nobody computes all of {box} of layer {index}"
        return filled

    @property
    def _direct(self) -> bool:
        return self.tiled.resident.partitioned.machine.network.cores_reach_each_other

    def _send(self, index: int, source: int, core: int, piece: Box) -> None:
        """From the owner towards the reader: over the network, or into DRAM unless it is stored there anyway."""
        layer = self.fused.layers[index]
        origin, tensor = layer.name, self.fused.output(layer)
        held, reads = self.resident_box(tensor.name, source), Access(self.resident[tensor.name, source], piece)
        own = dense_operand(self.fused, self.resident[tensor.name, source], tensor.name, held, piece)
        if self._direct:
            target = self.resident[tensor.name, core]
            there = dense_operand(self.fused, target, tensor.name, self.resident_box(tensor.name, core), piece)
            writes = Access(target, piece)
            self.step(Step(source, Engine.NETWORK, send_box(own, there, core), (reads,), (writes,), index, origin))
        elif tensor.name not in self.stored:
            instructions = store_box(tensor, self.dram.tensors[tensor.name], own)
            writes = Access(tensor.name, piece)
            self.step(Step(source, Engine.STORE, instructions, (reads,), (writes,), index, origin))

    def _fetch(self, index: int, core: int, piece: Box) -> None:
        if self._direct:
            return
        layer = self.fused.layers[index]
        tensor, buffer = self.fused.output(layer), self.resident[layer.output, core]
        there = dense_operand(self.fused, buffer, tensor.name, self.resident_box(tensor.name, core), piece)
        instructions = load_box(tensor, self.dram.tensors[tensor.name], there)
        reads, writes = Access(tensor.name, piece), Access(buffer, piece)
        self.step(Step(core, Engine.LOAD, instructions, (reads,), (writes,), index, layer.name))


@dataclass
class _CoreLayer:
    """One core's part of one layer: its tiles as a software pipeline."""

    builder: _Builder
    index: int
    core: int
    current: dict[object, _Loaded] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    results: list[int] = field(default_factory=list)
    accumulators: int | None = None

    @property
    def layer(self) -> Layer:
        return self.builder.fused.layers[self.index]

    @property
    def tiling(self) -> Tiling:
        tiling = self.builder.tiled.tilings[self.index][self.core]
        assert tiling is not None
        return tiling

    @property
    def parts(self) -> tuple[TilePart, ...]:
        return self.tiling.parts

    def run(self) -> None:
        """With two buffers loads one tile ahead of the computation, else each tile after the one before."""
        ahead = self.tiling.buffers > 1
        upcoming = self._load(self.parts[0], {})
        for position, part in enumerate(self.parts):
            self.current = upcoming
            following = self.parts[position + 1 : position + 2]
            if following and ahead:
                upcoming = self._load(following[0], self.current)
            if not following:
                self._prefetch()
            self._compute(part)
            if following and not ahead:
                upcoming = self._load(following[0], self.current)

    def _load(self, part: TilePart, held: Mapping[object, _Loaded]) -> dict[object, _Loaded]:
        """What the part needs, taking over from `held` what is there already."""
        loaded = self._load_constants(part, held)
        for name, box in part_needs(self.builder.fused, self.layer, part).items():
            if self.builder.tiled.resident.in_scratchpad(name, self.index):
                continue
            known = held.get(name)
            loaded[name] = known if known and known.key == (box,) else _Loaded((box,), self._load_input(name, box))
        return loaded

    def _load_constants(self, part: TilePart, held: Mapping[object, _Loaded]) -> dict[object, _Loaded]:
        early = self.builder.prefetched.get((self.index, self.core), {})
        loaded: dict[object, _Loaded] = {}
        for name, key in self._slices(part):
            known = held.get(name)
            if known is None or known.key != key:
                buffer = early.pop((name, key)) if (name, key) in early else self._load_constant(name, key)
                known = _Loaded(key, buffer)
            loaded[name] = known
        return loaded

    def _slices(self, part: TilePart) -> Iterator[_Slice]:
        """The slice of every packed constant that a part needs."""
        for op in ops_of_part(self.layer, part):
            for index, constant in enumerate(self.builder.fused.constants[op.output]):
                yield (op.output, index), constant_slice(constant, part)

    def _load_input(self, name: str, box: Box) -> int:
        builder, tensor = self.builder, self.builder.fused.graph.tensor(name)
        buffer = builder.buffer(self.core, box.size * tensor.itemsize, f"{name} tile")
        target = dense_operand(builder.fused, buffer, name, box, box)
        instructions = load_box(tensor, builder.dram.tensors[name], target)
        self._step(Engine.LOAD, instructions, (Access(name, box),), (Access(buffer, box),), self.layer.name)
        return buffer

    def _load_constant(self, name: tuple[str, int], key: tuple[Interval, Interval]) -> int:
        output, index = name
        constant = self.builder.fused.constants[output][index]
        buffer = self.builder.buffer(self.core, slice_bytes(key), f"{output} constants")
        base = self.builder.dram.constants[name]
        instructions = constant_load(base, constant.rows.shape[1], *key, Address(buffer, 0))
        origin = next(op.origin[0] for op in self.layer.ops if op.output == output)
        self._step(Engine.LOAD, instructions, (), (Access(buffer, _bytes(slice_bytes(key))),), origin)
        return buffer

    def _prefetch(self) -> None:
        """The constants of this core's next layers, tile by tile as far as there is room."""
        builder = self.builder
        for following in range(self.index + 1, min(self.index + 1 + LAYERS_AHEAD, len(builder.tiled.tilings))):
            if builder.tiled.tilings[following][self.core] is None:
                continue
            ahead = _CoreLayer(builder, following, self.core)
            if not ahead._load_early(builder.room_ahead_bytes(self.core, self.index, following)):
                return

    def _load_early(self, room_bytes: int) -> bool:
        """Loads what is not loaded yet; whether all of it fits."""
        early = self.builder.prefetched.setdefault((self.index, self.core), {})
        for name, key in dict.fromkeys(entry for part in self.parts for entry in self._slices(part)):
            if (name, key) in early:
                continue
            room_bytes -= aligned(slice_bytes(key))
            if room_bytes < 0:
                return False
            early[name, key] = self._load_constant(name, key)
        return True

    def _compute(self, part: TilePart) -> None:
        builder, previous = self.builder, self.results
        if part.reduction is None or part.reduction.is_first:
            self._open_results(part)
        accumulators = None if part.reduction is None or self.accumulators is None else Address(self.accumulators, 0)
        lowered = lower_part(
            builder.fused, self.layer, part, partial(self._operand, part), partial(self._constant_operand, part),
            accumulators,
        )  # fmt: skip
        for each in lowered:
            self._compute_op(each, part, accumulators)
        # The tile before keeps its results until here, so that its last steps overlap this computation.
        for buffer in previous if self.tiling.buffers > 1 else ():
            builder.hold(buffer)
        if part.reduction is None or part.reduction.is_last:
            self._store(part)

    def _open_results(self, part: TilePart) -> None:
        """Tile buffers for what the layer computes, except what goes into a resident buffer."""
        builder, self.own = self.builder, {}
        for op in self.layer.ops:
            if op.output != self.layer.output or (op.output, self.core) not in builder.resident:
                itemsize = builder.fused.graph.tensor(op.output).itemsize
                self.own[op.output] = builder.buffer(self.core, part.out_box.size * itemsize, f"{op.output} tile")
        self.results = list(self.own.values())
        if part.reduction is not None:
            self.accumulators = builder.buffer(self.core, accumulator_bytes(part.out_box), "accumulators")
            self.results.append(self.accumulators)

    def _compute_op(self, each: LoweredOp, part: TilePart, accumulators: Address | None) -> None:
        constants = range(len(self.builder.fused.constants[each.op.output]))
        reads = [Access(self._operand(part, name, box).address.buffer, box) for name, box in each.reads]
        reads += [Access(self.current[each.op.output, index].buffer, _bytes(1)) for index in constants]
        writes = [Access(self._operand(part, each.op.output, each.out_box).address.buffer, each.out_box)]
        if accumulators is not None and each.op is self.layer.anchor:
            writes.append(Access(accumulators.buffer, _bytes(1)))
        engine = FORMAT_BY_NAME[each.instructions[0].name].engine
        assert engine is not None
        self._step(engine, each.instructions, tuple(reads), tuple(writes), each.op.origin[0])

    def _operand(self, part: TilePart, name: str, box: Box) -> Operand:
        builder = self.builder
        if (buffer := self.own.get(name)) is not None:
            return dense_operand(builder.fused, buffer, name, part.out_box, box)
        if name in self.current:
            held = self.current[name]
            assert isinstance(held.key[0], Box)
            return dense_operand(builder.fused, held.buffer, name, held.key[0], box)
        resident = builder.resident[name, self.core]
        return dense_operand(builder.fused, resident, name, builder.resident_box(name, self.core), box)

    def _constant_operand(self, part: TilePart, op: Op, index: int) -> ConstantOperand:
        (first, _), (low, high) = constant_slice(self.builder.fused.constants[op.output][index], part)
        return ConstantOperand(Address(self.current[op.output, index].buffer, 0), high - low, first)

    def _store(self, part: TilePart) -> None:
        name = self.layer.output
        if name not in self.builder.stored:
            return
        for owned in self.builder.tiled.resident.partitioned.owned(self.index, self.core):
            piece = owned.intersect(part.out_box)
            if not piece.is_empty:
                self._store_piece(part, piece)

    def _store_piece(self, part: TilePart, piece: Box) -> None:
        tensor = self.builder.fused.output(self.layer)
        source = self._operand(part, tensor.name, piece)
        instructions = store_box(tensor, self.builder.dram.tensors[tensor.name], source)
        reads, writes = (Access(source.address.buffer, piece),), (Access(tensor.name, piece),)
        self._step(Engine.STORE, instructions, reads, writes, self.layer.ops[-1].origin[0])

    def _step(
        self,
        engine: Engine,
        instructions: tuple[LoweredInstruction, ...],
        reads: tuple[Access, ...],
        writes: tuple[Access, ...],
        origin: str,
    ) -> None:
        self.builder.step(Step(self.core, engine, instructions, reads, writes, self.index, origin))


def slice_bytes(key: tuple[Interval, Interval]) -> int:
    """Bytes of a slice of a packed constant: rows times columns."""
    (first, last), (low, high) = key
    return (last - first) * (high - low)


def _bytes(size: int) -> Box:
    return Box((0,), (size,))


def accumulator_bytes(out_box: Box) -> int:
    """int32 partial sums of a tile, channels rounded up to whole blocks."""
    channels = -(-out_box.shape[-1] // CHANNEL_BLOCK) * CHANNEL_BLOCK
    return out_box.size // out_box.shape[-1] * channels * 4
