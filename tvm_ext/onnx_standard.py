"""Fused and rare operators in terms of common ones: what ONNX Runtime's optimiser writes, and what TVM does not know.

Operand orders and meaning: ONNX operator specification and ONNX Runtime's contributed operators (com.microsoft).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from npu_backend.errors import ModelError
from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_forms import rewrite_of
from tvm_ext.onnx_graph import MICROSOFT, Nodes, operand
from tvm_ext.onnx_opset import REDUCE_AXES_OPERAND
from tvm_ext.onnx_rewrite import Rewrite, Shapes

# Attributes of a fused activation in the order of ``activation_params``, with ONNX's defaults.
_ACTIVATIONS: Mapping[str, Mapping[str, float]] = {
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
    "Relu": {},
    "Sigmoid": {},
    "Tanh": {},
}
_QUICK_GELU_ALPHA = 1.702
_EPSILON = 1e-12


def _activated(r: Rewrite, source: str, parameters: Sequence[float]) -> None:
    """The node's output: `source` behind the fused activation."""
    kind = r.attribute("activation", b"").decode()
    if kind == "Clip":
        low, high = (r.constant(name, value) for name, value in zip(("min", "max"), parameters, strict=True))
        r.emit("Clip", source, low, high, output=0)
    elif kind in _ACTIVATIONS:
        given: dict[str, Any] = {**_ACTIVATIONS[kind], **dict(zip(_ACTIVATIONS[kind], parameters, strict=False))}
        r.emit(kind, source, output=0, **given)
    else:
        raise ModelError(f"{r.node.op_type} {r.node.name!r}: its activation {kind!r} is unknown")


def _kept(r: Rewrite, *dropped: str) -> dict[str, Any]:
    """The node's attributes without those of the fusion."""
    return {a.name: helper.get_attribute_value(a) for a in r.node.attribute
            if not a.name.startswith("activation") and a.name not in dropped}  # fmt: skip


def _fused_conv(r: Rewrite) -> None:
    result = r.emit("Conv", *[name for name in r.node.input[:3] if name], **_kept(r))
    if r.operand(3):
        result = r.emit("Add", result, r.operand(3))
    if not r.attribute("activation", b""):
        r.emit("Identity", result, output=0)
        return
    _activated(r, result, r.attribute("activation_params", []))


def _fused_gemm(r: Rewrite) -> None:
    parameters = [value for name in ("alpha", "beta", "gamma")
                  if (value := r.attribute(f"activation_{name}", None)) is not None]  # fmt: skip
    _activated(r, r.emit("Gemm", *r.node.input, **_kept(r)), parameters)


def _fused_matmul(r: Rewrite) -> None:
    sides = []
    for index, side in enumerate("AB"):
        name = r.operand(index)
        if r.attribute(f"transBatch{side}", 0):
            raise ModelError(f"FusedMatMul {r.node.name!r}: transBatch{side} is not supported; export without it")
        if r.attribute(f"trans{side}", 0):
            order = list(range(r.rank(name)))
            order[-2:] = reversed(order[-2:])
            name = r.emit("Transpose", name, perm=order)
        sides.append(name)
    alpha = r.attribute("alpha", 1.0)
    product = r.emit("MatMul", *sides, output=0 if alpha == 1 else None)
    if alpha != 1:
        r.emit("Mul", product, r.constant("alpha", alpha), output=0)


def _bias_gelu(r: Rewrite) -> None:
    kind = "FastGelu" if r.node.op_type == "FastGelu" else "Gelu"
    total = r.emit("Add", r.operand(0), r.operand(1)) if r.operand(1) else r.operand(0)
    r.emit(kind, total, output=0, domain=MICROSOFT)


def _sigmoid_product(r: Rewrite, alpha: float) -> None:
    x = r.operand(0)
    scaled = x if alpha == 1 else r.emit("Mul", x, r.constant("alpha", alpha))
    r.emit("Mul", x, r.emit("Sigmoid", scaled), output=0)


def _quick_gelu(r: Rewrite) -> None:
    _sigmoid_product(r, r.attribute("alpha", _QUICK_GELU_ALPHA))


def _swish(r: Rewrite) -> None:
    _sigmoid_product(r, r.attribute("alpha", 1.0))


def _skip_layer_norm(r: Rewrite) -> None:
    """Outputs: the normalised sum, two for training, the sum."""
    simplified = r.node.op_type.startswith("SkipSimplified")
    beta, bias = ("", r.operand(3)) if simplified else (r.operand(3), r.operand(4))
    keeps_sum = len(r.node.output) > 3 and bool(r.node.output[3])
    total = r.emit("Add", r.operand(0), r.operand(1), output=3 if keeps_sum and not bias else None)
    if bias:
        total = r.emit("Add", total, bias, output=3 if keeps_sum else None)
    kind = "SimplifiedLayerNormalization" if simplified else "LayerNormalization"
    operands = [name for name in (total, r.operand(2), beta) if name]
    r.emit(kind, *operands, output=0, axis=-1, epsilon=r.attribute("epsilon", _EPSILON))


