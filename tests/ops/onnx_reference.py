"""ONNX Runtime's default session as the reference of the operators' tests, and random operands for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from npu_backend.graph import Graph as NpuGraph
from npu_backend.graph import Op, Tensor
from npu_backend.ops import numerics_core as core
from tvm_ext.float_resizes import with_float_resizes

pytest.importorskip("onnxruntime")

F = np.float32
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
DTYPES = [np.dtype(np.uint8), np.dtype(np.int8)]
Quantization = tuple[np.float32, int]
Attributes = dict[str, Any]

seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
dtypes = st.sampled_from(DTYPES)


class Graph:
    """A small ONNX graph under construction; every method returns the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.feeds: dict[str, np.ndarray] = {}

    def constant(self, value: Any, dtype: Any = None) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def input(self, value: np.ndarray) -> str:
        name = f"input{len(self.inputs)}"
        element = helper.np_dtype_to_tensor_dtype(value.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, element, value.shape))
        self.feeds[name] = np.ascontiguousarray(value)
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"node{len(self.nodes)}", **attributes))
        return name

    def quantize(self, x: str, code: Quantization, dtype: Any) -> str:
        return self.op("QuantizeLinear", x, self.constant(code[0], F), self.constant(code[1], dtype))

    def dequantize(self, x: str, scale: Any, zero_point: Any, dtype: Any, **attributes: Any) -> str:
        return self.op("DequantizeLinear", x, self.constant(scale, F), self.constant(zero_point, dtype), **attributes)

    def quantized_input(self, value: np.ndarray, code: Quantization) -> str:
        """The 8-bit array as a dequantised graph input."""
        return self.dequantize(self.input(value), code[0], code[1], value.dtype)

    def run(self, output: str, dtype: Any, opset: int = 17) -> np.ndarray:
        return _session(self._model(output, dtype, opset)).run([output], self.feeds)[0]

    def _model(self, output: str, dtype: Any, opset: int) -> onnx.ModelProto:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        outputs = [helper.make_tensor_value_info(output, element, None)]
        graph = helper.make_graph(self.nodes, "numerics", self.inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        model.ir_version = 9
        return model


def _session(model: onnx.ModelProto) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    # Else a product of float (or 16-bit) activations with dequantised int8 weights rounds the activations to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    model = with_float_resizes(model, onnxruntime.__version__) or model
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def reference(
    kind: str,
    operands: Sequence[tuple[np.ndarray, Quantization]],
    y: Quantization,
    constants: Sequence[np.ndarray | None] = (),
    opset: int = 17,
    **attributes: Any,
) -> np.ndarray:
    """ONNX Runtime's `kind` between DequantizeLinear and QuantizeLinear; a constant of None is an input left out."""
    graph = Graph()
    dtype = operands[0][0].dtype
    names = [graph.quantized_input(value, code) for value, code in operands]
    names += ["" if value is None else graph.constant(value) for value in constants]
    return graph.run(graph.quantize(graph.op(kind, *names, **attributes), y, dtype), dtype, opset)


def draw_scale(rng: np.random.Generator, low: float = -7, high: float = 1) -> np.float32:
    return F(2.0 ** rng.uniform(low, high))


def draw_zero_point(rng: np.random.Generator, dtype: np.dtype) -> int:
    low, high = core.integer_range(dtype)
    return int(rng.integers(low, high + 1))


def draw_code(rng: np.random.Generator, dtype: np.dtype) -> Quantization:
    return draw_scale(rng), draw_zero_point(rng, dtype)


def near(rng: np.random.Generator, x: Quantization, dtype: np.dtype) -> Quantization:
    """A code whose scale is within a factor of four: most outputs then stay off the ends of the range."""
    return F(x[0] * 2 ** rng.uniform(-2, 2)), draw_zero_point(rng, dtype)


def draw_values(rng: np.random.Generator, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    low, high = core.integer_range(dtype)
    return rng.integers(low, high + 1, shape).astype(dtype)


def opset_of(graph: NpuGraph, op: Op) -> int:
    """The ONNX version in which an operator is compared: 17, or 21 which has codes of 16 bits."""
    names = (*graph.activations(op), op.output)
    return 21 if any(graph.tensor(name).dtype.endswith("int16") for name in names) else 17


def to_host(tensor: Tensor) -> tuple[int, ...]:
    """The storage axis of each of the host's: images are [n, c, h, w] there."""
    return TO_CHANNELS_FIRST if len(tensor.shape) == 4 else tuple(range(len(tensor.shape)))


def to_nchw(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def to_nhwc(x: np.ndarray) -> np.ndarray:
    return x.transpose(0, 2, 3, 1)


def draw_image(rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
    return draw_values(rng, (1, *rng.integers(4, 13, 2), rng.integers(1, 40)), dtype)


def assert_within_one_step(actual: np.ndarray, expected: np.ndarray, most: float) -> None:
    difference = np.abs(actual.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= most * difference.size
