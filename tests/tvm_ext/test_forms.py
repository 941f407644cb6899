"""Every ONNX operator of the front end, on floats and between codes: nothing on the host, and ONNX Runtime's values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from npu_backend.reference import evaluate
from npu_backend.verify import verify
from tests.tvm_ext.by_runtime import by_onnx_runtime
from tests.tvm_ext.node_cases import CASES, NodeCase, is_coded
from tests.tvm_ext.one_node import feed_of, one_node
from tests.tvm_ext.small_models import by_hand
from tvm_ext.nodes import ENTRIES
from tvm_ext.onnx_cleanup import clean
from tvm_ext.relax import partition


def on_npu(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by the NPU graph's reference, which takes the whole model."""
    parts = partition(clean(model), computes_float=True)
    assert parts.host_ops == ()
    (graph,) = parts.graphs.values()
    verify(graph, thorough=True)
    return evaluate(graph, feed)


def test_every_operator_has_a_case() -> None:
    # The clean-up makes the last one of the others' spelling.
    assert set(ENTRIES) - {case.op for case in CASES} <= {"SimplifiedLayerNormalization"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_float(case: NodeCase) -> None:
    model = case.model()
    feed = feed_of(model, case.operands)
    expected = by_onnx_runtime(model, feed)
    for actual, wanted in zip(on_npu(model, feed).values(), expected, strict=True):
        assert (actual.shape, actual.dtype) == (wanted.shape, wanted.dtype)
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(actual, wanted)
            continue
        scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=1.0))
        np.testing.assert_allclose(actual, wanted, rtol=4e-3, atol=4e-3 * min(scale, 1.0) + 1e-3 * scale)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("case", [case for case in CASES if is_coded(case)], ids=str)
def test_between_codes(case: NodeCase, dtype: str) -> None:
    model = by_hand(case.model(), dtype)
    feed = feed_of(case.model(), case.operands)
    (expected,) = by_onnx_runtime(model, feed)
    (actual,) = on_npu(model, feed).values()
    (scale,) = (onnx.numpy_helper.to_array(each) for each in model.graph.initializer if each.name == "y0.scale")
    steps = np.abs(actual - expected) / scale
    assert steps.max() < 1.01, f"{steps.max()} steps"


def test_double_precision_is_refused_by_its_type() -> None:
    model = one_node("MatMul", [np.ones((3, 4)), np.ones((4, 5))], (1,))
    (op,) = partition(clean(model), computes_float=True).host_ops
    assert op.reason == "Tensors must be of 8-bit or 16-bit codes, float16, float32, int32, int64 or bool"
