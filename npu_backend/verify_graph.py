"""Verifiers of what has no order yet: graph, layers, splits, residencies, tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from npu_backend.box import Box, subtract_all
from npu_backend.graph import CODES, Graph, Op
from npu_backend.isa import COMPUTED_TYPES, WEIGHT_CHUNK
from npu_backend.ops import spec_of
from npu_backend.passes.reside import needed_boxes
from npu_backend.stages import Fused, Layer, Partitioned, Residency, Resident, Tiled, TilePart, Tiling, aligned
from npu_backend.verify_error import VerificationError


def verify_graph(graph: Graph, *, thorough: bool) -> None:
    """Operators stand after what they read; shapes and quantisation are what their kinds say."""
    del thorough
    known = {port.tensor for port in graph.inputs}
    for op in graph.ops:
        where = f"graph: {op.kind} {op.name}"
        for name in op.inputs:
            if name not in known and name not in graph.constants:
                raise VerificationError(f"{where} reads {name}, which nobody wrote")
        if op.output in known:
            raise VerificationError(f"{where} writes {op.output} a second time")
        if op.output not in graph.tensors:
            raise VerificationError(f"{where} writes {op.output}, which is no tensor of the graph")
        known.add(op.output)
        _check_output(graph, op, where)
    for port in (*graph.inputs, *graph.outputs):
        if port.tensor not in known:
            raise VerificationError(f"graph: {port.host_name} is {port.tensor}, which nobody wrote")
        rank = len(graph.tensor(port.tensor).shape)
        if sorted(port.storage_axes) != list(range(rank)):
            raise VerificationError(f"graph: {port.host_name} of rank {rank} has axes {port.storage_axes}")


def _check_output(graph: Graph, op: Op, where: str) -> None:
    activations = [graph.tensor(name) for name in graph.activations(op)]
    constants = [graph.constants[name] for name in op.inputs if name not in graph.tensors]
    inferred, output = spec_of(op).infer_shape(op.attributes, activations, constants), graph.tensor(op.output)
    if inferred != output.shape:
        raise VerificationError(f"{where} makes {inferred}, its tensor says {output.shape}")
    if min(output.shape, default=1) <= 0:
        raise VerificationError(f"{where} makes {output.shape}, which is empty")
    if (output.dtype in CODES) != (output.quantization is not None):
        raise VerificationError(f"{where} makes {output.dtype} with quantisation {output.quantization}")
    moved = {tensor.dtype for tensor in (*activations, output)} - set(COMPUTED_TYPES)
    if not moved <= set(spec_of(op).forms):
        raise VerificationError(f"{where} computes with {', '.join(sorted(moved))}, which no engine does")
    wrong = spec_of(op).wrong_types(graph, op)
    if wrong is not None:
        raise VerificationError(f"{where} {wrong}")


def verify_fused(fused: Fused, *, thorough: bool) -> None:
    """Every operator is in one layer; layers stand after what they read, and nothing outside reads inside them."""
    del thorough
    graph = fused.graph
    names = [op.name for layer in fused.layers for op in layer.ops]
    outputs = sorted(op.output for layer in fused.layers for op in layer.ops)
    if outputs != sorted(op.output for op in graph.ops):
        raise VerificationError(f"fuse: layers hold {names}")
    known = {port.tensor for port in graph.inputs} | (graph.constants.keys() & graph.tensors.keys())
    for index, layer in enumerate(fused.layers):
        for name in fused.inputs(layer):
            if name not in known:
                raise VerificationError(f"fuse: layer {index} {layer.name} reads {name}, which no layer before writes")
        known.add(layer.output)
        _check_followers(fused, index, layer)


def _check_followers(fused: Fused, index: int, layer: Layer) -> None:
    graph, shape, own = fused.graph, fused.output(layer).shape, set(layer.ops)
    for op in layer.ops[1:]:
        if not spec_of(op).is_elementwise:
            raise VerificationError(f"fuse: layer {index} {layer.name} has {op.kind} {op.name} inside")
    for op in layer.ops[:-1]:
        # Tiles of inner tensors take the box of the layer's output.
        made = graph.tensor(op.output).shape
        if made != shape:
            raise VerificationError(f"fuse: layer {index} {layer.name}: {op.name} makes {made}, the layer {shape}")
        outside = [reader.name for reader in graph.consumers[op.output] if reader not in own]
        if outside or op.output in graph.output_names:
            raise VerificationError(
                f"fuse: {op.output} inside layer {index} {layer.name} is read by {outside or 'the host'}"
            )


def verify_partitioned(partitioned: Partitioned, *, thorough: bool) -> None:
    """The cores' boxes are whole units of the output and cover it."""
    del thorough
    fused = partitioned.fused
    if len(partitioned.splits) != len(fused.layers):
        raise VerificationError(f"partition: {len(partitioned.splits)} splits of {len(fused.layers)} layers")
    for index, (layer, split) in enumerate(zip(fused.layers, partitioned.splits, strict=True)):
        whole, where = fused.output(layer).box, f"partition: layer {index} {layer.name}"
        allowed = spec_of(layer.anchor).split_axes(fused.graph, layer.anchor)
        for core, box in enumerate(split.boxes):
            if box is not None:
                _check_units(box, whole, allowed, f"{where} core {core}")
        missing = subtract_all(whole, [box for box in split.boxes if box is not None])
        if missing and not _is_inside_stratum(partitioned, index):
            raise VerificationError(f"{where}: no core computes {_listed(missing)} of {whole}")


