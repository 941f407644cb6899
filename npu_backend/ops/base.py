"""What every operator must say of itself, and the operands its lowering is given.

One operator is one `OpSpec`: shape inference, the axes it may be split on, the input region an output region needs, a
NumPy reference, its constants as they lie in DRAM, and the instructions of one tile. Cycles follow from the
instructions, so there is one cost model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, GraphBuilder, Op, Quantization, Tensor
from npu_backend.isa import WEIGHT_CHUNK


@dataclass(frozen=True, slots=True)
class Address:
    """A place inside a scratchpad buffer that is not placed yet, or inside a tensor in DRAM (`buffer`: its name)."""

    buffer: int | str
    offset: int

    def __add__(self, offset: int) -> Address:
        return Address(self.buffer, self.offset + offset)


@dataclass(frozen=True, slots=True)
class Operand:
    """A box of a tensor as it lies in a scratchpad: address of its first element, byte stride of every axis."""

    address: Address
    strides: tuple[int, ...]
    box: Box
    dtype: str

    def narrow(self, box: Box) -> Operand:
        """The part of the operand that holds `box`, which must lie inside it."""
        if box == self.box:
            return self
        assert self.box.contains(box), (str(self.box), str(box))
        # A plain loop: every access of every tile comes by here.
        moved = self.address.offset
        for new, old, stride in zip(box.starts, self.box.starts, self.strides):
            moved += (new - old) * stride
        return Operand(Address(self.address.buffer, moved), self.strides, box, self.dtype)


def quantization_of(tensor: Tensor) -> Quantization:
    """The tensor's quantisation, which an importer of quantised operators always sets."""
    assert tensor.quantization is not None, f"{tensor.name} has no quantisation"
    return tensor.quantization


