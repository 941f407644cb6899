"""Speed of MATMUL on the products of a small transformer against ONNX Runtime's, one thread.

``python -m tests.emulator.bench_matmul [--level portable|avx2|avx512]`` prints one row a product and data type:
ONNX Runtime runs float32 MatMul for float16, and QLinearMatMul for 8-bit codes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from npu_backend.isa import FORMAT_BY_NAME, Instruction
from npu_backend.ops.base import dense_strides
from npu_backend.ops.elementwise import element_fields
from tests.emulator.bench_kernels import BATCH_SECONDS, BATCHES, seconds_per_run
from tests.emulator.matrix_cases import LEVELS
from tests.emulator.test_matmul import tensor

# Heads, rows, inner, columns, and whether the right operand lies transposed.
PRODUCTS = [
    ("scores", 12, 128, 32, 128, True), ("context", 12, 128, 128, 32, False), ("projection", 1, 128, 384, 384, False),
    ("feed forward", 1, 128, 384, 1536, False),
]  # fmt: skip


def emulator_seconds(rows: int, inner: int, columns: int, turned: bool, dtype: str, level: int) -> float:
    """Seconds of one instruction."""
    size = np.dtype(dtype).itemsize
    values: dict[str, Any] = {"rows": rows, "inner": inner, "columns": columns}
    address = 0
    for name, shape in (("left", (rows, inner)), ("right", (inner, columns)), ("output", (rows, columns))):
        order = (1, 0) if turned and name == "right" else (0, 1)
        strides = dense_strides([shape[axis] for axis in order], size)
        values |= {name: address, f"{name}_row_bytes": strides[order[0]], f"{name}_column_bytes": strides[order[1]]}
        values |= element_fields(name, tensor(np.random.default_rng(0), dtype, 2))
        address += -(-shape[0] * shape[1] * size // 64) * 64
    zeros = {field.name: 0 for field in FORMAT_BY_NAME["MATMUL"].fields}
    return seconds_per_run(Instruction("MATMUL", zeros | values), np.zeros(address, np.uint8), level)


def onnx_seconds(heads: int, rows: int, inner: int, columns: int, dtype: str) -> float:
    """Seconds of ONNX Runtime's product of all heads, both operands dense."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = _model((heads, rows, inner), (heads, inner, columns), dtype)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(0)
    feeds = {name: (draw.normal(0, 1, shape) if dtype == "float32" else draw.integers(0, 256, shape)).astype(dtype)
             for name, shape in (("a", (heads, rows, inner)), ("b", (heads, inner, columns)))}  # fmt: skip
    return _best(lambda: session.run(None, feeds))


def _model(a: tuple[int, ...], b: tuple[int, ...], dtype: str) -> onnx.ModelProto:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs = [helper.make_tensor_value_info(name, element, shape) for name, shape in (("a", a), ("b", b))]
    outputs = [helper.make_tensor_value_info("y", element, None)]
    constants = [numpy_helper.from_array(np.array(0.02, np.float32), "scale"),
                 numpy_helper.from_array(np.array(128, np.uint8), "zero")]  # fmt: skip
    quantized = ["a", "scale", "zero", "b", "scale", "zero", "scale", "zero"]
    node = (helper.make_node("MatMul", ["a", "b"], ["y"]) if dtype == "float32"
            else helper.make_node("QLinearMatMul", quantized, ["y"]))  # fmt: skip
    graph = helper.make_graph([node], "product", inputs, outputs, [] if dtype == "float32" else constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def _best(run: Callable[[], object]) -> float:
    """The best of several batches, per call."""

    def batch(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return time.perf_counter() - start

    repeats = max(1, int(BATCH_SECONDS / batch(1)))
    return min(batch(repeats) for _ in range(BATCHES)) / repeats


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="MATMUL against ONNX Runtime, one thread")
    parser.add_argument("--level", choices=LEVELS, default="avx512")
    level = LEVELS[parser.parse_args().level]
    sys.stdout.write(f"{'product':14} {'type':8} {'us':>8} {'GMAC/s':>7} {'ONNX Runtime us':>16} {'ratio':>6}\n")
    for name, heads, rows, inner, columns, turned in PRODUCTS:
        for dtype, rival in (("float16", "float32"), ("uint8", "uint8")):
            ours = heads * emulator_seconds(rows, inner, columns, turned, dtype, level)
            theirs = onnx_seconds(heads, rows, inner, columns, rival)
            rate = heads * rows * inner * columns / ours / 1e9
            sys.stdout.write(f"{name:14} {dtype:8} {ours * 1e6:8.1f} {rate:7.1f} {theirs * 1e6:16.1f} "
                             f"{ours / theirs:6.2f}\n")  # fmt: skip


if __name__ == "__main__":
    main()
