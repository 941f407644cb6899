"""The NPU graph under construction, as converters write it: tensors, element types, operators of a match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from tvm import relax

from npu_backend.graph import GraphBuilder, Quantization
from npu_backend.ops import append_op
from npu_backend.ops import attributes as a
from npu_backend.ops.numerics_core import to_half
from tvm_ext.matching import Match, Operand, dtype_of, shared_codes, values_of

NHWC = (0, 2, 3, 1)
NCHW = (0, 3, 1, 2)


class ElementType(NamedTuple):
    """Data type of a tensor's elements and, where they are codes, what these stand for."""

    dtype: str
    codes: Quantization | None = None


HALF = ElementType("float16")


@dataclass(frozen=True)
class Lowering:
    """The graph under construction and the tensor that holds each Relax variable.

    A float32 variable is float16 on the NPU; only what enters or leaves it is float32 in DRAM. `leaving`: variables
    that no operator of the graph reads.
    """

    builder: GraphBuilder
    leaving: frozenset[relax.Var] = frozenset()
    tensors: dict[relax.Var, str] = field(default_factory=dict)
    halves: dict[str, str] = field(default_factory=dict)

    def type_of(self, tensor: str) -> ElementType:
        """Element type of a tensor."""
        found = self.builder.tensors[tensor]
        return ElementType(found.dtype, found.quantization)

    def result_type(self, match: Match) -> ElementType:
        """Element type of what the match defines."""
        dtype = dtype_of(match.root)
        return ElementType("float16" if dtype == "float32" else dtype, match.output_codes)

    def float_type(self, match: Match) -> ElementType:
        """Element type of a float result that may be float32 where it leaves the NPU at once."""
        return ElementType("float32") if match.root in self.leaving else HALF

    def stored(self, match: Match, index: int = 0) -> str:
        """The tensor of a computed operand, float32 where it entered the NPU so."""
        operand = match.operand(index)
        assert operand is not None, (match.node.name, index)
        return self.tensors[operand.value]

    def read(self, match: Match, index: int = 0) -> str:
        """The tensor of an operand as it is stored; float32 that entered the NPU is made float16 once."""
        operand = match.operand(index)
        assert operand is not None, (match.node.name, index)
        if not operand.is_computed:
            return self.constant_tensor(match, operand, f"operand{index}", operand.shape)
        source = self.tensors[operand.value]
        return self._half_of(match, source) if self.type_of(source).dtype == "float32" else source

    def read_half(self, match: Match, index: int = 0) -> str:
        """The tensor of an operand as float16, dequantised where it is codes."""
        source = self.read(match, index)
        return source if self.type_of(source).dtype == "float16" else self._half_of(match, source)

    def _half_of(self, match: Match, source: str) -> str:
        if source not in self.halves:
            kind = "cast" if self.type_of(source).codes is None else "dequantize"
            label = f"{source}.half"
            self.halves[source] = append_op(self.builder, kind, [source], name=label, dtype="float16",
                                            origin=self._origin(match))  # fmt: skip
        return self.halves[source]

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

        Beside codes floats stay float32, as ONNX Runtime computes with them. Single floats stay so too: they cost
        nothing, and an epsilon of 1e-12 is 0 in half precision.
        """
        values, codes = shared_codes(operand, dtype_of(match.root)) or (values_of(operand), None)
        if values.dtype == np.float32 and values.size > 1 and not _is_coded(match):
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
        """Appends an operator under the match's name; its output has the type of the match's result unless told."""
        element = type or self.result_type(match)
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
        """The tensor's values in the element type of the match's result."""
        have, want = self.type_of(source), self.result_type(match)
        if have == want:
            return source
        if have.codes is not None and want.codes is not None:
            return self.emit(match, "unary", [source], a.UnaryAttributes("identity"), label="requantize")
        kind = "quantize" if want.codes is not None else "cast" if have.codes is None else "dequantize"
        return self.emit(match, kind, [source], label=kind)

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
        return tuple(node.name for node in match.nodes)


def _is_coded(match: Match) -> bool:
    return match.output_codes is not None or any(match.program.codes.get(v) for v in match.inputs)


Converter = Callable[[Match, Lowering], str]


def permuted(rank: int, axis: int) -> tuple[int, ...]:
    """The axes of a rank with `axis` and the last exchanged."""
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    return tuple(order)
