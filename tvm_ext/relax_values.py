"""Relax's variables as the values that matching knows, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import tvm
from tvm import relax

from npu_backend.errors import UnsupportedError
from tvm_ext.importer import ImportedModule
from tvm_ext.package import SEQUENCE, UNKNOWN_EXTENT
from tvm_ext.values import DEQUANTIZE, OTHER, QUANTIZE, Call, Constant, Imported, Value, Variable

_CODING = {"relax.quantize": QUANTIZE, "relax.dequantize": DEQUANTIZE}


@dataclass(frozen=True)
class Values:
    """An imported module and what stands for each variable of its ``main``; nothing for a tuple, but for its items.

    `tuples`: what Relax binds to variables that are tuples.
    """

    module: ImportedModule
    by_var: Mapping[relax.Var, Variable]
    constants: Mapping[relax.Var, Constant]
    tuples: Mapping[relax.Var, relax.Expr]

    @staticmethod
    def of(module: ImportedModule) -> Values:
        """Makes one of every variable; one that is bound to known data is a constant."""
        main = module.module["main"]
        bound = {binding.var: binding.value for binding in _bindings(main)}
        constants = {var: _constant(value) for var, value in bound.items() if isinstance(value, tvm.ir.GenericConst)}
        tuples = {var: value for var, value in bound.items() if not isinstance(var.ty, relax.TensorType)}
        known = {**constants, **tuples}
        computed = {var: _variable(var) for var in (*main.params, *bound) if var not in known}
        return Values(module, computed, constants, tuples)

    @cached_property
    def expressions(self) -> Mapping[Variable, relax.Expr]:
        """What Relax binds to each variable that is no input of the model."""
        bindings = _bindings(self.module.module["main"])
        return {self.by_var[each.var]: each.value for each in bindings if each.var in self.by_var}

    @cached_property
    def vars(self) -> Mapping[Variable, relax.Var]:
        """The Relax variable of each value."""
        return {variable: var for var, variable in self.by_var.items()}

    def imported(self) -> Imported:
        """The model in terms of values."""
        outputs = self._read_by(self.module.module["main"].body.body)
        return Imported(
            calls={variable: self._call(expression) for variable, expression in self.expressions.items()},
            outputs=frozenset(self.by_var[var] for var in outputs if var in self.by_var),
            sources={self.by_var[var]: source for var, source in self.module.sources.items() if var in self.by_var},
            named={name: self._value(expression) for name, expression in self.module.named.items()},
        )

    def definition(self, variable: Variable) -> Iterator[relax.VarBinding]:
        """The bindings that define a variable; the tuple first of which it is an item."""
        expression = self.expressions[variable]
        yield from (relax.VarBinding(var, self.tuples[var]) for var in variables_in(expression) if var in self.tuples)
        yield relax.VarBinding(self.vars[variable], expression)

    def _read_by(self, expression: relax.Expr) -> Iterator[relax.Var]:
        for var in variables_in(expression):
            if var in self.tuples:
                yield from self._read_by(self.tuples[var])
            else:
                yield var

    def _value(self, expression: relax.Expr) -> Value:
        if isinstance(expression, relax.Var):
            value = self.by_var.get(expression) or self.constants.get(expression)
            if value is None:
                raise UnsupportedError(
                    f"{expression.name!r} is a sequence of tensors; split the model into one per tensor"
                )
            return value
        return _constant(expression)

    def _call(self, expression: relax.Expr) -> Call:
        is_operator = isinstance(expression, tvm.ir.Call) and isinstance(expression.op, tvm.ir.Op)
        operator = _CODING.get(expression.op.name, OTHER) if is_operator else OTHER
        if operator == OTHER:
            return Call(OTHER, tuple(map(self._value, self._read_by(expression))))
        return Call(operator, tuple(map(self._value, expression.args[:3])), int(expression.attrs.axis))


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


def _bindings(function: relax.Function) -> Iterator[relax.VarBinding]:
    for block in function.body.blocks:
        yield from block.bindings


def _constant(expression: relax.Expr) -> Constant:
    return Constant(expression.value.numpy())


def _variable(var: relax.Var) -> Variable:
    if var.ty.shape is None or not all(isinstance(extent, tvm.tirx.IntImm) for extent in var.ty.shape):
        raise UnsupportedError(f"{var.name!r}: its extents are known only when the model runs; export the model with"
                               " static shapes")  # fmt: skip
    dtype = var.ty.dtype
    name = str(dtype.dtype) if hasattr(dtype, "dtype") else str(dtype)
    return Variable(str(var.name), tuple(int(extent) for extent in var.ty.shape), name)


def described(value: tvm.ir.Type) -> tuple[tuple[int, ...], str]:
    """Shape and data type of what a model gives: unknown extents are -1, several tensors a sequence."""
    if not isinstance(value, relax.TensorType):
        return (), SEQUENCE
    extents = [UNKNOWN_EXTENT] * max(value.ndim, 0) if value.shape is None else value.shape
    known = (int(extent) if isinstance(extent, int | tvm.tirx.IntImm) else UNKNOWN_EXTENT for extent in extents)
    return tuple(known), str(value.dtype)
