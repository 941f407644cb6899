"""The NPU graph: tensors, operators and constants, in topological order.

Layout: every axis order is the storage order. Operators with windows (convolution, pooling, resize) are defined on
``[n, h, w, c]``; an importer from a channels-first world wraps them in `transpose` operators, which the legalize
pass cancels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from npu_backend.box import Box

# Data types of tensors by what their elements are: codes of a quantised tensor, floats, plain numbers.
CODES = ("uint8", "int8", "uint16", "int16")
FLOATS = ("float16", "float32")
NUMBERS = ("int32", "int64", "bool")


@dataclass(frozen=True)
class Quantization:
    """Affine quantisation of an activation, per tensor: ``real = scale * (integer - zero_point)``.

    `scale` is exactly representable in float32, as ONNX stores it.
    """

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Tensor:
    """A value of the graph: NumPy data type name, shape in storage order, quantisation if it is an integer code."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return int(np.dtype(self.dtype).itemsize)

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole tensor, dense."""
        return prod(self.shape) * self.itemsize

    @property
    def box(self) -> Box:
        """The box of the whole tensor."""
        return Box.whole(self.shape)


@dataclass(frozen=True)
class Op:
    """One operator: `inputs` name tensors or constants, `attributes` is the kind's own frozen dataclass.

    A plain constant is the operator's own, packed as its engine reads it; a constant tensor is read as any other.

    `origin` names the ONNX nodes it came from, first the one a user would call it by.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Any = None
    origin: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphPort:
    """An input or output as the host sees it: host axis i is storage axis ``storage_axes[i]`` of the tensor."""

    tensor: str
    host_name: str
    storage_axes: tuple[int, ...]

    def host_shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Shape of the array the host passes or receives."""
        return tuple(tensor.shape[axis] for axis in self.storage_axes)


@dataclass(frozen=True)
class Graph:
    """A directed acyclic graph of operators, listed in topological order.

    A name in both `tensors` and `constants` is a constant tensor: it lies in DRAM before the first operator runs.
    """

    name: str
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, np.ndarray]
    ops: tuple[Op, ...]
    inputs: tuple[GraphPort, ...]
    outputs: tuple[GraphPort, ...]

    def tensor(self, name: str) -> Tensor:
        """The activation called `name`."""
        return self.tensors[name]

    def activations(self, op: Op) -> tuple[str, ...]:
        """The inputs of `op` that are tensors, in order; constants of its own left out."""
        return tuple(name for name in op.inputs if name in self.tensors)

    @cached_property
    def constant_tensors(self) -> tuple[str, ...]:
        """Tensors whose values are in `constants`."""
        return tuple(name for name in self.constants if name in self.tensors)

    @cached_property
    def producers(self) -> Mapping[str, Op]:
        """Tensor name to the operator that writes it; graph inputs have none."""
        return {op.output: op for op in self.ops}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Op, ...]]:
        """Tensor name to the operators that read it, in order."""
        readers: dict[str, list[Op]] = {name: [] for name in self.tensors}
        for op in self.ops:
            for name in dict.fromkeys(self.activations(op)):
                readers[name].append(op)
        return {name: tuple(ops) for name, ops in readers.items()}

    @cached_property
    def output_names(self) -> frozenset[str]:
        """Names of the tensors that leave the graph."""
        return frozenset(port.tensor for port in self.outputs)

    def __str__(self) -> str:
        lines = [f"graph {self.name}"]
        lines += [f"  input {_port(self, port)}" for port in self.inputs]
        lines += [f"  constant {_tensor(self.tensors[name])}" for name in self.constant_tensors]
        lines += [f"  {_tensor(self.tensors[op.output])} = {op.kind}({', '.join(op.inputs)}) {_text(op.attributes)}"
                  f"  # {op.name}" for op in self.ops]  # fmt: skip
        lines += [f"  output {_port(self, port)}" for port in self.outputs]
        return "\n".join(lines) + "\n"


def _tensor(tensor: Tensor) -> str:
    quantization = tensor.quantization
    code = f" scale={quantization.scale:.9g} zero={quantization.zero_point}" if quantization else ""
    return f"{tensor.name}: {tensor.dtype}{list(tensor.shape)}{code}"


def _port(graph: Graph, port: GraphPort) -> str:
    return f"{_tensor(graph.tensors[port.tensor])} as {port.host_name} axes={list(port.storage_axes)}"


def _text(attributes: Any) -> str:
    return "" if attributes is None else str(attributes)


@dataclass
class GraphBuilder:
    """Collects tensors, constants and operators, then freezes them; used by importers and passes."""

    name: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    inputs: list[GraphPort] = field(default_factory=list)
    outputs: list[GraphPort] = field(default_factory=list)

    def unique(self, stem: str) -> str:
        """A tensor or constant name not used yet, `stem` itself where free."""
        taken = self.tensors.keys() | self.constants.keys()
        if stem not in taken:
            return stem
        return next(name for i in range(1, len(taken) + 2) if (name := f"{stem}.{i}") not in taken)

    def constant(self, stem: str, value: np.ndarray) -> str:
        """Adds a constant and returns its name."""
        name = self.unique(stem)
        self.constants[name] = value
        return name

    def constant_tensor(self, stem: str, value: np.ndarray, quantization: Quantization | None = None) -> str:
        """Adds a tensor whose values are known and returns its name."""
        name = self.constant(stem, value)
        self.tensors[name] = Tensor(name, value.shape, value.dtype.name, quantization)
        return name

    def input(self, tensor: Tensor, host_name: str, storage_axes: Iterable[int] | None = None) -> str:
        """Adds a graph input and returns its tensor's name."""
        axes = tuple(range(len(tensor.shape)) if storage_axes is None else storage_axes)
        self.tensors[tensor.name] = tensor
        self.inputs.append(GraphPort(tensor.name, host_name, axes))
        return tensor.name

    def output(self, name: str, host_name: str, storage_axes: Iterable[int] | None = None) -> None:
        """Marks a tensor as a graph output."""
        axes = tuple(range(len(self.tensors[name].shape)) if storage_axes is None else storage_axes)
        self.outputs.append(GraphPort(name, host_name, axes))

    def freeze(self) -> Graph:
        """The finished graph, without constants that nothing reads."""
        used = {name for op in self.ops for name in op.inputs}
        constants = {name: value for name, value in self.constants.items() if name in used}
        return Graph(self.name, dict(self.tensors), constants, tuple(self.ops), tuple(self.inputs), tuple(self.outputs))
