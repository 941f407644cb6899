"""Legalize: storage order chosen, so that almost no transpose is left, and operators that do nothing removed.

A forward walk keeps every value as a stored tensor and a permutation, ``logical axis i is stored axis axes[i]``. A
transpose only changes the permutation; operators that are bound to no axis order run on the stored tensor; only where
an operator insists on its order is a transpose written out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from npu_backend.graph import Graph, GraphBuilder, Op, Tensor
from npu_backend.ops import spec_of
from npu_backend.ops.attributes import ReshapeAttributes, TransposeAttributes
from npu_backend.ops.base import append_op
from npu_backend.passes.tabulate import tabulate

Axes = tuple[int, ...]

# Where a host tensor of rank 4 is [n, c, h, w], as ONNX has it, the NPU stores [n, h, w, c].
_CHANNELS_LAST = (0, 3, 1, 2)


@dataclass(frozen=True)
class _Value:
    """A logical tensor: the stored one, and the stored axis of each logical axis."""

    name: str
    axes: Axes


def legalize(graph: Graph) -> Graph:
    """The same function with layouts settled; every operator's inputs and output are in storage order."""
    graph = tabulate(graph)
    walk = _Walk(graph, GraphBuilder(graph.name, constants=dict(graph.constants)))
    for port in graph.inputs:
        walk.add_input(port.tensor, port.host_name)
    for name in graph.constant_tensors:
        walk.add_constant(name)
    for op in _live(graph):
        walk.add(op)
    for port in graph.outputs:
        value = walk.values[port.tensor]
        walk.builder.output(value.name, port.host_name, value.axes)
    return walk.builder.freeze()


def _live(graph: Graph) -> list[Op]:
    """The operators that an output depends on."""
    needed, kept = set(graph.output_names), []
    for op in reversed(graph.ops):
        if op.output in needed:
            needed.update(op.inputs)
            kept.append(op)
    return kept[::-1]


