"""What an operator of the NPU graph is in ONNX: one emitter per kind.

A family's emitters stand beside its cases, in ``cases_<family>.py``, as a mapping EMIT; here they come together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import TensorProto

from npu_backend.graph import Graph, Op, Quantization, Tensor
from npu_backend.ops.numerics_core import decode
from tests.ops import (
    cases_elementwise,
    cases_matmul,
    cases_matrix,
    cases_movement,
    cases_pooling,
    cases_reduction,
    cases_resize,
)
from tests.ops.onnx_reference import TO_CHANNELS_LAST, opset_of, to_host
from tests.ops.onnx_reference import Graph as OnnxGraph

# ONNX Runtime computes these in float; the rest is equal bit for bit.
WITHIN_ONE_STEP = {"conv_transpose2d", "reduce", "normalize", "lrn"}

# Their attributes are younger than opset 17.
NEWER = {"resize2d"}

Emit = Callable[[OnnxGraph, Graph, Op, Sequence[str]], str]


EMIT: dict[str, Emit] = {
    **cases_elementwise.EMIT, **cases_matmul.EMIT, **cases_matrix.EMIT,
    **cases_movement.EMIT, **cases_pooling.EMIT, **cases_reduction.EMIT, **cases_resize.EMIT,
}  # fmt: skip
# They keep the bytes, or look them up; NumPy's own function is the judge.
MOVEMENTS = {"reshape", "table"}


def code_of(graph: Graph, name: str) -> Quantization:
    quantization = graph.tensor(name).quantization
    assert quantization is not None
    return quantization


def onnx_runtime(graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """The operator's output as ONNX Runtime computes it from float inputs, dequantised where it is quantised."""
    onnx, names = OnnxGraph(), []
    for name, value in zip(graph.activations(op), inputs, strict=True):
        tensor = graph.tensor(name)
        value = value.transpose(to_host(tensor)).astype(np.float32 if value.dtype == np.float16 else value.dtype)
        if name in graph.constants:
            constant = onnx.constant(value)
            names.append(constant if tensor.quantization is None
                         else onnx.dequantize(constant, *_scale_and_zero(tensor), value.dtype))  # fmt: skip
            continue
        if tensor.quantization is None:
            names.append(onnx.input(value))
            continue
        # ONNX Runtime melts two pairs in a row into one, so the change of scale alone gets codes for input.
        codes = getattr(op.attributes, "function", "") == "identity"
        names.append(onnx.quantized_input(value, _scale_and_zero(tensor)) if codes
                     else _round_trip(onnx, onnx.input(real(tensor, value)), tensor))  # fmt: skip
    result = EMIT[op.kind](onnx, graph, op, names)
    output = graph.tensor(op.output)
    if output.quantization is not None:
        result = _round_trip(onnx, result, output)
    if output.dtype == "float16":
        result = onnx.op("Cast", onnx.op("Cast", result, to=TensorProto.FLOAT16), to=TensorProto.FLOAT)
    dtype = np.float32 if output.quantization or output.dtype == "float16" else output.dtype
    value = onnx.run(result, dtype, 21 if op.kind in NEWER else opset_of(graph, op))
    value = value.astype(np.float16) if output.dtype == "float16" else value
    return value.transpose(TO_CHANNELS_LAST) if value.ndim == 4 else value


def _round_trip(onnx: OnnxGraph, name: str, tensor: Tensor) -> str:
    """Through QuantizeLinear and DequantizeLinear, as quantised models have every activation."""
    code, dtype = _scale_and_zero(tensor), np.dtype(tensor.dtype)
    return onnx.dequantize(onnx.quantize(name, code, dtype), *code, dtype)


def _scale_and_zero(tensor: Tensor) -> tuple[np.float32, int]:
    assert tensor.quantization is not None
    return np.float32(tensor.quantization.scale), tensor.quantization.zero_point


def real(tensor: Tensor, value: np.ndarray) -> np.ndarray:
    return decode(value, tensor.quantization)


def clamped(op: Op, tensor: Tensor, value: np.ndarray) -> np.ndarray:
    """The fused activation's bounds, which the ONNX graph does not have."""
    clamp = getattr(op.attributes, "clamp", None)
    if clamp is None:
        return value
    low, high = (real(tensor, np.array(bound)) for bound in clamp)
    return np.clip(value, low, high)
