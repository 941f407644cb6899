"""A match: one ONNX operator of an imported model for the NPU, and what rules and converters ask of it.

TVM spells an ONNX operator as one call or as twenty, differently in each release. What counts here is the ONNX node:
its type, its attributes and the values it reads. TVM's importer gives every value its static shape and data type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from npu_backend.graph import Quantization
from tvm_ext.onnx_origin import Origin, origins
from tvm_ext.values import Call, Constant, Source, Value, Variable

if TYPE_CHECKING:
    from tvm_ext.kernel_plans import Kernels

CODING = ("QuantizeLinear", "DequantizeLinear")
# Integers that stand for themselves.
PLAIN = Quantization(1.0, 0)


@dataclass(frozen=True)
class Program:
    """An imported model indexed for matching.

    `calls`, `outputs`, `sources` and `named` are the import's. `readers`: variable to the variables whose calls read
    it. `codes`: quantisation of the variables that hold codes, where it is known. `computes_float`: whether the machine
    takes float16 tensors. `kernels`: what the vector processors can run; None where they are to run nothing.
    """

    calls: Mapping[Variable, Call]
    readers: Mapping[Variable, tuple[Variable, ...]]
    outputs: frozenset[Variable]
    sources: Mapping[Variable, Source]
    named: Mapping[str, Value]
    codes: Mapping[Variable, Quantization]
    computes_float: bool
    kernels: Kernels | None = None

    def is_quantize(self, variable: Variable) -> bool:
        """Whether a quantise call defines the variable."""
        return variable in self.calls and self.calls[variable].is_quantize

    def operand(self, name: str) -> Operand | None:
        """What a node reads under an ONNX name; None where it is left out."""
        value = self.named.get(name)
        call = self.calls.get(value) if isinstance(value, Variable) else None
        if value is None or call is None or not call.is_dequantize:
            return None if value is None else Operand(value)
        return Operand(call.operands[0], call)


@dataclass(frozen=True)
class Operand:
    """What a node reads: a variable or a constant, and the dequantise call through which it is read, if any."""

    value: Value
    dequantize: Call | None = None

    @property
    def variable(self) -> Variable | None:
        """The variable it reads; None of a constant."""
        return self.value if isinstance(self.value, Variable) else None

    @property
    def is_computed(self) -> bool:
        """Whether it depends on the model's inputs."""
        return isinstance(self.value, Variable)

    @property
    def shape(self) -> tuple[int, ...]:
        """Static extents."""
        return shape_of(self.value)

    @property
    def dtype(self) -> str:
        """Data type as it is stored."""
        return dtype_of(self.value)


@dataclass(frozen=True)
class Match:
    """One operator for the NPU: the variable it defines, and where that comes from.

    `nodes`: the ONNX nodes it replaces, first the one that computes. `operands`: what that node reads, in ONNX's order.
    `inside`: the variables that vanish into it. `activation`: a Relu or Clip that follows before the quantise.
    `before_codes`: its floats end in codes, so that their precision shows in single steps.
    """

    program: Program
    root: Variable
    nodes: tuple[onnx.NodeProto, ...]
    operands: tuple[Operand | None, ...]
    inside: tuple[Variable, ...]
    activation: onnx.NodeProto | None = None
    before_codes: bool = False

    @property
    def node(self) -> onnx.NodeProto:
        """The ONNX node a user would call it by."""
        return self.nodes[0]

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Name and type of the user's nodes it stands for, first the one a user would call it by.

        Coding counts where nothing else is there.
        """
        found = dict(origin for node in self.nodes for origin in origins(node))
        operators = {name: op_type for name, op_type in found.items() if op_type not in CODING}
        return tuple((operators or found).items())

    @property
    def inputs(self) -> tuple[Variable, ...]:
        """The variables it reads, each once."""
        values = (operand.value for operand in self.operands if operand is not None)
        return tuple(dict.fromkeys(value for value in values if isinstance(value, Variable)))

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node."""
        return attribute_of(self.node, name, default)

    def operand(self, index: int) -> Operand | None:
        """An operand; None where it is left out."""
        return self.operands[index] if index < len(self.operands) else None

    def array(self, index: int) -> np.ndarray | None:
        """The values of a constant operand, dequantised where it is codes; None for any other."""
        operand = self.operand(index)
        return None if operand is None or operand.is_computed else values_of(operand)

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Extents of an operand that is there."""
        operand = self.operand(index)
        assert operand is not None, (self.node.name, index)
        return operand.shape

    def input_codes(self, index: int = 0) -> Quantization | None:
        """Quantisation of a computed operand; None for floats, plain numbers, or where it is not known."""
        operand = self.operand(index)
        variable = None if operand is None else operand.variable
        return None if variable is None else self.program.codes.get(variable)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Extents of the output."""
        return self.root.shape

    @property
    def output_codes(self) -> Quantization | None:
        """Quantisation of the output; None for floats and plain numbers."""
        return self.program.codes.get(self.root)

    @property
    def is_quantized(self) -> bool:
        """Whether a QuantizeLinear ends it."""
        return self.program.is_quantize(self.root)


