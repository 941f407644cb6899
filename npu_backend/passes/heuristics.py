"""The directions h1 to h5 of Jung et al., CGO 2023.

In a product of two tensors, a side that every core would need whole counts as weights. Where feature maps stay in the
scratchpads, what only moves elements is divided so that they move least.
"""

from __future__ import annotations

from npu_backend.box import Box
from npu_backend.graph import Tensor
from npu_backend.ops import spec_of
from npu_backend.ops.matrix import is_depthwise
from npu_backend.passes.candidate import Candidate
from npu_backend.passes.shares import balanced_boxes

# h2: weights count as much larger than the input from this ratio on.
WEIGHTS_TO_INPUT = 2.0
# h5: a halo is too large when a core would read this many halo rows for each row of its own.
HALO_TO_OWN = 1.0


def heuristics(candidate: Candidate) -> tuple[str, str]:
    """The direction in which a layer is divided, and the heuristic that decided."""
    spatial = _spatial(candidate)
    if candidate.forward and candidate.sources and spec_of(candidate.op).keeps_elements:
        return min(candidate.axes, key=lambda name: _missing_bytes(candidate, name)), "where its elements are"
    if spatial is None:
        return "channels", "h3: too shallow to divide by rows"
    if "channels" not in candidate.axes:
        return spatial, "h1: spatial, channels cannot be divided"
    cores, extent = len(candidate.machine.cores), candidate.output_box.shape[candidate.axes[spatial][0]]
    if extent < cores and extent <= _units(candidate, "channels"):
        return "channels", f"h3: {extent} {spatial} for {cores} cores"
    shared = _shared_bytes(candidate, spatial)
    weights, inputs = candidate.weight_bytes + shared, candidate.input_bytes - shared
    if weights > WEIGHTS_TO_INPUT * inputs:
        return "channels", f"h2: {weights} weight bytes, {inputs} input bytes"
    # Where feature maps stay in the scratchpads, going from rows to channels would move all of them: h4 then only
    # holds where the channels are divided already.
    directions = [source.direction for source in candidate.sources.values()]
    if _is_channelwise(candidate) and not (candidate.forward and spatial in directions):
        return "channels", f"h4: {candidate.op.kind} is channel-wise"
    halo = _halo(candidate, spatial)
    if halo > HALO_TO_OWN * extent / cores:
        return "channels", f"h5: halo of {halo} for {extent // cores} {spatial} a core"
    return spatial, "h1: spatial"


def _units(candidate: Candidate, direction: str) -> int:
    """Parts into which a direction can divide the output."""
    axis, multiple = candidate.axes[direction]
    return -(-candidate.output_box.shape[axis] // multiple)


def _missing_bytes(candidate: Candidate, direction: str) -> int:
    """Bytes of the computed inputs that lie on another core than the one that needs them."""
    fused, missing = candidate.fused, 0
    for core, box in enumerate(balanced_boxes(candidate, *candidate.axes[direction])):
        needed = fused.needed(candidate.layer, box) if box else {}
        for name, source in candidate.sources.items():
            need, have = needed.get(name), source.boxes[core]
            if need is not None:
                there = need.intersect(have).size if have else 0
                missing += (need.size - there) * fused.graph.tensor(name).itemsize
    return missing


def _spatial(candidate: Candidate) -> str | None:
    """Rows or else columns; of a product of matrices whichever divides both of them."""
    possible = [name for name in ("rows", "columns") if name in candidate.axes]
    return next((name for name in possible if not _shared_bytes(candidate, name)), possible[0] if possible else None)


def _shared_bytes(candidate: Candidate, direction: str) -> int:
    """Bytes of the inputs that every core would need whole, as it does weights."""
    return sum(tensor.size_bytes for tensor, low, high in _halves(candidate, direction) if low == high)


def _is_channelwise(candidate: Candidate) -> bool:
    op = candidate.op
    return op.kind == "pool2d" or (op.kind == "conv2d" and is_depthwise(candidate.fused.graph, op))


def _halo(candidate: Candidate, direction: str) -> int:
    """Input positions that two neighbouring cores both need, along the axes that the direction divides."""
    return max((
        low.intersect(high).shape[axis]
        for _, low, high in _halves(candidate, direction) for axis in range(low.rank)
        if low.interval(axis) != high.interval(axis)
    ), default=0)  # fmt: skip


def _halves(candidate: Candidate, direction: str) -> list[tuple[Tensor, Box, Box]]:
    """Every input of the anchor with the boxes that the two halves of the output need of it."""
    axis = candidate.axes[direction][0]
    middle = candidate.output_box.shape[axis] // 2
    first = candidate.output_box.with_interval(axis, 0, middle)
    second = candidate.output_box.with_interval(axis, middle, candidate.output_box.shape[axis])
    graph, op = candidate.fused.graph, candidate.op
    pairs = zip(spec_of(op).input_boxes(graph, op, first), spec_of(op).input_boxes(graph, op, second))
    return [(graph.tensor(name), low, high) for name, (low, high) in zip(graph.activations(op), pairs)]
