"""The NPU graph under construction, as converters write it: tensors, element types, operators of a match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from npu_backend.graph import CODES, FLOATS, GraphBuilder, Quantization
from npu_backend.ops import append_op
from npu_backend.ops import attributes as a
from npu_backend.ops.numerics_core import to_half
from tvm_ext.matching import PLAIN, Match, Operand, dtype_of, shared_codes, values_of
from tvm_ext.values import Variable

NHWC = (0, 2, 3, 1)
NCHW = (0, 3, 1, 2)


class ElementType(NamedTuple):
    """Data type of a tensor's elements and, where they are codes, what these stand for."""

    dtype: str
    codes: Quantization | None = None


HALF = ElementType("float16")
# Tensors of fewer axes are parameters rather than data.
_SMALLEST_HALF_RANK = 2
_IDENTITY = a.UnaryAttributes("identity")


@dataclass(frozen=True)
class Lowering:
    """The graph under construction and the tensor that holds each variable.

    A float32 variable of two axes or more is float16 on the NPU; what enters or leaves it is float32 in DRAM.
    `leaving`: variables that no operator of the graph reads.
    """

    builder: GraphBuilder
    leaving: frozenset[Variable] = frozenset()
    tensors: dict[Variable, str] = field(default_factory=dict)
    halves: dict[str, str] = field(default_factory=dict)

    def type_of(self, tensor: str) -> ElementType:
        """Element type of a tensor."""
        found = self.builder.tensors[tensor]
        return ElementType(found.dtype, found.quantization)

    def result_type(self, match: Match) -> ElementType:
        """Element type of what the match defines.

        Vectors and numbers stay float32: they cost nothing, and are often scales, which half precision cannot hold. So
        do floats that end in codes, as ONNX Runtime computes them.
        """
        dtype = dtype_of(match.root)
        if dtype == "float32" and len(match.output_shape) >= _SMALLEST_HALF_RANK and not match.before_codes:
            dtype = "float16"
        return ElementType(dtype, match.output_codes)

    def _last_type(self, match: Match) -> ElementType:
        element = self.result_type(match)
        return (
            ElementType("float32")
            if element == HALF and dtype_of(match.root) == "float32" and match.root in self.leaving
            else element
        )

    def inner_type(self, match: Match) -> ElementType:
        """Element type between the steps of one operator: float32 where codes follow, which may have 16 bits."""
        return ElementType("float32") if match.output_codes or match.before_codes else HALF

    def read(self, match: Match, index: int = 0) -> str:
        """The tensor of an operand as it is stored."""
        operand = match.operand(index)
        assert operand is not None, (match.node.name, index)
        if operand.variable:
            return self.tensors[operand.variable]
        return self.constant_tensor(match, operand, f"operand{index}", operand.shape)

    def read_half(self, match: Match, index: int = 0) -> str:
        """The tensor of an operand as float16, for an engine that multiplies nothing else."""
        operand = match.operand(index)
        assert operand is not None, (match.node.name, index)
        if operand.variable:
            return self.typed(match, self.tensors[operand.variable], HALF)
        values = to_half(values_of(operand))
        return self.builder.constant_tensor(f"{match.node.name}.operand{index}", values)

    def typed(self, match: Match, source: str, element: ElementType) -> str:
        """The tensor in another element type, made once where it is float16."""
        have = self.type_of(source)
        if have == element:
            return source
        if element == HALF and source in self.halves:
            return self.halves[source]
        made = append_op(
            self.builder, _conversion(have, element), [source], _IDENTITY if have.codes and element.codes else None,
            name=f"{source}.{element.dtype}", dtype=element.dtype, quantization=element.codes,
            origin=self._origin(match),
        )  # fmt: skip
        if element == HALF:
            self.halves[source] = made
        return made

    def read_aligned(self, match: Match, index: int) -> str:
        """The tensor of an operand with axes of 1 before its own, up to the output's rank."""
        operand, rank = match.operand(index), len(match.output_shape)
        assert operand is not None, (match.node.name, index)
        shape = (1,) * (rank - len(operand.shape)) + operand.shape
        if not operand.is_computed:
            return self.constant_tensor(match, operand, f"operand{index}", shape)
        source = self.read(match, index)
        if len(operand.shape) == rank:
            return source
        return self.move(match, "reshape", source, a.ReshapeAttributes(shape), label="align")

    def constant_tensor(self, match: Match, operand: Operand, label: str, shape: Sequence[int]) -> str:
        """A constant as a tensor: codes where ONNX Runtime keeps them, else numbers.

        Beside codes floats stay float32, as ONNX Runtime computes with them; so do vectors and numbers.
        """
        values, codes = shared_codes(operand, dtype_of(match.root)) or (values_of(operand), None)
        if codes is None and values.dtype.name in CODES:
            codes = PLAIN
        large = values.ndim >= _SMALLEST_HALF_RANK and values.size > 1
        if values.dtype == np.float32 and large and not (match.before_codes or _is_coded(match)):
            values = to_half(values)
        return self.builder.constant_tensor(f"{match.node.name}.{label}", values.reshape(shape), codes)

    def number(self, match: Match, value: float, rank: int, label: str) -> str:
        """A float32 constant of one element."""
        return self.builder.constant_tensor(f"{match.node.name}.{label}", np.full((1,) * rank, value, np.float32))

    def constants(self, match: Match, **values: np.ndarray | None) -> list[str]:
        """Adds the operator's own constants that are there, named after it."""
        return [self.builder.constant(f"{match.node.name}.{label}", value)
                for label, value in values.items() if value is not None]  # fmt: skip

    def emit(self, match: Match, kind: str, inputs: Sequence[str], attributes: Any = None, *, label: str = "",
             type: ElementType | None = None) -> str:  # noqa: A002  # fmt: skip
        """Appends an operator under the match's name; its output has the type of the match's result unless told.

        A float result that leaves the NPU at once is float32.
        """
        element = type or (self.result_type(match) if label else self._last_type(match))
        return append_op(
            self.builder, kind, inputs, attributes,
            name=f"{match.node.name}.{label}" if label else match.node.name,
            dtype=element.dtype, quantization=element.codes, origin=self._origin(match),
        )  # fmt: skip

    def move(self, match: Match, kind: str, source: str, attributes: Any, *, label: str = "") -> str:
        """Appends an operator that only moves elements, of whatever type."""
        return self.emit(match, kind, [source], attributes, label=label, type=self.type_of(source))

    def transpose(self, match: Match, source: str, axes: Sequence[int], label: str) -> str:
        """The same values in another axis order."""
        axes = tuple(axes)
        if axes == tuple(range(len(axes))):
            return source
        return self.move(match, "transpose", source, a.TransposeAttributes(axes), label=label)

    def reshape(self, match: Match, source: str, shape: Sequence[int], label: str) -> str:
        """The same elements under another shape."""
        if self.builder.tensors[source].shape == tuple(shape):
            return source
        return self.move(match, "reshape", source, a.ReshapeAttributes(tuple(shape)), label=label)

    def recode(self, match: Match, source: str) -> str:
        """The tensor's values in the element type of the match's result; floats stay in the precision they have."""
        have, want = self.type_of(source), self.result_type(match)
        if have == want or (have.dtype in FLOATS and want.dtype in FLOATS):
            return source
        kind = _conversion(have, want)
        attributes, label = (_IDENTITY, "requantize") if kind == "unary" else (None, kind)
        return self.emit(match, kind, [source], attributes, label=label)

    def on_image(self, match: Match, kind: str, attributes: Any, constants: Sequence[str] = (), *,
                 source: str = "", type: ElementType | None = None) -> str:  # noqa: A002  # fmt: skip
        """An operator on ``[n, h, w, c]`` between ONNX's ``[n, c, h, w]``."""
        image = self.transpose(match, source or self.read(match), NHWC, "nhwc")
        return self.transpose(match, self.emit(match, kind, [image, *constants], attributes, type=type), NCHW, "nchw")

    def on_image_moved(self, match: Match, kind: str, attributes: Any) -> str:
        """As `on_image`, for an operator whose output has its input's elements; recoded behind it."""
        source = self.read(match)
        return self.recode(match, self.on_image(match, kind, attributes, type=self.type_of(source)))

    def _origin(self, match: Match) -> tuple[str, ...]:
        return tuple(name for name, _ in match.origins)


def _is_coded(match: Match) -> bool:
    return match.output_codes is not None or any(match.program.codes.get(v) for v in match.inputs)


def _conversion(have: ElementType, want: ElementType) -> str:
    """The kind of operator that turns one element type into another."""
    if have.codes is not None and want.codes is not None:
        return "unary"
    return "quantize" if want.codes is not None else "cast" if have.codes is None else "dequantize"


Converter = Callable[[Match, Lowering], str]


def permuted(rank: int, axis: int) -> tuple[int, ...]:
    """The axes of a rank with `axis` and the last exchanged."""
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    return tuple(order)