@dataclass
class _Walk:
    graph: Graph
    builder: GraphBuilder
    values: dict[str, _Value] = field(default_factory=dict)
    written: dict[tuple[str, Axes], str] = field(default_factory=dict)

    def add_input(self, name: str, host_name: str) -> None:
        tensor = self.graph.tensor(name)
        axes = _CHANNELS_LAST if len(tensor.shape) == 4 else _identity(len(tensor.shape))
        stored = Tensor(name, _stored_shape(tensor.shape, axes), tensor.dtype, tensor.quantization)
        self.values[name] = _Value(self.builder.input(stored, host_name, axes), axes)

    def add_constant(self, name: str) -> None:
        tensor = self.builder.tensors[name] = self.graph.tensor(name)
        self.values[name] = _Value(name, _identity(len(tensor.shape)))

    def add(self, op: Op) -> None:
        if op.kind == "transpose":
            source = self.values[op.inputs[0]]
            self.values[op.output] = _Value(source.name, tuple(source.axes[axis] for axis in op.attributes.axes))
        elif self._does_nothing(op):
            self.values[op.output] = self.values[op.inputs[0]]
        elif op.kind == "reshape":
            self._reshape(op)
        else:
            self._compute(op)

    def _does_nothing(self, op: Op) -> bool:
        source, result = self.graph.tensors.get(op.inputs[0]), self.graph.tensor(op.output)
        same = source is not None and (source.dtype, source.quantization) == (result.dtype, result.quantization)
        if not same or source is None:
            return False
        identity = op.kind == "unary" and op.attributes.function == "identity"
        return identity or (op.kind == "reshape" and source.shape == result.shape)

    def _reshape(self, op: Op) -> None:
        """Row-major order matters here, up to axes of extent 1."""
        source, result = self.values[op.inputs[0]], self.graph.tensor(op.output)
        stored = self.builder.tensors[source.name]
        moved = [axis for axis in source.axes if stored.shape[axis] > 1]
        name = source.name if moved == sorted(moved) else self._in_order(source)
        self._append(op, (name,), ReshapeAttributes(result.shape), _identity(len(result.shape)))

    def _compute(self, op: Op) -> None:
        activations = self.graph.activations(op)
        reordered = spec_of(op).reorder(op.attributes, [self.values[name].axes for name in activations])
        if reordered is not None:
            stored = tuple(self.values[name].name if name in activations else name for name in op.inputs)
            self._append(op, stored, reordered, _identity(len(self.graph.tensor(op.output).shape)))
            return
        axes = self._common_axes(op, [self.values[name] for name in activations if name not in self.graph.constants])
        attributes = op.attributes
        if axes is None:
            rank = len(self.graph.tensor(op.output).shape)
            names = [self._in_order(self.values[name]) for name in activations]
            axes = _identity(rank)
        else:
            names = [self._constant(name, axes) if name in self.graph.constants else self.values[name].name
                     for name in activations]  # fmt: skip
            if axes != _identity(len(axes)):
                attributes = spec_of(op).permute(attributes, _inverse(axes), len(axes))
            else:
                axes = _identity(len(self.graph.tensor(op.output).shape))
        following = iter(names)
        inputs = tuple(next(following) if name in self.graph.tensors else name for name in op.inputs)
        self._append(op, inputs, attributes, axes)

    def _common_axes(self, op: Op, activations: list[_Value]) -> Axes | None:
        """The storage order that all computed activations share, if there are any and the operator can work in it."""
        axes = activations[0].axes if activations else ()
        if not activations or any(value.axes != axes for value in activations):
            return None
        if axes == _identity(len(axes)):
            return axes
        permuted = spec_of(op).permute(op.attributes, _inverse(axes), len(axes))
        elementwise = spec_of(op).is_elementwise
        return axes if permuted is not None or elementwise else None

    def _append(self, op: Op, inputs: tuple[str, ...], attributes: object, axes: Axes) -> None:
        result = self.graph.tensor(op.output)
        name = append_op(
            self.builder, op.kind, inputs, attributes,
            name=op.output, dtype=result.dtype, quantization=result.quantization, origin=op.origin,
        )  # fmt: skip
        self.values[op.output] = _Value(name, axes)

    def _constant(self, name: str, axes: Axes) -> str:
        """The constant tensor with its values in a storage order (one copy per order)."""
        if axes == _identity(len(axes)):
            return name
        if (name, axes) not in self.written:
            values = np.ascontiguousarray(self.graph.constants[name].transpose(_inverse(axes)))
            codes = self.graph.tensor(name).quantization
            self.written[name, axes] = self.builder.constant_tensor(f"{name}.stored", values, codes)
        return self.written[name, axes]

    def _in_order(self, value: _Value) -> str:
        """The tensor with its axes in logical order, by a transpose where needed (one per tensor)."""
        if value.axes == _identity(len(value.axes)) or self._is_turned_at_source(value):
            return value.name
        if (value.name, value.axes) not in self.written:
            stored = self.builder.tensors[value.name]
            self.written[value.name, value.axes] = append_op(
                self.builder, "transpose", (value.name,), TransposeAttributes(value.axes),
                name=f"{value.name}.transposed", dtype=stored.dtype, quantization=stored.quantization,
                origin=self._origin(value.name),
            )  # fmt: skip
        return self.written[value.name, value.axes]

    def _is_turned_at_source(self, value: _Value) -> bool:
        """Whether the operator that computes the tensor, which nobody has read yet, now writes it in logical order."""
        ops, axes = self.builder.ops, _inverse(value.axes)
        source = next((i for i, op in enumerate(ops) if op.output == value.name), None)
        if source is None or any(value.name in op.inputs for op in ops):
            return False
        attributes = spec_of(ops[source]).reorder_output(ops[source].attributes, axes)
        if attributes is None:
            return False
        ops[source] = replace(ops[source], attributes=attributes)
        stored = self.builder.tensors[value.name]
        self.builder.tensors[value.name] = replace(stored, shape=_stored_shape(stored.shape, axes))
        for name, other in self.values.items():
            if other.name == value.name:
                self.values[name] = replace(other, axes=tuple(axes[axis] for axis in other.axes))
        return True

    def _origin(self, name: str) -> tuple[str, ...]:
        return next((op.origin for op in self.builder.ops if op.output == name), (name,))


def _identity(rank: int) -> Axes:
    return tuple(range(rank))


def _inverse(axes: Axes) -> Axes:
    """Logical axis of every stored axis."""
    return tuple(axes.index(axis) for axis in range(len(axes)))


def _stored_shape(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    return tuple(shape[axes.index(axis)] for axis in range(len(axes)))
