"""ONNX operators that become the one Relax operator saying the same, where TVM's converter writes several or TIR."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import tvm
from tvm import relax

_NCHW_RANK = 4

# Operands, attributes, opset; None where the operator has no such form and TVM's own converter is to do it.
Structured = Callable[[list[Any], dict[str, Any], int], relax.Expr | None]


def structured(op_type: str, inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    """The Relax call of an operator, None where it is left to TVM."""
    convert = _STRUCTURED.get(op_type)
    return convert(inputs, attrs, opset) if convert else None


def array(value: Any) -> np.ndarray | None:
    """The array in a constant, None for anything else."""
    return value.value.numpy() if isinstance(value, tvm.ir.GenericConst) else None


def _scalar(value: Any) -> float | None:
    """The number in a constant of one element, else None."""
    numbers = array(value)
    return None if numbers is None or numbers.size != 1 else float(numbers.reshape(()))


def _bound(inputs: list[Any], attrs: dict[str, Any], index: int, name: str, default: float) -> float | None:
    operand = inputs[index] if index < len(inputs) else None
    return float(attrs.get(name, default)) if operand is None else _scalar(operand)


def _clip(inputs: list[Any], attrs: dict[str, Any], _: int) -> relax.Expr | None:
    low, high = _bound(inputs, attrs, 1, "min", -float("inf")), _bound(inputs, attrs, 2, "max", float("inf"))
    if str(inputs[0].ty.dtype).startswith(("int", "uint")) and not np.isfinite([low or 0, high or 0]).all():
        # An integer has no infinity to be bounded by.
        return None
    # NaN bounds mean "no bound" to ONNX Runtime; TVM's own converter knows.
    if low is None or high is None or low != low or high != high:
        return None
    return relax.op.clip(inputs[0], low, high)


def _pad(inputs: list[Any], attrs: dict[str, Any], _: int) -> relax.Expr | None:
    pads = array(inputs[1]) if len(inputs) > 1 else None
    if attrs.get("mode", b"constant") != b"constant" or pads is None:
        return None
    value, rank = 0.0 if len(inputs) < 3 or inputs[2] is None else _scalar(inputs[2]), len(inputs[0].ty.shape)
    axes = np.arange(rank) if len(inputs) < 4 or inputs[3] is None else array(inputs[3])
    if value is None or axes is None or pads.min(initial=0) < 0:
        return None
    widths = np.zeros((rank, 2), int)
    widths[axes % rank] = pads.reshape(2, -1).T
    return relax.op.nn.pad(inputs[0], widths.reshape(-1).tolist(), "constant", value)


def _global_average_pool(inputs: list[Any], _: dict[str, Any], __: int) -> relax.Expr | None:
    # TVM's converter makes it a mean, which ONNX Runtime rounds differently once quantised.
    return relax.op.nn.adaptive_avg_pool2d(inputs[0], [1, 1]) if len(inputs[0].ty.shape) == _NCHW_RANK else None


def _gather(inputs: list[Any], attrs: dict[str, Any], _: int) -> relax.Expr | None:
    """Negative indices count from the end. Constant ones are made positive here, computed ones where they are read.

    TVM's converter asks for the extent at run time.
    """
    data, indices = inputs[0], array(inputs[1])
    axis = int(attrs.get("axis", 0)) % len(data.ty.shape)
    extent = int(data.ty.shape[axis])
    if indices is not None:
        positive = np.where(indices < 0, indices + extent, indices)
        return relax.op.take(data, relax.const(positive, "int64"), axis, mode="fast")
    wide = relax.op.astype(inputs[1], "int64")
    is_negative = relax.op.less(wide, relax.const(0, "int64"))
    positive = relax.op.where(is_negative, relax.op.add(wide, relax.const(extent, "int64")), wide)
    return relax.op.take(data, positive, axis, mode="fast")


def _axes_from(inputs: list[Any], attrs: dict[str, Any]) -> list[int]:
    rank = len(inputs[0].ty.shape)
    return list(range(int(attrs.get("axis", -1)) % rank, rank))


def _layer_norm(inputs: list[Any], attrs: dict[str, Any], _: int) -> relax.Expr | None:
    """In every opset, as ONNX Runtime has it; ONNX itself from 17 on."""
    x, scale, *bias = inputs
    zero = np.zeros([int(extent) for extent in scale.ty.shape], str(scale.ty.dtype))
    shift = bias[0] if bias and bias[0] is not None else relax.const(zero)
    return relax.op.nn.layer_norm(x, scale, shift, _axes_from(inputs, attrs), attrs.get("epsilon", 1e-5))


def _rms_norm(inputs: list[Any], attrs: dict[str, Any], _: int) -> relax.Expr | None:
    (x, scale), axes, epsilon = inputs[:2], _axes_from(inputs, attrs), attrs.get("epsilon", 1e-5)
    if len(axes) < len(x.ty.shape):
        return relax.op.nn.rms_norm(x, scale, axes, epsilon)
    # TVM's schedule wants an axis that is left.
    whole = relax.op.nn.rms_norm(relax.op.expand_dims(x, 0), scale, [axis + 1 for axis in axes], epsilon)
    return relax.op.squeeze(whole, [0])


def _pow(inputs: list[Any], _: dict[str, Any], __: int) -> relax.Expr | None:
    """The result has the base's type; TVM knows powers of floats, by exponents of the same type."""
    types = [str(operand.ty.dtype) for operand in inputs]
    is_float = types[0].startswith(("float", "bfloat"))
    if is_float and types[0] == types[1]:
        return None
    base, exponent = (relax.op.astype(operand, types[0] if is_float else "float64") for operand in inputs)
    return relax.op.astype(relax.op.power(base, exponent), types[0])