@dataclass(frozen=True)
class ConstantCodes:
    """A dequantised constant: integers, scale and zero point per tensor or along `axis`."""

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


def attribute_of(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value: numbers, lists, text (decoded) or graphs."""
    found = next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
    return found.decode() if isinstance(found, bytes) else found


def shape_of(value: Value) -> tuple[int, ...]:
    """Static extents of a tensor."""
    return value.shape if isinstance(value, Variable) else value.array.shape


def dtype_of(value: Value) -> str:
    """Data type name of a tensor."""
    return value.dtype if isinstance(value, Variable) else str(value.array.dtype)


def array_of(value: Value) -> np.ndarray | None:
    """The array of a constant, None for anything else."""
    return value.array if isinstance(value, Constant) else None


def constant_codes(operand: Operand | None) -> ConstantCodes | None:
    """Codes of a constant that is read through a dequantise call; None for any other operand."""
    if operand is None or operand.is_computed or operand.dequantize is None:
        return None
    values, (scale, zero_point) = array_of(operand.value), map(array_of, operand.dequantize.operands[1:3])
    if values is None or scale is None or zero_point is None:
        return None
    return ConstantCodes(values, scale, zero_point, operand.dequantize.axis % max(values.ndim, 1))


def values_of(operand: Operand) -> np.ndarray:
    """The values of a constant operand: as they are, or float32 where it is codes."""
    codes = constant_codes(operand)
    if codes is None:
        values = array_of(operand.value)
        assert values is not None, operand
        return values
    along = [-1 if axis == codes.axis and codes.scale.size > 1 else 1 for axis in range(codes.values.ndim)]
    zero_point = codes.zero_point.astype(np.int32).reshape(along if codes.zero_point.size > 1 else ())
    return np.asarray((codes.values.astype(np.int32) - zero_point).astype(np.float32) * codes.scale.reshape(along))


def shared_codes(operand: Operand, dtype: str) -> tuple[np.ndarray, Quantization] | None:
    """Codes and quantisation of a constant operand, None where ONNX Runtime uses its float values.

    It does so for codes of another type than the result's or with a scale per channel; and for int8 codes that all lie
    in [-64, 64], which its optimiser leaves int8 while it turns everything around them into uint8.
    """
    codes = constant_codes(operand)
    if codes is None or codes.values.dtype.name != dtype or codes.scale.size != 1:
        return None
    if dtype == "int8" and int(np.abs(codes.values.astype(np.int16)).max(initial=0)) <= 64:
        return None
    return codes.values, Quantization(float(codes.scale.reshape(())), int(codes.zero_point.reshape(())))


def quantization_of_call(call: Call) -> Quantization | None:
    """Scale and zero point of a quantise or dequantise call, None where they are per channel or no constants."""
    scale, zero_point = map(array_of, call.operands[1:3])
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        return None
    return Quantization(float(scale.reshape(())), int(zero_point.reshape(())))


Rule = Callable[[Match], bool]


def first_refusal(match: Match, rules: Sequence[Rule]) -> str | None:
    """The docstring of the first rule that the match breaks, None if it keeps all."""
    return next((" ".join((rule.__doc__ or "").split()).rstrip(".") for rule in rules if not rule(match)), None)
