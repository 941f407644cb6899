"""Verifiers of what has no order yet: graph, layers, splits, residencies, tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from npu_backend.box import Box, subtract_all
from npu_backend.graph import Graph, Op
from npu_backend.isa import WEIGHT_CHUNK
from npu_backend.ops import spec_of
from npu_backend.passes.reside import needed_boxes
from npu_backend.stages import Fused, Layer, Partitioned, Residency, Resident, Tiled, TilePart, Tiling, aligned
from npu_backend.verify_error import require

_CODES = frozenset(("uint8", "int8"))


def verify_graph(graph: Graph, *, thorough: bool) -> None:
    """Operators stand after what they read; shapes and quantisation are what their kinds say."""
    del thorough
    known = {port.tensor for port in graph.inputs}
    for op in graph.ops:
        where = f"legalize: {op.kind} {op.name}"
        for name in op.inputs:
            require(name in known or name in graph.constants, lambda: f"{where} reads {name}, which nobody wrote")
        require(op.output not in known, lambda: f"{where} writes {op.output} a second time")
        require(op.output in graph.tensors, lambda: f"{where} writes {op.output}, which is no tensor of the graph")
        known.add(op.output)
        _check_output(graph, op, where)
    for port in (*graph.inputs, *graph.outputs):
        require(port.tensor in known, lambda: f"legalize: {port.host_name} is {port.tensor}, which nobody wrote")
        rank = len(graph.tensor(port.tensor).shape)
        require(sorted(port.storage_axes) == list(range(rank)),
                lambda: f"legalize: {port.host_name} of rank {rank} has axes {port.storage_axes}")  # fmt: skip


def _check_output(graph: Graph, op: Op, where: str) -> None:
    activations = [graph.tensor(name) for name in graph.activations(op)]
    constants = [graph.constants[name] for name in op.inputs if name in graph.constants]
    inferred, output = spec_of(op).infer_shape(op.attributes, activations, constants), graph.tensor(op.output)
    require(inferred == output.shape, lambda: f"{where} makes {inferred}, its tensor says {output.shape}")
    require(min(output.shape, default=1) > 0, lambda: f"{where} makes {output.shape}, which is empty")
    require((output.dtype in _CODES) == (output.quantization is not None),
            lambda: f"{where} makes {output.dtype} with quantisation {output.quantization}")  # fmt: skip


def verify_fused(fused: Fused, *, thorough: bool) -> None:
    """Every operator is in one layer; layers stand after what they read, and nothing outside reads inside them."""
    del thorough
    graph = fused.graph
    names = [op.name for layer in fused.layers for op in layer.ops]
    outputs = sorted(op.output for layer in fused.layers for op in layer.ops)
    require(outputs == sorted(op.output for op in graph.ops), lambda: f"fuse: layers hold {names}")
    known = {port.tensor for port in graph.inputs}
    for index, layer in enumerate(fused.layers):
        for name in fused.inputs(layer):
            require(name in known, lambda: f"fuse: layer {index} {layer.name} reads {name}, which no layer before writes")
        known.add(layer.output)
        _check_followers(fused, index, layer)


def _check_followers(fused: Fused, index: int, layer: Layer) -> None:
    graph, shape, own = fused.graph, fused.output(layer).shape, set(layer.ops)
    for op in layer.ops[1:]:
        require(spec_of(op).is_elementwise, lambda: f"fuse: layer {index} {layer.name} has {op.kind} {op.name} inside")
    for op in layer.ops[:-1]:
        made = graph.tensor(op.output).shape
        require(made == shape, lambda: f"fuse: layer {index} {layer.name}: {op.name} makes {made}, the layer {shape}")
        outside = [reader.name for reader in graph.consumers[op.output] if reader not in own]
        require(not outside and op.output not in graph.output_names,
                lambda: f"fuse: {op.output} inside layer {index} {layer.name} is read by {outside or 'the host'}")  # fmt: skip


def verify_partitioned(partitioned: Partitioned, *, thorough: bool) -> None:
    """The cores' boxes are whole units of the output and cover it."""
    del thorough
    fused = partitioned.fused
    require(len(partitioned.splits) == len(fused.layers),
            lambda: f"partition: {len(partitioned.splits)} splits of {len(fused.layers)} layers")  # fmt: skip
    for index, (layer, split) in enumerate(zip(fused.layers, partitioned.splits, strict=True)):
        whole, where = fused.output(layer).box, f"partition: layer {index} {layer.name}"
        allowed = spec_of(layer.anchor).split_axes(fused.graph, layer.anchor)
        for core, box in enumerate(split.boxes):
            if box is not None:
                _check_units(box, whole, allowed, f"{where} core {core}")
        missing = subtract_all(whole, [box for box in split.boxes if box is not None])
        require(not missing, lambda: f"{where}: no core computes {_listed(missing)} of {whole}")