def _embed_layer_norm(r: Rewrite) -> None:
    """Word, position and segment embeddings added and normalised; without the mask's lengths."""
    ids, segments, words, positions, segment_table, gamma, beta = (r.operand(index) for index in range(7))
    if len(r.node.output) > 1 and r.operand(7):
        raise ModelError(f"EmbedLayerNormalization {r.node.name!r}: a mask is not supported; export the model without"
                         " ONNX Runtime's transformer optimisations")  # fmt: skip
    total = r.emit("Gather", words, ids)
    if r.operand(8):
        total = r.emit("Add", total, r.emit("Gather", positions, r.operand(8)))
    else:
        length = r.constant("length", np.arange(r.shape(ids)[-1]), np.int64)
        total = r.emit("Add", total, r.emit("Gather", positions, length))
    if segments and segment_table:
        total = r.emit("Add", total, r.emit("Gather", segment_table, segments))
    r.emit("LayerNormalization", total, gamma, beta, output=0, axis=-1, epsilon=r.attribute("epsilon", _EPSILON))


def _lp_normalization(r: Rewrite) -> None:
    x, kind, axes = r.operand(0), f"ReduceL{r.attribute('p', 2)}", [r.attribute("axis", -1)]
    if r.opset < REDUCE_AXES_OPERAND:
        norm = r.emit(kind, x, axes=axes)
    else:
        norm = r.emit(kind, x, r.constant("axes", axes, np.int64))
    # ONNX Runtime leaves zeros as they are.
    r.emit("Div", x, r.emit("Max", norm, r.constant("tiny", np.finfo(np.float32).tiny)), output=0)


def _matmul_to_float(r: Rewrite) -> None:
    """MatMulIntegerToFloat: a, b, their scales, their zero points, bias."""
    zero_points = [r.operand(4), r.operand(5)]
    while zero_points and not zero_points[-1]:
        zero_points.pop()
    product = r.emit("MatMulInteger", r.operand(0), r.operand(1), *zero_points)
    scale = r.emit("Mul", r.operand(2), r.operand(3))
    _scaled_sums(r, product, scale, r.operand(6))


def _scaled_sums(r: Rewrite, sums: str, scale: str, bias: str) -> None:
    result = r.emit("Mul", r.emit("Cast", sums, to=onnx.TensorProto.FLOAT), scale, output=None if bias else 0)
    if bias:
        r.emit("Add", result, bias, output=0)


def _coding(r: Rewrite) -> None:
    """ONNX Runtime's own, which had 16 bits before ONNX did."""
    r.emit(r.node.op_type, *r.node.input, output=0, **_kept(r))


_CONTRIBUTED: Mapping[str, Callable[[Rewrite], None]] = {
    "BiasGelu": _bias_gelu,
    "DequantizeLinear": _coding,
    "EmbedLayerNormalization": _embed_layer_norm,
    "FastGelu": _bias_gelu,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "MatMulIntegerToFloat": _matmul_to_float,
    "QuantizeLinear": _coding,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_layer_norm,
}
_STANDARD: Mapping[str, Callable[[Rewrite], None]] = {"LpNormalization": _lp_normalization, "Swish": _swish}


def standardised_operators() -> tuple[str, ...]:
    """Names of the operators that `to_standard` replaces, the contributed ones with a prefix."""
    return (*_STANDARD, *(f"com.microsoft.{name}" for name in _CONTRIBUTED))


def to_standard(nodes: Sequence[onnx.NodeProto], constants: Constants, shapes: Shapes, opset: int) -> Nodes:
    """The nodes with every such operator replaced; the node that makes the first output keeps the name.

    Raises ModelError for a form without an equivalent.
    """
    replaced: Nodes = []
    for node in nodes:
        rewrite = (_CONTRIBUTED if node.domain == MICROSOFT else _STANDARD).get(node.op_type) or rewrite_of(node)
        if rewrite is None or (node.op_type == "FastGelu" and not operand(node, 1)):
            replaced.append(node)
            continue
        made = Rewrite(node, constants, shapes, opset)
        rewrite(made)
        _last(made).name = node.name
        replaced += made.nodes
    return replaced


def _last(rewrite: Rewrite) -> onnx.NodeProto:
    return next(node for node in rewrite.nodes if node.output[0] == rewrite.node.output[0])