def _softplus_of(x: Any) -> relax.Expr:
    """log(1 + e^x) where e^x is small against 1 as well: what rounding took from 1 + e is taken from the logarithm."""
    zero, one = (relax.const(number, str(x.ty.dtype)) for number in (0, 1))
    small = relax.op.exp(relax.op.negative(relax.op.abs(x)))
    total = relax.op.add(one, small)
    seen = relax.op.subtract(total, one)
    divisor = relax.op.where(relax.op.equal(seen, zero), one, seen)
    exact = relax.op.divide(relax.op.multiply(relax.op.log(total), small), divisor)
    logarithm = relax.op.where(relax.op.equal(seen, zero), small, exact)
    return relax.op.add(relax.op.maximum(x, zero), logarithm)


def _softplus(inputs: list[Any], _: dict[str, Any], __: int) -> relax.Expr | None:
    return _softplus_of(inputs[0])


def _mish(inputs: list[Any], _: dict[str, Any], __: int) -> relax.Expr | None:
    return relax.op.multiply(inputs[0], relax.op.tanh(_softplus_of(inputs[0])))


def _fast_gelu(inputs: list[Any], _: dict[str, Any], __: int) -> relax.Expr | None:
    return relax.op.nn.gelu_tanh(inputs[0]) if len(inputs) == 1 else None


def _tile(inputs: list[Any], _: dict[str, Any], __: int) -> relax.Expr | None:
    repeats = array(inputs[1]) if len(inputs) == 2 else None
    return None if repeats is None else relax.op.tile(inputs[0], repeats.tolist())


def _in_turn(call: Callable[[Any, Any], relax.Expr]) -> Structured:
    """Max, Min or Sum as operators of two operands, one after the other; TVM's converter stacks them and reduces."""

    def convert(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
        del attrs, opset
        computed = any(isinstance(operand, relax.Var) for operand in inputs)
        return reduce(call, inputs) if len(inputs) > 1 and computed else None

    return convert


_STRUCTURED: Mapping[str, Structured] = {
    "Clip": _clip,
    "FastGelu": _fast_gelu,
    "Gather": _gather,
    "GlobalAveragePool": _global_average_pool,
    "LayerNormalization": _layer_norm,
    "Max": _in_turn(relax.op.maximum),
    "Mish": _mish,
    "Min": _in_turn(relax.op.minimum),
    "Pad": _pad,
    "Pow": _pow,
    "RMSNormalization": _rms_norm,
    "SimplifiedLayerNormalization": _rms_norm,
    "Softplus": _softplus,
    "Sum": _in_turn(relax.op.add),
    "Tile": _tile,
}