def _is_inside_stratum(partitioned: Partitioned, index: int) -> bool:
    """Whether only the layer's own stratum reads its output, which may then leave out what nobody needs."""
    output = partitioned.fused.layers[index].output
    readers = partitioned.fused.readers.get(output, ())
    return output not in partitioned.fused.graph.output_names and readers == partitioned.in_stratum(index) != ()


def _check_units(box: Box, whole: Box, allowed: Mapping[int, int], where: str) -> None:
    if box.is_empty or not whole.contains(box):
        raise VerificationError(f"{where} has {box} of {whole}")
    for axis in range(box.rank):
        multiple = allowed.get(axis, whole.shape[axis])
        (start, stop), (low, high) = box.interval(axis), whole.interval(axis)
        if (start - low) % multiple != 0 or (stop != high and (stop - low) % multiple != 0):
            raise VerificationError(f"{where}: axis {axis} of {box} is no whole number of {multiple}")


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
            if size > description.spm_bytes:
                raise VerificationError(
                    f"reside: layer {index} core {core}: {size} resident bytes "
                    f"in a scratchpad of {description.spm_bytes}"
                )


def _check_residency(partitioned: Partitioned, residency: Residency) -> None:
    where = f"reside: {residency.tensor}"
    producer = partitioned.fused.layers[residency.first_layer]
    if producer.output != residency.tensor:
        raise VerificationError(f"{where} starts at layer {residency.first_layer}, which makes {producer.output}")
    readers = [i for i in partitioned.fused.readers.get(residency.tensor, ()) if i <= residency.last_layer]
    needs = needed_boxes(partitioned, residency.tensor, readers)
    for core, held in enumerate(residency.boxes):
        for box in (partitioned.out_box(residency.first_layer, core), needs.get(core)):
            if box is not None and (held is None or not held.contains(box)):
                raise VerificationError(f"{where} core {core} holds {held}, needs {box}")


def verify_tiled(tiled: Tiled, *, thorough: bool) -> None:
    """Tiles cover each core's part exactly, sums are complete, and the working set fits beside what is resident."""
    partitioned = tiled.resident.partitioned
    for index, tilings in enumerate(tiled.tilings):
        for core, tiling in enumerate(tilings):
            where = f"tile: layer {index} {partitioned.fused.layers[index].name} core {core}"
            box = partitioned.out_box(index, core)
            if (box is None) != (tiling is None):
                raise VerificationError(f"{where}: {box} is tiled as {tiling}")
            if box is None or tiling is None:
                continue
            room = partitioned.machine.cores[core].spm_bytes - tiled.resident.bytes_at(index, core)
            if tiling.working_bytes > room:
                raise VerificationError(f"{where}: {tiling.working_bytes} bytes, room for {room}")
            _check_tiles(tiling, box, where, thorough=thorough)


def _check_tiles(tiling: Tiling, whole: Box, where: str, *, thorough: bool) -> None:
    summed: dict[Box, list[TilePart]] = {}
    for part in tiling.parts:
        if part.out_box.is_empty or not whole.contains(part.out_box):
            raise VerificationError(f"{where}: tile {part.out_box} of {whole}")
        summed.setdefault(part.out_box, []).append(part)
    for box, parts in summed.items():
        _check_sum(parts, f"{where}: tile {box}")
    # Inside the whole and of its size together: they cover it exactly if no two of them overlap.
    size = sum(box.size for box in summed)
    if size != whole.size:
        raise VerificationError(f"{where}: tiles of {size} elements for {whole.size} of {whole}")
    for one, other in combinations(summed, 2) if thorough else ():
        if one.overlaps(other):
            raise VerificationError(f"{where}: tiles {one} and {other} overlap")


def _check_sum(parts: Sequence[TilePart], where: str) -> None:
    """Either one part without a reduction, or parts that take the channels in order, in whole chunks."""
    if parts[0].reduction is None:
        if len(parts) != 1:
            raise VerificationError(f"{where} runs {len(parts)} times")
        return
    position = 0
    for part in parts:
        reduction = part.reduction
        if reduction is None or reduction.start != position or reduction.start % WEIGHT_CHUNK != 0:
            raise VerificationError(f"{where} sums {reduction} after channel {position}")
        position = reduction.stop
    total = parts[0].reduction.total
    if position != total:
        raise VerificationError(f"{where} sums {position} of {total} channels")


def _listed(boxes: Sequence[Box]) -> str:
    return ", ".join(map(str, boxes))
