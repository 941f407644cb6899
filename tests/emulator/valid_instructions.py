"""One valid form of every instruction, and a program of them all."""

from __future__ import annotations

from typing import Any

from npu_backend.isa import Engine
from tests.emulator.assembler import LOAD, MATRIX, NETWORK, STORE, VECTOR, Assembly

WINDOW: dict[str, Any] = {
    "input": 0, "input_row_bytes": 32, "input_column_bytes": 4, "input_height": 8, "input_width": 8,
    "input_channels": 4,
    "output": 1024, "output_row_bytes": 32, "output_column_bytes": 4, "output_height": 8, "output_width": 8,
    "output_channels": 4, "kernel_height": 3, "kernel_width": 3, "stride_height": 1, "stride_width": 1,
    "dilation_height": 1, "dilation_width": 1, "pad_top": 1, "pad_left": 1, "input_type": 0, "output_type": 0,
}  # fmt: skip
MATRIX_FIELDS: dict[str, Any] = {
    **WINDOW, "clamp_low": 0, "clamp_high": 255, "weights": 2048, "parameters": 2048 + 9 * 64, "block_bytes": 1024,
}  # fmt: skip
ELEMENTS: dict[str, Any] = {
    "input": 0, "output": 1024, "counts": (1, 2, 3, 4), "input_strides": (0, 48, 16, 4),
    "output_strides": (0, 48, 16, 4),
}  # fmt: skip
ROWS: dict[str, Any] = {
    "output": 1024, "indices": 4096, "index_type": 7, "index_count": 5, "index_bytes": 8, "extent": 6,
    "input_step_bytes": 16, "output_step_bytes": 24, "run_bytes": 7, "counts": (1, 1, 2), "input_strides": (0, 0, 8),
    "output_strides": (0, 0, 8),
}  # fmt: skip
LINES: dict[str, Any] = {
    "input": 0, "output": 1024, "counts": (1, 2, 3, 5), "input_strides": (0, 15, 5, 1), "output_strides": (0, 15, 5, 1),
    "line_axes": 8,
}  # fmt: skip
# A function that is no kernel of anybody.
KERNEL = "npu_kernel_of_nobody"
SCALES = {"input_scale": 0.5, "output_scale": 0.25}
VALID: dict[str, tuple[Engine, dict[str, Any]]] = {
    "WAIT": (LOAD, {"semaphore": 0}),
    "SIGNAL": (LOAD, {"semaphore": 0}),
    "LOAD": (LOAD, {"dram": 256, "spm": 64, "run_bytes": 16, "counts": (1, 1, 2, 3), "dram_strides": (0, 0, 64, 16),
                    "spm_strides": (0, 0, 48, 16)}),
    "STORE": (STORE, {"dram": 4096, "spm": 64, "run_bytes": 16}),
    "SEND": (NETWORK, {"destination_core": 1, "spm": 0, "destination_spm": 128, "run_bytes": 64}),
    "CONV": (MATRIX, {**MATRIX_FIELDS, "accumulators": 4096}),
    "DEPTHWISE": (MATRIX, MATRIX_FIELDS),
    "MATMUL": (MATRIX, {"left": 0, "left_row_bytes": 8, "left_column_bytes": 1, "right": 512, "right_row_bytes": 16,
                        "right_column_bytes": 1, "output": 1024, "output_row_bytes": 16, "output_column_bytes": 1,
                        "rows": 3, "inner": 5, "columns": 4, "left_scale": 0.5, "right_scale": 0.25,
                        "output_scale": 0.5, "accumulators": 4096}),
    "POOL": (VECTOR, {**WINDOW, **SCALES, "function": 2, "counted_height": 9, "counted_width": 9}),
    "MEAN": (VECTOR, {"input": 0, "input_row_bytes": 32, "input_column_bytes": 4, "input_height": 8, "input_width": 8,
                      "channels": 4, "output": 1024, **SCALES}),
    "TABLE": (VECTOR, {**ELEMENTS, "table": 2048}),
    "COPY": (VECTOR, {**ELEMENTS, "element_bytes": 2}),
    "FILL": (VECTOR, {"output": 5, "element_bytes": 4, "counts": (1, 1, 2, 2), "output_strides": (0, 0, 100, 7)}),
    "BINARY": (VECTOR, {"left": 0, "right": 512, "output": 1024, "counts": (1, 1, 4, 4), "left_strides": (0, 0, 4, 1),
                        "right_strides": (0, 0, 0, 1), "output_strides": (0, 0, 4, 1), "left_scale": 0.5,
                        "right_scale": 0.5, "output_scale": 1.0}),
    "SELECT": (VECTOR, {"condition": 256, "left": 0, "right": 512, "output": 1024, "counts": (1, 1, 4, 4),
                        "condition_strides": (0, 0, 1, 0), "left_strides": (0, 0, 4, 1), "right_strides": (0, 0, 0, 1),
                        "output_strides": (0, 0, 8, 2), "output_type": 4, "left_scale": 0.5, "right_scale": 0.5,
                        "output_scale": 1.0}),
    "UNARY": (VECTOR, {**ELEMENTS, "input_type": 1, "output_type": 4, "function": 18, "input_scale": 0.5,
                       "output_scale": 1.0}),
    "CONVERT": (VECTOR, {**ELEMENTS, "input_type": 1, "output_type": 2, "input_scale": 0.5, "output_scale": 0.25}),
    "RESIZE": (VECTOR, {"input": 0, "input_row_bytes": 32, "input_column_bytes": 4, "output": 1024,
                        "output_row_bytes": 64, "output_column_bytes": 4, "input_height": 8, "input_width": 8,
                        "output_height": 16, "output_width": 16, "channels": 4, "row_table": 4096, "column_table": 8192,
                        "row_taps": 1, "column_taps": 1, **SCALES}),
    "SOFTMAX": (VECTOR, {**LINES, **SCALES, "table": 4096, "output_scale": 256.0}),
    "REDUCE": (VECTOR, {**LINES, **SCALES, "function": 9}),
    "NORMALIZE": (VECTOR, {**LINES, **SCALES, "epsilon": 1e-5, "subtract_mean": 1}),
    "ARGREDUCE": (VECTOR, {**LINES, "output_type": 7, "input_scale": 0.5, "output_scale": 1.0,
                           "output_strides": (0, 120, 40, 8)}),
    "LRN": (VECTOR, {**LINES, **SCALES, "size": 3, "alpha": 0.1, "beta": 0.75, "bias": 1.0}),
    "GATHER": (VECTOR, {"input": 0, **ROWS}),
    "KERNEL": (VECTOR, {
        "kernel": 0, "operand_count": 2, "operand0": 0, "operand1": 1024,
        **{f"operand{number}": 0 for number in range(2, 8)}, "run_bytes": (64, 32, 0, 0, 0, 0, 0, 0),
        "counts": (1,) * 32, "strides": (0,) * 32, "simple_bytes": 100, "special_bytes": 4, "access_bytes": 64,
    }),
    "LOAD_ROWS": (LOAD, {"dram": 256, **ROWS}),
    "LOAD_MULTICAST": (LOAD, {"group": 0, "dram": 256, "spm": 64, "run_bytes": 16}),
    "SEND_MULTICAST": (NETWORK, {"group": 1, "destination_core": 1, "spm": 0, "destination_spm": 128, "run_bytes": 64}),
}  # fmt: skip


def everything() -> Assembly:
    """One of each instruction and of each record."""
    assembly = Assembly(constants=bytes(200)).input("x", 256, (8, 32)).output("y", 4096, (16,)).node("node")
    assembly.kernels.append(KERNEL)
    assembly.signal(1, VECTOR, 0)
    for name, (engine, values) in VALID.items():
        if name != "SIGNAL":
            assembly.emit(0, engine, name, **values)
    return assembly
