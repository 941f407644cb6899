"""Exchange: what cores need of a resident tensor and did not compute themselves, moved once, right after its layer."""

from __future__ import annotations

from dataclasses import dataclass

from npu_backend.box import Box, subtract_all
from npu_backend.graph import Tensor
from npu_backend.isa import Engine
from npu_backend.ops.base import LoweredInstruction, Operand
from npu_backend.passes.lower import dense_operand
from npu_backend.passes.reside import needed_boxes
from npu_backend.passes.steps import StepBuilder
from npu_backend.passes.transfers import load_box, send_box, store_box
from npu_backend.stages import Access, Layer, Step


def exchange(builder: StepBuilder, index: int) -> None:
    """Moves what cores need of a resident tensor and did not compute themselves."""
    layer, partitioned = builder.fused.layers[index], builder.tiled.resident.partitioned
    residency = builder.tiled.resident.residencies[layer.output]
    readers = [i for i in builder.fused.readers[layer.output] if i <= residency.last_layer]
    halos = []
    for core, need in needed_boxes(partitioned, layer.output, readers).items():
        own = partitioned.out_box(index, core)
        missing = subtract_all(need, [own] if own is not None else [])
        halos += [_Halo(builder, index, owner, core, piece)
                  for box in missing for owner, piece in _owners(builder, index, box)]  # fmt: skip
    for halo in halos:
        builder.open_resident(index, halo.reader)
        halo.send()
    for halo in halos:
        halo.fetch()


def _owners(builder: StepBuilder, index: int, box: Box) -> list[tuple[int, Box]]:
    """The box in disjoint pieces, each with the core that hands it on."""
    partitioned = builder.tiled.resident.partitioned
    filled = [(core, owned.intersect(box)) for core in partitioned.cores_of(index)
              for owned in partitioned.owned(index, core) if owned.overlaps(box)]  # fmt: skip
    assert sum(piece.size for _, piece in filled) == box.size, f"nobody computes all of {box} of layer {index}"
    return filled


@dataclass(frozen=True)
class _Halo:
    """A piece of a layer's output that one core computes and another needs."""

    builder: StepBuilder
    index: int
    source: int
    reader: int
    piece: Box

    @property
    def _tensor(self) -> Tensor:
        return self.builder.fused.output(self._layer)

    @property
    def _layer(self) -> Layer:
        return self.builder.fused.layers[self.index]

    @property
    def _is_direct(self) -> bool:
        return self.builder.tiled.resident.partitioned.machine.network.cores_reach_each_other

    def _at(self, core: int) -> tuple[Operand, Access]:
        """The piece in a core's resident buffer."""
        buffer, held = (
            self.builder.resident[self._tensor.name, core],
            self.builder.resident_box(self._tensor.name, core),
        )
        return dense_operand(self.builder.fused, buffer, self._tensor.name, held, self.piece), Access(
            buffer, self.piece
        )

    def send(self) -> None:
        """Towards the reader: over the network, or into DRAM unless it is stored there anyway."""
        own, reads = self._at(self.source)
        if self._is_direct:
            there, writes = self._at(self.reader)
            self._step(self.source, Engine.NETWORK, send_box(own, there, self.reader), reads, writes)
        elif self._tensor.name not in self.builder.stored:
            instructions = store_box(self._tensor, self.builder.dram.tensors[self._tensor.name], own)
            self._step(self.source, Engine.STORE, instructions, reads, Access(self._tensor.name, self.piece))

    def fetch(self) -> None:
        """From DRAM to the reader, where it was not sent directly."""
        if not self._is_direct:
            there, writes = self._at(self.reader)
            instructions = load_box(self._tensor, self.builder.dram.tensors[self._tensor.name], there)
            self._step(self.reader, Engine.LOAD, instructions, Access(self._tensor.name, self.piece), writes)

    def _step(
        self, core: int, engine: Engine, instructions: tuple[LoweredInstruction, ...], reads: Access, writes: Access
    ) -> None:
        self.builder.step(Step(core, engine, instructions, (reads,), (writes,), self.index, self._layer.name))
