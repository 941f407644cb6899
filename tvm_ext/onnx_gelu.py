"""Gelu out of Erf or Tanh, in whatever order its factors are written.

``x / 2 * (1 + erf(x / sqrt(2)))``, or ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`` (ONNX, Gelu). Both
sides are compared as polynomials in x and the inner function f. ONNX Runtime knows the operators in every opset as
com.microsoft's Gelu and FastGelu.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import pi, sqrt

import numpy as np
import onnx
from onnx import helper

from tvm_ext.onnx_fusion import Fused, View
from tvm_ext.onnx_graph import MICROSOFT, Nodes

# Exponents of x and f to the coefficient.
Polynomial = dict[tuple[int, int], float]

_CUBIC = 0.044715
_OUTER: Polynomial = {(1, 0): 0.5, (1, 1): 0.5}
_INNER: Mapping[str, Polynomial] = {
    "Erf": {(1, 0): 1 / sqrt(2)},
    "Tanh": {(1, 0): sqrt(2 / pi), (3, 0): sqrt(2 / pi) * _CUBIC},
}
_NAMES = {"Erf": "Gelu", "Tanh": "FastGelu"}
_ARITHMETIC = ("Add", "Div", "Mul", "Pow", "Sub")
# How far from f its input and the result can be, in nodes, and the decimals that exporters write.
_DEPTH = 6
_TOLERANCE = 1e-5


def gelu(last: onnx.NodeProto, view: View) -> Fused | None:
    """Fuses what ends in `last`, a product."""
    if last.domain or last.op_type not in ("Mul", "Div"):
        return None
    for function in _behind(last, view, "Erf", "Tanh"):
        for x in dict.fromkeys(_values_behind(function.input[0], view)):
            inner = _Cone(view, {x: {(1, 0): 1.0}})
            outer = _Cone(view, {x: {(1, 0): 1.0}, function.output[0]: {(0, 1): 1.0}})
            if not _equal(inner.value(function.input[0]), _INNER[function.op_type]):
                continue
            if _equal(outer.value(last.output[0]), _OUTER):
                made = helper.make_node(_NAMES[function.op_type], [x], list(last.output), domain=MICROSOFT)
                return Fused(made, [*outer.nodes.values(), function, *inner.nodes.values()])
    return None


class _Cone:
    """Values as polynomials, back to `atoms`; `nodes` are those in between, by name."""

    def __init__(self, view: View, atoms: Mapping[str, Polynomial]) -> None:
        self._view, self._known = view, dict(atoms)
        self.nodes: dict[str, onnx.NodeProto] = {}

    def value(self, name: str, depth: int = _DEPTH) -> Polynomial | None:
        """None for a value that is no polynomial of the atoms."""
        if name in self._known:
            return self._known[name]
        number = self._view.number(name)
        if number is not None:
            return {(0, 0): number}
        node = self._view.made_by(name, *_ARITHMETIC)
        if node is None or not depth:
            return None
        left, right = (self.value(operand, depth - 1) for operand in node.input)
        self.nodes[node.name] = node
        return None if left is None or right is None else _OPERATIONS[node.op_type](left, right)


def _sum(left: Polynomial, right: Polynomial) -> Polynomial | None:
    return {power: left.get(power, 0.0) + right.get(power, 0.0) for power in {*left, *right}}


def _difference(left: Polynomial, right: Polynomial) -> Polynomial | None:
    return _sum(left, {power: -factor for power, factor in right.items()})


def _product(left: Polynomial, right: Polynomial) -> Polynomial | None:
    result: Polynomial = {}
    for (x, f), factor in left.items():
        for (other_x, other_f), other in right.items():
            power = (x + other_x, f + other_f)
            result[power] = result.get(power, 0.0) + factor * other
    return result


def _quotient(left: Polynomial, right: Polynomial) -> Polynomial | None:
    divisor = _number(right)
    return None if not divisor else {power: factor / divisor for power, factor in left.items()}


def _power(left: Polynomial, right: Polynomial) -> Polynomial | None:
    exponent = _number(right)
    if exponent not in (2, 3):
        return None
    square = _product(left, left)
    return square if exponent == 2 or square is None else _product(square, left)


def _number(value: Polynomial) -> float | None:
    return value[(0, 0)] if list(value) == [(0, 0)] else None


_OPERATIONS: Mapping[str, Callable[[Polynomial, Polynomial], Polynomial | None]] = {
    "Add": _sum, "Div": _quotient, "Mul": _product, "Pow": _power, "Sub": _difference,
}  # fmt: skip


def _equal(found: Polynomial | None, expected: Polynomial) -> bool:
    if found is None:
        return False
    powers = {*found, *expected}
    return all(np.isclose(found.get(p, 0.0), expected.get(p, 0.0), rtol=_TOLERANCE, atol=1e-9) for p in powers)


def _behind(last: onnx.NodeProto, view: View, *op_types: str) -> Iterator[onnx.NodeProto]:
    """Nodes of these types behind `last`, with arithmetic only in between."""
    waiting: Nodes = [last]
    for _ in range(_DEPTH):
        names = [name for node in waiting for name in node.input]
        yield from (node for name in names if (node := view.made_by(name, *op_types)) is not None)
        waiting = [node for name in names if (node := view.made_by(name, *_ARITHMETIC)) is not None]


def _values_behind(name: str, view: View, depth: int = _DEPTH) -> Iterator[str]:
    """Computed values behind a value, the nearest first."""
    names = [name]
    for _ in range(depth):
        nodes = [node for value in names if (node := view.made_by(value, *_ARITHMETIC)) is not None]
        names = list(dict.fromkeys(n for node in nodes for n in node.input if n not in view.constants))
        yield from names
