"""Products of two tensors: cases, and what they are in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from npu_backend.graph import Graph, Op
from npu_backend.ops.attributes import MatMulAttributes
from tests.ops.case import Case, Shape, in_forms
from tests.ops.onnx_reference import Graph as OnnxGraph

TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def matmul(label: str, left: Shape, right: Shape, *, spm_bytes: int = 4096, **more: Any) -> Case:
    """Most outputs stay off the ends of the codes' range."""
    attributes = MatMulAttributes("a" in label.split("-", maxsplit=1)[0], "b" in label.split("-", maxsplit=1)[0])
    inner = left[-2 if attributes.transpose_a else -1]
    return Case("matmul", label, (left, right), attributes, output_code=(0.08 * inner**0.5, 113), spm_bytes=spm_bytes,
                **more)  # fmt: skip


# Letters before the dash: which sides are transposed.
PRODUCTS = (
    matmul("-rank2", (39, 35), (35, 41)),
    matmul("a-rank2", (35, 39), (35, 41)),
    matmul("b-rank2", (39, 35), (41, 35)),
    matmul("ab-rank2", (35, 39), (41, 35)),
    matmul("-one-row", (1, 131), (131, 170), spm_bytes=12288),
    matmul("-one-column", (700, 9), (9, 1)),
    matmul("-long", (7, 700), (700, 33), spm_bytes=8192),
    matmul("-rank3", (3, 19, 17), (3, 17, 33)),
    matmul("b-heads", (2, 3, 19, 16), (2, 3, 23, 16)),
    matmul("a-heads", (2, 3, 16, 19), (2, 3, 16, 23)),
    matmul("-broadcast", (2, 1, 11, 20), (1, 3, 20, 18)),
    matmul("-shared-left", (11, 24), (5, 24, 19)),
    matmul("-shared-right", (2, 5, 13, 24), (24, 19), channels_last=False),
    matmul("-rank5", (2, 1, 3, 11, 8), (1, 2, 1, 8, 17)),
    matmul("b-rank6", (1, 2, 1, 5, 9, 7), (2, 1, 2, 1, 18, 7)),
    matmul("-constant-right", (39, 35), (35, 41), constant_at=(1,)),
    matmul("-constant-left", (21, 35), (3, 35, 23), constant_at=(0,)),
    matmul("-constant-float", (39, 35), (35, 41), constant_at=(1,), constant_dtype="float32"),
    matmul("-to-float", (39, 35), (35, 41), output_dtype="float32"),
    matmul("-to-half", (39, 35), (35, 41), output_dtype="float16"),
)
# As the host passes them, so that the compiler stores rank 4 in another order.
TURNED = tuple(replace(case, label=f"{case.label}-turned", channels_last=False)
               for case in PRODUCTS if len(case.shapes[0]) == len(case.shapes[1]) == 4)  # fmt: skip
# ONNX has these as MatMulInteger, which takes codes and not the dequantised values that the other cases are made of.
SUMS = tuple(
    replace(matmul("b-sums", (1, 2, 23, 35), (1, 2, 41, 35), output_dtype="int32", channels_last=False), dtype=dtype)
    for dtype in ("uint8", "int8")
)

# ONNX Runtime rounds the other side too where only the constant has 8 bits.
MIXED = tuple(
    replace(case, channels_last=case.dtype in ("uint8", "int8"))
    for case in in_forms([matmul("-constant-int8", (39, 35), (35, 41), constant_at=(1,), constant_dtype="int8")])
)

CASES: tuple[Case, ...] = (*in_forms((*PRODUCTS, *TURNED)), *SUMS, *MIXED)


def emit_matmul(onnx: OnnxGraph, graph: Graph, op: Op, names: Sequence[str]) -> str:
    """Images come channels first: they are turned to the storage order in which the product is told, and back."""
    factors = []
    for name, tensor, turn in zip(names, op.inputs, (op.attributes.transpose_a, op.attributes.transpose_b)):
        rank = len(graph.tensor(tensor).shape)
        axes = list(TO_CHANNELS_LAST if rank == 4 else range(rank))
        if turn:
            axes[-2:] = axes[:-3:-1]
        factors.append(onnx.op("Transpose", name, perm=axes) if axes != list(range(rank)) else name)
    result = onnx.op("MatMul", *factors)
    return onnx.op("Transpose", result, perm=TO_CHANNELS_FIRST) if len(graph.tensor(op.output).shape) == 4 else result


EMIT = {"matmul": emit_matmul}
