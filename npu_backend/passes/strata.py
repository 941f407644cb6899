"""Strata: chains of layers that run without synchronisation, by Algorithm 2 of Jung et al., CGO 2023.

The walk goes backwards. A layer joins the stratum of the layer after it when (h6) that one reads its output, (h7) both
are divided by the same spatial axis, and (h8) computing the overlap on several cores costs less than the waiting that
goes away. Each core's part then grows to what its part of the stratum needs.

Memory is left to the passes behind: a tensor that finds no room is `closed`, and no stratum runs across it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from npu_backend.box import Box
from npu_backend.cost import CostModel
from npu_backend.isa import FORMAT_BY_NAME, Engine
from npu_backend.ops import spec_of
from npu_backend.passes.lower import probe
from npu_backend.stages import Fused, Join, Layer, Partitioned, TilePart

SPATIAL = ("rows", "columns", "rows x columns", "columns x rows")


def strata(
    partitioned: Partitioned, waiting_ns: Mapping[str, float], closed: frozenset[str], cost: CostModel
) -> Partitioned:
    """The same layers with strata, and with the parts that those need.

    `waiting_ns`: what a core waits between a layer and the next when they do not run on, by the layer's output.
    """
    walk = _Walk(partitioned, waiting_ns, closed, cost)
    for index in reversed(range(len(partitioned.splits))):
        walk.visit(index)
    return walk.result()


@dataclass
class _Walk:
    """Boxes and joins of the layers behind the one that is visited."""

    partitioned: Partitioned
    waiting_ns: Mapping[str, float]
    closed: frozenset[str]
    cost: CostModel
    boxes: dict[int, tuple[Box | None, ...]] = field(default_factory=dict)
    joins: dict[int, Join] = field(default_factory=dict)

    @property
    def fused(self) -> Fused:
        return self.partitioned.fused

    def visit(self, index: int) -> None:
        """Joins the layer to the stratum after it, or starts one that ends with it."""
        own = self.partitioned.splits[index].boxes
        refusal = self._refusal(index)
        self.boxes[index], self.joins[index] = own, Join(index, refusal or "")
        if refusal is not None:
            return
        grown = self._grown(index)
        if not any(grown):
            self.joins[index] = Join(index, "ends, nothing of it is needed")
            return
        recompute = self._slowest_ns(index, grown) - self._slowest_ns(index, own)
        waiting = self.waiting_ns.get(self.fused.layers[index].output, 0.0)
        costs = f"h8: {recompute / 1000:.2f} us computed again, {waiting / 1000:.2f} us of waiting saved"
        if recompute < waiting:
            self.boxes[index] = grown
            self.joins[index] = Join(self.joins[index + 1].stratum, f"runs on, {costs}", recompute, waiting)
        else:
            self.joins[index] = Join(index, f"ends, {costs}", recompute, waiting)

    def _refusal(self, index: int) -> str | None:
        """Why the layer cannot run on into the next whatever it costs."""
        layer, splits = self.fused.layers[index], self.partitioned.splits
        if index + 1 == len(splits):
            return "ends, the last layer"
        following = self.fused.layers[index + 1]
        if layer.output not in self.fused.inputs(following):
            return f"ends, h6: {following.name} does not read it"
        own, other = splits[index].direction, splits[index + 1].direction
        if own not in SPATIAL or own != other:
            return f"ends, h7: {own} before {other}"
        return "ends, closed: no room for its map, or slower on the clock" if layer.output in self.closed else None

    def _grown(self, index: int) -> tuple[Box | None, ...]:
        """What every core must compute of a layer for its part of the stratum."""
        layer, stratum = self.fused.layers[index], self.joins[index + 1].stratum
        readers = self.fused.readers[layer.output]
        inside = [reader for reader in readers if self._is_in(reader, stratum)]
        others = len(inside) < len(readers) or layer.output in self.fused.graph.output_names
        grown = []
        for core, own in enumerate(self.partitioned.splits[index].boxes):
            box = own if others else None
            for reader in inside:
                part = self.boxes[reader][core]
                need = None if part is None else self.fused.needed(self.fused.layers[reader], part)[layer.output]
                box = need if box is None else box if need is None else box.hull(need)
            grown.append(None if box is None or box.is_empty else self._whole_units(layer, box))
        return tuple(grown)

    def _is_in(self, reader: int, stratum: int) -> bool:
        return reader in self.joins and self.joins[reader].stratum == stratum

    def _whole_units(self, layer: Layer, box: Box) -> Box:
        """The box grown to where parts may start and end."""
        allowed = spec_of(layer.anchor).split_axes(self.fused.graph, layer.anchor)
        for axis, extent in enumerate(self.fused.output(layer).shape):
            multiple, (low, high) = allowed.get(axis, extent), box.interval(axis)
            box = box.with_interval(axis, low // multiple * multiple, min(-(-high // multiple) * multiple, extent))
        return box

    def _slowest_ns(self, index: int, boxes: tuple[Box | None, ...]) -> float:
        return max(self._part_ns(index, core, box) for core, box in enumerate(boxes) if box is not None)

    def _part_ns(self, index: int, core: int, box: Box) -> float:
        engines = dict.fromkeys(Engine, 0.0)
        for instruction in probe(self.fused, self.fused.layers[index], TilePart(box)):
            engine = FORMAT_BY_NAME[instruction.name].engine
            if engine in (Engine.MATRIX, Engine.VECTOR):
                engines[engine] += self.cost.instruction_ns(core, instruction)
        return max(engines.values())

    def result(self) -> Partitioned:
        """The layers with the parts and the strata that were found."""
        count = range(len(self.partitioned.splits))
        splits = tuple(replace(self.partitioned.splits[index], boxes=self.boxes[index]) for index in count)
        return replace(self.partitioned, splits=splits, joins=tuple(self.joins[index] for index in count))
