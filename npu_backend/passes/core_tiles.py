"""One core's part of one layer: its tiles as a software pipeline of loads, computation and stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from npu_backend.box import Box
from npu_backend.graph import Op
from npu_backend.isa import FORMAT_BY_NAME, Engine
from npu_backend.ops import spec_of
from npu_backend.ops.base import Address, ConstantOperand, LoweredInstruction, Operand
from npu_backend.passes.lower import LoweredOp, constant_slice, dense_operand, lower_part, ops_of_part, part_needs
from npu_backend.passes.steps import Interval, Slice, StepBuilder, slice_bytes
from npu_backend.passes.transfers import constant_load, load_box, store_box
from npu_backend.stages import Access, Layer, Step, TilePart, Tiling


@dataclass(frozen=True)
class _Loaded:
    """What lies in a tile buffer, and the buffer."""

    key: tuple[object, ...]
    buffer: int


@dataclass
class CoreLayer:
    """One core's part of one layer: its tiles as a software pipeline."""

    builder: StepBuilder
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

    def turns(self) -> Iterator[None]:
        """Adds the steps turn by turn; with two buffers loads one tile ahead of the computation, else tile by tile.

        The computation of the last tile is left to `finish`: what is loaded for the next layers goes before it.
        """
        ahead = self.tiling.buffers > 1
        upcoming = self._load(self.parts[0], {})
        yield
        for part, following in pairwise(self.parts):
            self.current = upcoming
            if ahead:
                upcoming = self._load(following, self.current)
                yield
            self._compute(part)
            if not ahead:
                upcoming = self._load(following, self.current)
            yield
        self.current = upcoming

    def finish(self) -> None:
        """The last tile's computation."""
        self._compute(self.parts[-1])

    def not_loaded(self) -> dict[Slice, None]:
        """The slices of constants that no load brings yet, in the order in which they are needed."""
        early = self.builder.early(self.index, self.core)
        slices = dict.fromkeys(entry for part in self.parts for entry in self._slices(part))
        return {entry: None for entry in slices if entry not in early}

    def load_early(self, entry: Slice) -> None:
        """Loads a slice before its layer."""
        self.builder.early(self.index, self.core)[entry] = self._load_constant(*entry)

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
        early = self.builder.early(self.index, self.core)
        loaded: dict[object, _Loaded] = {}
        for name, key in self._slices(part):
            known = held.get(name)
            if known is None or known.key != key:
                buffer = early.pop((name, key)) if (name, key) in early else self._load_constant(name, key)
                known = _Loaded(key, buffer)
            loaded[name] = known
        return loaded

    def _slices(self, part: TilePart) -> Iterator[Slice]:
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
            self.accumulators = builder.buffer(self.core, self._accumulator_bytes(part), "accumulators")
            self.results.append(self.accumulators)

    def _accumulator_bytes(self, part: TilePart) -> int:
        anchor = self.layer.anchor
        return spec_of(anchor).accumulator_bytes(self.builder.fused.graph, anchor, part.out_box)

    def _compute_op(self, each: LoweredOp, part: TilePart, accumulators: Address | None) -> None:
        constants = range(len(self.builder.fused.constants[each.op.output]))
        reads = [Access(self._held(part, name)[0], box) for name, box in each.reads]
        reads += [Access(self.current[each.op.output, index].buffer, _bytes(1)) for index in constants]
        reads += [Access(name, box) for name, box in each.dram_reads]
        writes = [Access(self._held(part, each.op.output)[0], each.out_box)]
        if accumulators is not None and each.op is self.layer.anchor:
            writes.append(Access(accumulators.buffer, _bytes(1)))
        engine = FORMAT_BY_NAME[each.instructions[0].name].engine
        assert engine is not None
        self._step(engine, each.instructions, tuple(reads), tuple(writes), each.op.origin[0])

    def _operand(self, part: TilePart, name: str, box: Box) -> Operand:
        buffer, held = self._held(part, name)
        return dense_operand(self.builder.fused, buffer, name, held, box)

    def _held(self, part: TilePart, name: str) -> tuple[int, Box]:
        """The buffer that holds a tensor for this part, and what of the tensor lies there."""
        if (buffer := self.own.get(name)) is not None:
            return buffer, part.out_box
        if name in self.current:
            loaded = self.current[name]
            assert isinstance(loaded.key[0], Box)
            return loaded.buffer, loaded.key[0]
        return self.builder.resident[name, self.core], self.builder.resident_box(name, self.core)

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


def _bytes(size: int) -> Box:
    return Box((0,), (size,))
