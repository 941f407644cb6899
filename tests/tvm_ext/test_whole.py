"""Operators that TVM spells in several calls: one call for the matcher, and the same numbers on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from npu_backend.errors import UnsupportedError
from tests.tvm_ext.by_runtime import assert_close, by_onnx_runtime
from tests.tvm_ext.on_host import calls, on_host
from tests.tvm_ext.one_node import feed_of, normal, one_node
from tvm_ext.onnx_cleanup import clean
from tvm_ext.relax import partition

IMAGE = normal(2, 6, 4, 5)
CHANNELS = normal(6)
BYTES = (np.arange(2 * 3 * 6 * 5) * 37 % 251).astype(np.uint8).reshape(2, 3, 6, 5)
POSITIVE = np.abs(normal(2, 3, 4)) + np.float32(0.1)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


WHOLE: list[tuple[str, list[Any], tuple[int, ...], dict[str, Any]]] = [
    ("InstanceNormalization", [IMAGE, CHANNELS, CHANNELS + 1], (1, 2), {}),
    ("GroupNormalization", [IMAGE, CHANNELS[:3], CHANNELS[3:]], (1, 2), {"num_groups": 3}),
    ("GroupNormalization", [IMAGE, CHANNELS, CHANNELS + 1], (1, 2), {"num_groups": 3, "opset": 21}),
    ("MeanVarianceNormalization", [IMAGE], (), {"opset": 13}),
    ("LRN", [IMAGE], (), {"size": 3, "alpha": 0.01, "bias": 2.0}),
    ("DepthToSpace", [normal(1, 8, 3, 5)], (), {"blocksize": 2}),
    ("DepthToSpace", [normal(1, 8, 3, 5)], (), {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [normal(1, 2, 4, 6)], (), {"blocksize": 2}),
    ("Gather", [normal(5, 7), integers(3, -1)], (), {"axis": 1}),
    ("GatherElements", [normal(3, 4), integers(0, -1, 2, 0).reshape(1, 4)], (), {}),
    ("ArgMax", [IMAGE], (), {"axis": 1, "select_last_index": 1}),
    *((op, [normal(2, 7), normal(7), normal(2, 1)], (), {}) for op in ("Max", "Mean", "Min", "Sum")),
    ("Clip", [normal(2, 7), np.array(-0.5, np.float32), np.array(0.5, np.float32)], (), {}),
    ("Cast", [normal(2, 7) * 9], (), {"to": 6}),
    ("Einsum", [normal(2, 3, 4), normal(2, 4, 5)], (), {"equation": "bij,bjk->bik"}),
    ("Resize", [normal(1, 2, 5), None, np.array([1, 1, 2], np.float32)], (2,), {"mode": "linear"}),
    *(("Resize", [normal(1, 2, 9, 7), None, None, integers(1, 2, 4, 11)], (3,),
       {"mode": mode, "opset": 19, **attributes})
      for mode in ("linear", "cubic") for attributes in ({"antialias": 1},
                                                         {"coordinate_transformation_mode": "half_pixel_symmetric"})),
    ("Resize", [normal(1, 2, 4, 5), None, np.array([1, 1, 1.7, 2.3], np.float32)], (2,), {"mode": "linear"}),
    ("Resize", [normal(1, 2, 4, 5), None, None, integers(7, 9)], (3,), {"axes": [2, -1], "mode": "linear"}),
    ("Celu", [normal(2, 7)], (), {"alpha": 0.7}),
    ("ConvInteger", [BYTES, BYTES[:, :, :3, :3] // 2, np.array(120, np.uint8), np.array(60, np.uint8)], (1, 2, 3),
     {"pads": [1, 0, 1, 1], "strides": [1, 2]}),
    ("ConvInteger", [BYTES, BYTES[:, :, :3, :3]], (1,), {}),
    ("MatMulInteger", [BYTES[0, 0], BYTES[0, 0].T.astype(np.int8), np.array(9, np.uint8)], (1, 2), {}),
    *((op, [normal(5, 2, 4), *(normal(directions, gates * 3, size) for size in (4, 3)), normal(directions, gates * 6)],
       (1, 2, 3), {"hidden_size": 3, "direction": direction, "outputs": 3 if op == "LSTM" else 2})
      for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
      for direction, directions in (("forward", 1), ("reverse", 1), ("bidirectional", 2))),
    ("GRU", [normal(5, 2, 4), normal(1, 9, 4), normal(1, 9, 3), normal(1, 18), None, normal(1, 2, 3)], (1, 2, 3),
     {"hidden_size": 3, "linear_before_reset": 1, "outputs": 2}),
    ("LSTM", [normal(1, 2, 4), normal(1, 12, 4), normal(1, 12, 3), None, None, normal(1, 2, 3), normal(1, 2, 3) - 1],
     (1, 2), {"hidden_size": 3, "outputs": 3}),
    *(("Pad", [normal(1, 2, 5, 6), integers(0, 0, 1, 2, 0, 0, 2, 1)], (1,), {"mode": mode, "opset": 19})
      for mode in ("reflect", "edge", "wrap")),
    ("Pad", [normal(1, 2, 5, 6), integers(0, 0, -1, 2, 0, 0, 2, -1)], (1,), {}),
    *((op, [POSITIVE, integers(0, 2)], (1,), {"keepdims": keepdims})
      for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp") for keepdims in (0, 1)),
    *((op, [normal(2, 7)], (), {}) for op in ("Elu", "HardSigmoid", "HardSwish", "Mish", "Selu", "Shrink", "Softplus",
                                              "Softsign", "ThresholdedRelu")),
]  # fmt: skip

# Recurrent operators become many calls of TVM: those of both directions hold what those of one do.
ONE_DIRECTION = ("forward", "reverse")
WHOLE_BY_SPEED = [
    pytest.param(*case, marks=[pytest.mark.slow] if case[-1].get("direction") in ONE_DIRECTION else [])
    for case in WHOLE
]

ONE_CALL: list[tuple[str, str, list[Any], tuple[int, ...], dict[str, Any]]] = [
    ("relax.tile", "Tile", [normal(2, 3), integers(2, 3)], (1,), {}),
    ("relax.maximum", "Max", [normal(2, 7), normal(7)], (), {}),
    ("relax.take", "Gather", [normal(5, 7), integers(3, 0, -1)], (1,), {"axis": 1}),
    ("relax.take", "Gather", [normal(5, 7), np.array(-2, np.int64)], (1,), {}),
    ("relax.nn.pad", "Pad", [normal(1, 2, 5, 6), integers(1, 2), None, integers(-1)], (1, 3), {}),
    ("relax.nn.layer_norm", "LayerNormalization", [normal(2, 3, 8), normal(3, 8), normal(3, 8)], (1, 2), {"axis": 1}),
]


@pytest.mark.parametrize(("op", "operands", "constants", "attributes"), WHOLE_BY_SPEED)
def test_whole(op: str, operands: list[Any], constants: tuple[int, ...], attributes: dict[str, Any]) -> None:
    model = one_node(op, operands, constants, **attributes)
    assert calls(model) == [op]
    feed = feed_of(model, operands)
    assert_close(on_host(model, feed), by_onnx_runtime(model, feed))


@pytest.mark.parametrize(("relax_name", "op", "operands", "constants", "attributes"), ONE_CALL)
def test_one_relax_call(
    relax_name: str, op: str, operands: list[Any], constants: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    model = one_node(op, operands, constants, **attributes)
    assert calls(model) == [relax_name]
    feed = feed_of(model, operands)
    assert_close(on_host(model, feed), by_onnx_runtime(model, feed))


def test_forms_that_are_refused() -> None:
    weights = [normal(1, 12, 4), normal(1, 12, 3)]
    model = one_node("LSTM", [normal(5, 2, 4), *weights], (1, 2), hidden_size=3, clip=1.0)
    with pytest.raises(UnsupportedError, match="LSTM 'node': TVM's importer refuses it: LSTM with clip; replace"):
        calls(model)
    model = one_node("Resize", [normal(1, 2, 4, 5), None, None, integers(8, 9)], (3,), axes=[2, 3],
                     keep_aspect_ratio_policy="not_larger")  # fmt: skip
    with pytest.raises(UnsupportedError, match="Resize with keep_aspect_ratio_policy; replace"):
        calls(model)


def test_the_host_is_told_by_the_onnx_operator() -> None:
    partitioned = partition(clean(one_node("Einsum", [normal(2, 7)], equation="ij->ji")))
    assert [(op.name, op.op) for op in partitioned.host_ops] == [("node", "Einsum")]
