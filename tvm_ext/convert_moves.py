"""From matches to what moves elements, of whatever type: shapes, slices, joins, look-ups, images."""

from __future__ import annotations

import numpy as np

from npu_backend.ops import attributes as a
from npu_backend.ops.numerics_conv import activation_bounds
from tvm_ext.lowering import Lowering
from tvm_ext.matching import Match, dtype_of


def reshape(match: Match, graph: Lowering) -> str:
    """Reshape, Flatten, Squeeze and Unsqueeze."""
    return _moved(match, graph, "reshape", a.ReshapeAttributes(match.output_shape))


def transpose(match: Match, graph: Lowering) -> str:
    """Transpose of any axes."""
    rank = len(match.output_shape)
    order = match.attribute("perm") or list(reversed(range(rank)))
    return _moved(match, graph, "transpose", a.TransposeAttributes(tuple(int(axis) for axis in order)))


def concat(match: Match, graph: Lowering) -> str:
    """Concat along any axis; inputs of another scale are requantised by the operator."""
    axis = match.attribute("axis") % len(match.output_shape)
    inputs = [graph.read(match, index) for index in range(len(match.operands))]
    kind = graph.result_type(match)
    if kind.codes is None:
        inputs = [graph.typed(match, source, kind) for source in inputs]
    return graph.emit(match, "concat", inputs, a.ConcatAttributes(axis), type=kind)


def slice_(match: Match, graph: Lowering) -> str:
    """Slice, and the parts of a Split."""
    shape = match.shape()
    bounds = [(0, extent, 1) for extent in shape]
    starts, stops, axes, steps = (match.array(index) for index in range(1, 5))
    assert starts is not None
    assert stops is not None
    for at in range(len(starts)):
        axis = at if axes is None else int(axes[at]) % len(shape)
        step = 1 if steps is None else int(steps[at])
        bounds[axis] = slice(int(starts[at]), int(stops[at]), step).indices(shape[axis])
    return _moved(match, graph, "slice", a.SliceAttributes(*zip(*bounds, strict=True)))


def pad(match: Match, graph: Lowering) -> str:
    """Pad; requantised first, so that the padding is exact in the output's codes."""
    rank, mode = len(match.shape()), match.attribute("mode", "constant")
    widths, value, axes = (match.array(index) for index in range(1, 4))
    assert widths is not None
    before, after = [0] * rank, [0] * rank
    chosen = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    for at, axis in enumerate(chosen):
        before[axis], after[axis] = int(widths[at]), int(widths[at + len(widths) // 2])
    source = graph.recode(match, graph.read(match))
    number = _padding(match, 0.0 if value is None or not value.size else float(value.reshape(-1)[0]))
    attributes = a.PadAttributes(tuple(before), tuple(after), number, mode)
    return graph.move(match, "pad", source, attributes)


def _padding(match: Match, value: float) -> int | float:
    """The padding in the elements of the output: a code, or the number itself."""
    codes, dtype = match.output_codes, dtype_of(match.root)
    if codes is None or not match.is_quantized:
        return value if dtype.startswith("float") else int(value)
    return activation_bounds(value, value, np.float32(codes.scale), codes.zero_point, np.dtype(dtype))[0]


def expand(match: Match, graph: Lowering) -> str:
    """Expand to a shape."""
    shape = (1,) * (len(match.output_shape) - len(match.shape())) + match.shape()
    source = graph.reshape(match, graph.read(match), shape, "aligned")
    return graph.recode(match, graph.move(match, "expand", source, a.ExpandAttributes(match.output_shape)))


def tile(match: Match, graph: Lowering) -> str:
    """Tile along any axes."""
    repeats = match.array(1)
    assert repeats is not None
    return _moved(match, graph, "tile", a.TileAttributes(tuple(int(count) for count in repeats)))


def gather(match: Match, graph: Lowering) -> str:
    """Gather along any axis."""
    axis = match.attribute("axis", 0) % len(match.shape())
    source, indices = graph.read(match, 0), graph.read(match, 1)
    attributes = a.GatherAttributes(axis)
    moved = graph.emit(match, "gather", [source, indices], attributes, type=graph.type_of(source))
    return graph.recode(match, moved)


def depth_to_space(match: Match, graph: Lowering) -> str:
    """DepthToSpace in both modes."""
    attributes = a.BlockAttributes(match.attribute("blocksize"), match.attribute("mode", "DCR"))
    return graph.on_image_moved(match, "depth_to_space", attributes)


def space_to_depth(match: Match, graph: Lowering) -> str:
    """SpaceToDepth."""
    return graph.on_image_moved(match, "space_to_depth", a.BlockAttributes(match.attribute("blocksize")))


def resize(match: Match, graph: Lowering) -> str:
    """Resize of images, or of signals as images of one row."""
    attributes = resize_attributes(match)
    if len(match.shape()) == 4:
        nearest = attributes.function == "nearest"
        return (graph.on_image_moved if nearest else graph.on_image)(match, "resize2d", attributes)
    (batch, channels, length), source = match.shape(), graph.read(match)
    rows = graph.transpose(match, source, (0, 2, 1), "nlc")
    image = graph.reshape(match, rows, (batch, 1, length, channels), "image")
    kind = graph.type_of(source) if attributes.function == "nearest" else None
    result = graph.emit(match, "resize2d", [image], attributes, type=kind)
    flat = graph.reshape(match, result, (batch, match.output_shape[2], channels), "flat")
    return graph.recode(match, graph.transpose(match, flat, (0, 2, 1), "ncl"))


_RESIZES = {"nearest": "nearest", "linear": "bilinear", "cubic": "cubic"}


def resize_attributes(match: Match) -> a.ResizeAttributes:
    """Interpolation, sizes and scales as ONNX computes coordinates with them."""
    axes = range(len(match.shape()))
    ratios = {axis: float(np.float32(match.output_shape[axis]) / np.float32(match.shape()[axis])) for axis in axes}
    scales = {**ratios, **_by_axis(match, match.array(2))}
    roi = match.array(1)
    half = 0 if roi is None else len(roi) // 2
    first = _by_axis(match, None if roi is None else roi[:half])
    last = _by_axis(match, None if roi is None else roi[half:])
    height, width = (2, 3) if len(axes) == 4 else (-1, 2)
    return a.ResizeAttributes(
        _RESIZES[match.attribute("mode", "nearest")],
        (match.output_shape[height] if height > 0 else 1, match.output_shape[width]),
        (scales.get(height, 1.0), scales[width]),
        match.attribute("coordinate_transformation_mode", "half_pixel"),
        match.attribute("nearest_mode", "round_prefer_floor"),
        match.attribute("cubic_coeff_a", -0.75),
        bool(match.attribute("exclude_outside", 0)),
        bool(match.attribute("antialias", 0)),
        (first.get(height, 0.0), first.get(width, 0.0), last.get(height, 1.0), last.get(width, 1.0)),
        match.attribute("extrapolation_value", 0.0),
    )


def _by_axis(match: Match, values: np.ndarray | None) -> dict[int, float]:
    """One number per axis that the node names, which are all unless it says so."""
    if values is None or not values.size:
        return {}
    axes = match.attribute("axes") or range(len(match.shape()))
    return {int(axis) % len(match.shape()): float(value) for axis, value in zip(axes, values, strict=True)}


def _moved(match: Match, graph: Lowering, kind: str, attributes: object) -> str:
    """Elements moved as they are, then recoded where the output's differ."""
    return graph.recode(match, graph.move(match, kind, graph.read(match), attributes))