def _check_units(box: Box, whole: Box, allowed: Mapping[int, int], where: str) -> None:
    require(not box.is_empty and whole.contains(box), lambda: f"{where} has {box} of {whole}")
    for axis in range(box.rank):
        multiple = allowed.get(axis, whole.shape[axis])
        (start, stop), (low, high) = box.interval(axis), whole.interval(axis)
        aligned_stop = stop == high or (stop - low) % multiple == 0
        require((start - low) % multiple == 0 and aligned_stop,
                lambda: f"{where}: axis {axis} of {box} is no whole number of {multiple}")  # fmt: skip


def verify_resident(resident: Resident, *, thorough: bool) -> None:
    """Every residency holds what its cores compute and read; together they fit the scratchpads."""
    del thorough
    partitioned = resident.partitioned
    taken = [[0] * len(partitioned.machine.cores) for _ in partitioned.fused.layers]
    for residency in resident.residencies.values():
        _check_residency(partitioned, residency)
        itemsize = partitioned.fused.graph.tensor(residency.tensor).itemsize
        for index in range(residency.first_layer, residency.last_layer + 1):
            for core, box in enumerate(residency.boxes):
                taken[index][core] += aligned(box.size * itemsize) if box is not None else 0
    for index, sizes in enumerate(taken):
        for core, (size, description) in enumerate(zip(sizes, partitioned.machine.cores, strict=True)):
            require(size <= description.spm_bytes, lambda: f"reside: layer {index} core {core}: {size} resident bytes "
                    f"in a scratchpad of {description.spm_bytes}")  # fmt: skip


def _check_residency(partitioned: Partitioned, residency: Residency) -> None:
    where = f"reside: {residency.tensor}"
    producer = partitioned.fused.layers[residency.first_layer]
    require(producer.output == residency.tensor, lambda: f"{where} starts at layer {residency.first_layer}, "
            f"which makes {producer.output}")  # fmt: skip
    readers = [i for i in partitioned.fused.readers.get(residency.tensor, ()) if i <= residency.last_layer]
    needs = needed_boxes(partitioned, residency.tensor, readers)
    for core, held in enumerate(residency.boxes):
        for box in (partitioned.out_box(residency.first_layer, core), needs.get(core)):
            holds = box is None or (held is not None and held.contains(box))
            require(holds, lambda: f"{where} core {core} holds {held}, needs {box}")


def verify_tiled(tiled: Tiled, *, thorough: bool) -> None:
    """Tiles cover each core's part exactly, sums are complete, and the working set fits beside what is resident."""
    partitioned = tiled.resident.partitioned
    for index, tilings in enumerate(tiled.tilings):
        for core, tiling in enumerate(tilings):
            where = f"tile: layer {index} {partitioned.fused.layers[index].name} core {core}"
            box = partitioned.out_box(index, core)
            require((box is None) == (tiling is None), lambda: f"{where}: {box} is tiled as {tiling}")
            if box is None or tiling is None:
                continue
            room = partitioned.machine.cores[core].spm_bytes - tiled.resident.bytes_at(index, core)
            require(tiling.working_bytes <= room, lambda: f"{where}: {tiling.working_bytes} bytes, room for {room}")
            _check_tiles(tiling, box, where, thorough=thorough)


def _check_tiles(tiling: Tiling, whole: Box, where: str, *, thorough: bool) -> None:
    summed: dict[Box, list[TilePart]] = {}
    for part in tiling.parts:
        require(not part.out_box.is_empty and whole.contains(part.out_box),
                lambda: f"{where}: tile {part.out_box} of {whole}")  # fmt: skip
        summed.setdefault(part.out_box, []).append(part)
    for box, parts in summed.items():
        _check_sum(parts, f"{where}: tile {box}")
    # Inside the whole and of its size together: they cover it exactly if no two of them overlap.
    size = sum(box.size for box in summed)
    require(size == whole.size, lambda: f"{where}: tiles of {size} elements for {whole.size} of {whole}")
    for one, other in combinations(summed, 2) if thorough else ():
        require(not one.overlaps(other), lambda: f"{where}: tiles {one} and {other} overlap")


def _check_sum(parts: Sequence[TilePart], where: str) -> None:
    """Either one part without a reduction, or parts that take the channels in order, in whole chunks."""
    if parts[0].reduction is None:
        require(len(parts) == 1, lambda: f"{where} runs {len(parts)} times")
        return
    position = 0
    for part in parts:
        reduction = part.reduction
        require(reduction is not None and reduction.start == position and reduction.start % WEIGHT_CHUNK == 0,
                lambda: f"{where} sums {reduction} after channel {position}")  # fmt: skip
        assert reduction is not None
        position = reduction.stop
    total = parts[0].reduction.total
    require(position == total, lambda: f"{where} sums {position} of {total} channels")


def _listed(boxes: Sequence[Box]) -> str:
    return ", ".join(map(str, boxes))
