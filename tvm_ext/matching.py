"""A match of a pattern in an imported model, and what rules and converters ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax

from npu_backend.graph import Quantization
from tvm_ext.importer import Source

EIGHT_BIT = ("int8", "uint8")


@dataclass(frozen=True)
class Program:
    """The imported ``main`` indexed for matching.

    `order`: the bound variables in program order. `values`: variable to expression (TVM's own map, for patterns).
    `readers`: variable to the variables whose expressions read it. `codes`: quantisation of the variables that hold
    8-bit codes, where it is known. `constants`: small ONNX constants by name. `host_forms`: as `Imported` has them.
    """

    order: tuple[relax.Var, ...]
    values: Mapping[relax.Var, relax.Expr]
    readers: Mapping[relax.Var, tuple[relax.Var, ...]]
    outputs: frozenset[relax.Var]
    sources: Mapping[relax.Var, Source]
    codes: Mapping[relax.Var, Quantization]
    constants: Mapping[str, np.ndarray]
    host_forms: Mapping[str, tvm.IRModule]

    def resolve(self, expression: relax.Expr) -> relax.Expr:
        """The expression a variable is bound to; anything else as it is."""
        while isinstance(expression, relax.Var) and expression in self.values:
            expression = self.values[expression]
        return expression

    def resolve_tuple(self, expression: relax.Expr) -> relax.Expr:
        """The tuple a variable is bound to; any other expression as it is."""
        resolved = self.resolve(expression)
        return resolved if isinstance(resolved, relax.Tuple) else expression


@dataclass(frozen=True)
class Match:
    """One operator for the NPU: the variable it defines, and the parts of its pattern by name.

    `operands` are what it reads, in the operator's order: variables, and constants with the dequantise call around
    them; `inputs` the variables among them; `inside` the variables that vanish into it.
    """

    program: Program
    root: relax.Var
    parts: Mapping[str, relax.Expr]
    operands: tuple[relax.Expr, ...]
    inside: tuple[relax.Var, ...]
    origin: tuple[onnx.NodeProto, ...]

    @property
    def inputs(self) -> tuple[relax.Var, ...]:
        """The operands that are variables."""
        return tuple(operand for operand in self.operands if isinstance(operand, relax.Var))

    @property
    def node(self) -> onnx.NodeProto:
        """The ONNX node a user would call it by."""
        return self.origin[0]

    @property
    def main(self) -> relax.Expr:
        """The call that computes, between dequantise and quantise."""
        return self.parts["main"]

    @property
    def attrs(self) -> Any:
        """Attributes of the main call."""
        return self.main.attrs

    def input_shape(self, index: int = 0) -> tuple[int, ...]:
        """Extents of an input."""
        return shape_of(self.inputs[index])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Extents of the output."""
        return shape_of(self.root)

    @property
    def quantized_by(self) -> relax.Expr | None:
        """The quantise call at the root, None where the match moves codes or leaves them."""
        call = self.program.resolve(self.root)
        return call if is_call(call, "relax.quantize") else None

    @property
    def output_codes(self) -> Quantization | None:
        """Quantisation of the output; None for float32."""
        return self.program.codes.get(self.root)

    def input_codes(self, index: int = 0) -> Quantization | None:
        """Quantisation of an input; None for float32 or where it is not known."""
        return self.program.codes.get(self.inputs[index])


@dataclass(frozen=True)
class ConstantCodes:
    """A dequantised constant: integers, scale and zero point per tensor or along `axis` of the stored array."""

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


def shape_of(expression: relax.Expr) -> tuple[int, ...]:
    """Static extents of a tensor expression."""
    return tuple(int(extent) for extent in expression.ty.shape)


def dtype_of(expression: relax.Expr) -> str:
    """Data type name of a tensor expression."""
    return str(expression.ty.dtype.dtype) if hasattr(expression.ty.dtype, "dtype") else str(expression.ty.dtype)


def is_call(expression: relax.Expr, *names: str) -> bool:
    """Whether the expression calls one of these Relax operators; without names, any operator."""
    if not isinstance(expression, tvm.ir.Call) or not isinstance(expression.op, tvm.ir.Op):
        return False
    return not names or expression.op.name in names


def array_of(expression: relax.Expr) -> np.ndarray | None:
    """The array in a constant, None for anything else."""
    return expression.value.numpy() if isinstance(expression, tvm.ir.GenericConst) else None


def constant_codes(program: Program, expression: relax.Expr) -> ConstantCodes | None:
    """The dequantised constant behind `expression`, reshapes and transposes of it looked through."""
    call = program.resolve(expression)
    while is_call(call, "relax.permute_dims", "relax.reshape"):
        call = program.resolve(call.args[0])
    if not is_call(call, "relax.dequantize"):
        return None
    values, scale, zero_point = (array_of(program.resolve(argument)) for argument in call.args)
    if values is None or scale is None or zero_point is None:
        return None
    return ConstantCodes(values, scale, zero_point, int(call.attrs.axis) % max(values.ndim, 1))


def float_constant(program: Program, expression: relax.Expr) -> np.ndarray | None:
    """The float constant behind `expression`, reshapes looked through."""
    call = program.resolve(expression)
    while is_call(call, "relax.reshape"):
        call = program.resolve(call.args[0])
    return array_of(call)


def operand_codes(program: Program, expression: relax.Expr, dtype: str) -> tuple[np.ndarray, Quantization] | None:
    """Codes and quantisation of a constant operand, None where ONNX Runtime uses its float values.

    It does so for codes of another type than the result's or with a scale per channel; and for int8 codes that all lie
    in [-64, 64], which its optimiser leaves int8 while it turns everything around them into uint8.
    """
    codes = constant_codes(program, expression)
    if codes is None or codes.values.dtype.name != dtype or codes.scale.size != 1:
        return None
    if dtype == "int8" and int(np.abs(codes.values.astype(np.int16)).max(initial=0)) <= 64:
        return None
    return codes.values, Quantization(float(codes.scale.reshape(())), int(codes.zero_point.reshape(())))


def operand_values(program: Program, expression: relax.Expr) -> np.ndarray:
    """The float32 values of a constant operand, dequantised where it is codes."""
    codes = constant_codes(program, expression)
    if codes is None:
        values = float_constant(program, expression)
        assert values is not None, expression
        return values
    along = [-1 if axis == codes.axis and codes.scale.size > 1 else 1 for axis in range(codes.values.ndim)]
    centred = codes.values.astype(np.int32) - codes.zero_point.astype(np.int32).reshape(along)
    return np.asarray(centred.astype(np.float32) * codes.scale.reshape(along))


def quantization_of_call(program: Program, call: relax.Expr) -> Quantization | None:
    """Scale and zero point of a quantise or dequantise call, None where they are per channel or no constants."""
    scale, zero_point = (array_of(program.resolve(argument)) for argument in call.args[1:3])
    if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
        return None
    return Quantization(float(scale.reshape(())), int(zero_point.reshape(())))


def variables_in(expression: relax.Expr) -> Iterator[relax.Var]:
    """The variables an expression reads, in order."""
    if isinstance(expression, relax.Var):
        yield expression
    elif isinstance(expression, relax.Tuple):
        for item in expression.fields:
            yield from variables_in(item)
    elif isinstance(expression, relax.TupleGetItem):
        yield from variables_in(expression.tuple_value)
    elif isinstance(expression, tvm.ir.Call):
        for item in expression.args:
            yield from variables_in(item)


Rule = Callable[[Match], bool]


def first_refusal(match: Match, rules: Sequence[Rule]) -> str | None:
    """The docstring of the first rule that the match breaks, None if it keeps all."""
    return next((" ".join((rule.__doc__ or "").split()).rstrip(".") for rule in rules if not rule(match)), None)
