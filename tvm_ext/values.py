"""An imported model in the terms that both generations of TVM share: values, and what defines the computed ones.

A front end makes one `Variable` of whatever its TVM calls a value, so that matching and conversion know no TVM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx


@dataclass(frozen=True, eq=False)
class Variable:
    """A computed tensor, itself its only equal: static extents and NumPy data type name."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class Constant:
    """A value that is known."""

    array: np.ndarray


Value = Variable | Constant

QUANTIZE, DEQUANTIZE, OTHER = "quantize", "dequantize", ""


@dataclass(frozen=True, eq=False)
class Call:
    """What defines a variable. Coding operators read data, scale and zero point; of others only the variables count.

    `axis`: along which scales of a coding operator lie, where there are several.
    """

    operator: str
    operands: tuple[Value, ...]
    axis: int = 0

    @property
    def is_quantize(self) -> bool:
        """Whether it turns numbers into codes."""
        return self.operator == QUANTIZE

    @property
    def is_dequantize(self) -> bool:
        """Whether it turns codes into numbers."""
        return self.operator == DEQUANTIZE

    @property
    def reads(self) -> Iterator[Variable]:
        """The variables among its operands, in order."""
        return (operand for operand in self.operands if isinstance(operand, Variable))


@dataclass(frozen=True)
class Source:
    """Where a variable came from: the ONNX node, and the name of the ONNX value it holds."""

    node: onnx.NodeProto
    value: str


@dataclass(frozen=True)
class Imported:
    """A model as a front end tells it.

    `calls`: what defines each variable, in program order; inputs of the model have none. `outputs`: variables that
    leave the model. `sources`: the ONNX node of every variable that one defines. `named`: values by their ONNX name.
    """

    calls: Mapping[Variable, Call]
    outputs: frozenset[Variable]
    sources: Mapping[Variable, Source]
    named: Mapping[str, Value]
