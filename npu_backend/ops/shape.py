"""Operators that only move elements: reshape, transpose, concatenation, padding, slicing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm, prod

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.ops import numerics_core
from npu_backend.ops.attributes import (
    ConcatAttributes,
    PadAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)
from npu_backend.ops.base import LoweredInstruction, Operand, OpSpec, PackedConstant, Tile, dense_strides, register
from npu_backend.ops.conv import quantization_of
from npu_backend.ops.elementwise import table_lookup
from npu_backend.ops.strided import blocks_of_four, elementwise


def _copy(source: Operand, output: Operand, counts: Sequence[int]) -> tuple[LoweredInstruction, ...]:
    operands = {"input": (source.address, source.strides), "output": (output.address, output.strides)}
    return elementwise("COPY", counts, operands, {"element_bytes": np.dtype(output.dtype).itemsize})


@register
class Reshape(OpSpec):
    """The same bytes under another shape; divided along the outermost axis where both shapes allow it."""

    kind = "reshape"
    meaning = "reshape, flatten, squeeze, unsqueeze"

    def infer_shape(
        self, attributes: ReshapeAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The attribute's."""
        assert prod(attributes.shape) == prod(inputs[0].shape), (attributes.shape, inputs[0].shape)
        return attributes.shape

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """NumPy's reshape."""
        return inputs[0].reshape(op.attributes.shape)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """The outermost axis longer than 1, where a part is whole steps of the input's outermost axis too."""
        source, output = graph.tensor(op.inputs[0]).shape, graph.tensor(op.output).shape
        axis, unit = _outermost(output)
        multiple = lcm(unit, _outermost(source)[1]) // unit
        return {axis: multiple} if output and multiple < output[axis] else {}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The steps of the input's outermost axis that hold the same elements."""
        source, output = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        if out_box == output.box:
            return (source.box,)
        (out_axis, out_unit), (in_axis, in_unit) = _outermost(output.shape), _outermost(source.shape)
        start, stop = (bound * out_unit // in_unit for bound in out_box.interval(out_axis))
        return (source.box.with_interval(in_axis, start, stop),)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One copy of a contiguous run."""
        source, output = tile.inputs[0], tile.output
        for operand in (source, output):
            item = np.dtype(operand.dtype).itemsize
            dense = zip(operand.strides, dense_strides(operand.box.shape, item), operand.box.shape)
            assert all(have == want or extent == 1 for have, want, extent in dense), f"{op.name}: operand has gaps"
        item = np.dtype(output.dtype).itemsize
        flat_source, flat_output = (
            Operand(operand.address, (item,), Box((0,), (operand.box.size,)), operand.dtype)
            for operand in (source, output)
        )
        return _copy(flat_source, flat_output, (output.box.size,))


def _outermost(shape: Sequence[int]) -> tuple[int, int]:
    """The first axis longer than 1 (the last if none is), and the elements of one step along it."""
    axis = next((i for i, extent in enumerate(shape) if extent > 1), max(0, len(shape) - 1))
    return axis, prod(shape[axis + 1 :])


@register
class Transpose(OpSpec):
    """Axes in another order; most are cancelled by the legalize pass and never run."""

    kind = "transpose"
    meaning = "transpose of any axes"

    def infer_shape(
        self, attributes: TransposeAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The permuted shape."""
        return tuple(inputs[0].shape[axis] for axis in attributes.axes)

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """NumPy's transpose."""
        return np.ascontiguousarray(inputs[0].transpose(op.attributes.axes))

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis."""
        return dict.fromkeys(range(len(graph.tensor(op.output).shape)), 1)

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The box with its axes back in order."""
        axes = op.attributes.axes
        return (out_box.permute([axes.index(axis) for axis in range(len(axes))]),)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A strided copy."""
        source = tile.inputs[0]
        turned = Operand(
            source.address, tuple(source.strides[axis] for axis in op.attributes.axes), tile.output.box, source.dtype
        )
        return _copy(turned, tile.output, tile.output.box.shape)


@register
class Concat(OpSpec):
    """Inputs one after the other; those of another scale pass through a table."""

    kind = "concat"
    meaning = "concatenation along any axis, inputs of other scales requantised"

    def infer_shape(
        self, attributes: ConcatAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The first input's shape with the extents along the axis added up."""
        shape = list(inputs[0].shape)
        shape[attributes.axis] = sum(tensor.shape[attributes.axis] for tensor in inputs)
        return tuple(shape)

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's QLinearConcat."""
        parts = []
        for name, value in zip(op.inputs, inputs):
            table = self._table(graph, op, name)
            parts.append(value if table is None else numerics_core.apply_table(value, table))
        return np.concatenate(parts, axis=op.attributes.axis)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis."""
        return dict.fromkeys(range(len(graph.tensor(op.output).shape)), 1)

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """What of the box comes from each input; empty where nothing does."""
        axis, boxes, offset = op.attributes.axis, [], 0
        for name in op.inputs:
            extent = graph.tensor(name).shape[axis]
            start, stop = (min(max(bound - offset, 0), extent) for bound in out_box.interval(axis))
            boxes.append(out_box.with_interval(axis, start, stop))
            offset += extent
        return tuple(boxes)

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """A table for every input of another scale, in order."""
        tables = [self._table(graph, op, name) for name in op.inputs]
        return tuple(PackedConstant(table.view(np.uint8).reshape(1, 256)) for table in tables if table is not None)

    def permute(self, attributes: ConcatAttributes, axes: tuple[int, ...], rank: int) -> ConcatAttributes:
        """Follows its axis."""
        return ConcatAttributes(axes.index(attributes.axis % rank))

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A copy or a table look-up per input that has a part in the tile."""
        axis, offset = op.attributes.axis, 0
        lowered: list[LoweredInstruction] = []
        tables = iter(tile.constants)
        for name, source in zip(op.inputs, tile.inputs):
            table = next(tables) if self._table(graph, op, name) is not None else None
            start, stop = (bound + offset for bound in source.box.interval(axis))
            offset += graph.tensor(name).shape[axis]
            if source.box.is_empty:
                continue
            output = tile.output.narrow(tile.output.box.with_interval(axis, start, stop))
            lowered += (_copy(source, output, output.box.shape) if table is None
                        else table_lookup(source, output, table.address))  # fmt: skip
        return tuple(lowered)

    def _table(self, graph: Graph, op: Op, name: str) -> np.ndarray | None:
        x, y = graph.tensor(name), graph.tensor(op.output)
        if x.quantization is None or x.quantization == y.quantization:
            return None
        return numerics_core.requantize_table(
            np.float32(x.quantization.scale), x.quantization.zero_point,
            np.float32(quantization_of(y).scale), quantization_of(y).zero_point, np.dtype(y.dtype),
        )  # fmt: skip


@register
class Pad(OpSpec):
    """A border of one value."""

    kind = "pad"
    meaning = "constant padding of any axes"

    def infer_shape(
        self, attributes: PadAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The input's extents and the borders."""
        return tuple(map(sum, zip(inputs[0].shape, attributes.before, attributes.after)))

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """NumPy's pad."""
        a: PadAttributes = op.attributes
        return np.pad(inputs[0], tuple(zip(a.before, a.after)), constant_values=a.value)

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis."""
        return dict.fromkeys(range(len(graph.tensor(op.output).shape)), 1)

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The inside of the box; empty in the border."""
        inside = out_box.translate([-extent for extent in op.attributes.before])
        clipped = inside.intersect(graph.tensor(op.inputs[0]).box)
        return (Box(clipped.starts, clipped.starts) if clipped.is_empty else clipped,)

    def permute(self, attributes: PadAttributes, axes: tuple[int, ...], rank: int) -> PadAttributes:
        """Follows its axes."""
        before, after = (tuple(side[a] for a in axes) for side in (attributes.before, attributes.after))
        return PadAttributes(before, after, attributes.value)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """The whole tile filled, then the inside copied over it."""
        a: PadAttributes = op.attributes
        output, source = tile.output, tile.inputs[0]
        value = int.from_bytes(np.array(a.value, output.dtype).tobytes(), "little")
        fields = {"element_bytes": np.dtype(output.dtype).itemsize, "value": value}
        lowered: list[LoweredInstruction] = []
        for counts, (steps,), (offset,) in blocks_of_four(output.box.shape, [output.strides]):
            place = {"output": output.address + offset, "counts": counts, "output_strides": steps}
            lowered.append(LoweredInstruction("FILL", place | fields))
        if not source.box.is_empty:
            inside = output.narrow(source.box.translate(a.before))
            lowered += _copy(source, inside, inside.box.shape)
        return tuple(lowered)


@register
class Slice(OpSpec):
    """Every step-th element of an interval of every axis."""

    kind = "slice"
    meaning = "slices and splits with positive steps"

    def infer_shape(
        self, attributes: SliceAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """Steps that fit into every interval."""
        a = attributes
        return tuple(-(-(stop - start) // step) for start, stop, step in zip(a.starts, a.stops, a.steps))

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """NumPy's slicing."""
        a: SliceAttributes = op.attributes
        return np.ascontiguousarray(inputs[0][tuple(map(slice, a.starts, a.stops, a.steps))])

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis."""
        return dict.fromkeys(range(len(graph.tensor(op.output).shape)), 1)

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """From the first to the last element taken."""
        a: SliceAttributes = op.attributes
        starts = tuple(s + low * step for s, low, step in zip(a.starts, out_box.starts, a.steps))
        stops = tuple(s + (high - 1) * step + 1 for s, high, step in zip(a.starts, out_box.stops, a.steps))
        return (Box(starts, stops),)

    def permute(self, attributes: SliceAttributes, axes: tuple[int, ...], rank: int) -> SliceAttributes:
        """Follows its axes."""
        a = attributes
        return SliceAttributes(*(tuple(side[axis] for axis in axes) for side in (a.starts, a.stops, a.steps)))

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """A strided copy."""
        source, steps = tile.inputs[0], op.attributes.steps
        stepped = Operand(source.address, tuple(map(int.__mul__, source.strides, steps)), tile.output.box, source.dtype)
        return _copy(stepped, tile.output, tile.output.box.shape)