@lru_cache(maxsize=1 << 14)
def dense_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Byte strides of a dense row-major array of `shape`."""
    strides, step = [], itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


@dataclass(frozen=True)
class PackedConstant:
    """A constant as the engines read it: rows of bytes, one row per `block` elements of an output axis.

    `rows`: uint8 ``[row, byte]``. `axis` None: every tile needs all rows. `chunk_bytes` is set where a reduction may be
    tiled: that many bytes per 64 input channels, followed by a tail that goes with the last chunk.
    """

    rows: np.ndarray
    axis: int | None = None
    block: int = 1
    chunk_bytes: int | None = None

    def row_interval(self, out_box: Box) -> tuple[int, int]:
        """Rows that a tile with this output box needs; the box must start on a block."""
        if self.axis is None:
            return 0, len(self.rows)
        start, stop = out_box.interval(self.axis)
        assert start % self.block == 0, f"tile starts at {start}, which is no multiple of {self.block}"
        return start // self.block, -(-stop // self.block)

    def column_interval(self, reduction: Reduction | None) -> tuple[int, int]:
        """Bytes of each row that a tile of the reduction needs."""
        if reduction is None or self.chunk_bytes is None:
            return 0, self.rows.shape[1]
        start = reduction.start // WEIGHT_CHUNK * self.chunk_bytes
        stop = self.rows.shape[1] if reduction.is_last else reduction.stop // WEIGHT_CHUNK * self.chunk_bytes
        return start, stop


@dataclass(frozen=True, slots=True)
class Reduction:
    """A part of the input channels that are summed over; parts start on multiples of 64 channels."""

    start: int
    stop: int
    total: int

    @property
    def is_first(self) -> bool:
        """Whether the sum starts here."""
        return self.start == 0

    @property
    def is_last(self) -> bool:
        """Whether the sum is complete after this part."""
        return self.stop == self.total


@dataclass(frozen=True, slots=True)
class ConstantOperand:
    """Rows of a packed constant in a scratchpad: address, bytes from row to row, first row."""

    address: Address
    row_bytes: int
    first_row: int


@dataclass(frozen=True, slots=True)
class Tile:
    """Everything one tile's lowering reads and writes; inputs are the activations in the operator's order."""

    output: Operand
    inputs: tuple[Operand, ...]
    constants: tuple[ConstantOperand, ...] = ()
    reduction: Reduction | None = None
    accumulators: Address | None = None


@dataclass(frozen=True, slots=True)
class LoweredInstruction:
    """An instruction whose address fields are still `Address`es."""

    name: str
    values: Mapping[str, Any]


class OpSpec(ABC):
    """All facts about one kind of operator.

    `is_elementwise` says that output element i needs only element i of every activation (an extent of 1 broadcasts);
    such a kind may be fused behind its producer. `keeps_elements`: the output's elements are the first input's, bit for
    bit. `forms`: data types of the first activation that it takes.
    """

    kind: ClassVar[str]
    meaning: ClassVar[str]
    forms: ClassVar[tuple[str, ...]] = ("uint8", "int8")
    is_elementwise: ClassVar[bool] = False
    keeps_elements: ClassVar[bool] = False

    @abstractmethod
    def infer_shape(
        self, attributes: Any, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """Shape of the output from the shapes of the activations."""

    def wrong_types(self, graph: Graph, op: Op) -> str | None:
        """What is wrong with the data types of its inputs and output, None where nothing is."""
        x, y = graph.tensor(graph.activations(op)[0]), graph.tensor(op.output)
        if self.keeps_elements and (x.dtype, x.quantization) != (y.dtype, y.quantization):
            return f"makes {y.dtype} with {y.quantization} of {x.dtype} with {x.quantization}"
        return None

    @abstractmethod
    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The operator in NumPy, equal to ONNX Runtime's integer kernels; inputs are the activations, whole."""

    @abstractmethod
    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Output axes that cores and tiles may divide, each with the multiple on which a part must start."""

    @abstractmethod
    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """For every activation, the region that an output region needs, clipped to the tensor."""

    @abstractmethod
    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """The instructions of one tile."""

    def constants(self, graph: Graph, op: Op) -> tuple[PackedConstant, ...]:
        """The operator's constants as they lie in DRAM."""
        del graph, op
        return ()

    def read_in_dram(self, graph: Graph, op: Op) -> frozenset[str]:
        """Activations whose elements the instructions fetch from DRAM by themselves; no operator may compute them."""
        del graph, op
        return frozenset()

    def reduction_length(self, graph: Graph, op: Op) -> int | None:
        """Input channels summed over where a tile may take a part of them, else None."""
        del graph, op
        return None

    def reduction_boxes(self, graph: Graph, op: Op, boxes: Sequence[Box], reduction: Reduction) -> tuple[Box, ...]:
        """What a part of the reduction needs of the boxes that the whole sum needs: here, of their last axis."""
        del graph, op
        return tuple(box.with_interval(box.rank - 1, reduction.start, reduction.stop) for box in boxes)

    def accumulator_bytes(self, graph: Graph, op: Op, out_box: Box) -> int:
        """Scratchpad bytes of a tile's partial sums, where there is a reduction to tile."""
        del graph, op, out_box
        return 0

    def macs(self, graph: Graph, op: Op) -> int:
        """Multiply-accumulates of the whole operator."""
        del graph, op
        return 0

    def permute(self, attributes: Any, axes: tuple[int, ...], rank: int) -> Any:
        """The attributes when every input is stored with axis i being logical axis ``axes[i]``.

        Returns None where the operator is bound to its axis order.
        """
        del attributes, axes, rank
        return None

    def reorder(self, attributes: Any, orders: Sequence[tuple[int, ...]]) -> Any:
        """The attributes when each activation is stored in an order of its own and the output stays in logical order.

        Logical axis i of activation j is stored as axis ``orders[j][i]``. Returns None where the operator wants all of
        them in one order.
        """
        del attributes, orders
        return None

    def reorder_output(self, attributes: Any, axes: tuple[int, ...]) -> Any:
        """The attributes when axis i of the output is stored as axis ``axes[i]``; None where that cannot be."""
        del attributes, axes
        return None


_REGISTRY: dict[str, OpSpec] = {}


def register(spec_class: type[OpSpec]) -> type[OpSpec]:
    """Class decorator: makes a kind known."""
    assert spec_class.kind not in _REGISTRY, f"{spec_class.kind} is registered twice"
    _REGISTRY[spec_class.kind] = spec_class()
    return spec_class


def spec_of(op: Op) -> OpSpec:
    """The specification of an operator's kind."""
    return _REGISTRY[op.kind]


def registered_ops() -> Mapping[str, OpSpec]:
    """Every kind, in order of registration."""
    return dict(_REGISTRY)


def append_op(
    builder: GraphBuilder,
    kind: str,
    inputs: Iterable[str],
    attributes: Any = None,
    *,
    name: str,
    dtype: str,
    quantization: Quantization | None = None,
    origin: tuple[str, ...] = (),
) -> str:
    """Appends an operator, infers its output's shape and returns the output tensor's name."""
    names = tuple(inputs)
    activations = [builder.tensors[n] for n in names if n in builder.tensors]
    constants = [builder.constants[n] for n in names if n not in builder.tensors]
    shape = _REGISTRY[kind].infer_shape(attributes, activations, constants)
    output = builder.unique(name)
    builder.tensors[output] = Tensor(output, shape, dtype, quantization)
    builder.ops.append(Op(name, kind, names, output, attributes, origin or (name,)))
    return output
