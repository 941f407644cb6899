"""Every case's reference against ONNX Runtime: quantise, dequantise, operator, quantise, dequantise."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest

from npu_backend.ops import registered_ops, spec_of
from tests.ops.case import Case, build, draw, operator
from tests.ops.cases import CASES
from tests.ops.onnx_forms import EMIT, MOVEMENTS, WITHIN_ONE_STEP, clamped, onnx_runtime, real


def test_every_kind_has_an_onnx_form() -> None:
    missing = set(registered_ops()) - set(EMIT) - MOVEMENTS - {"kernel"}
    assert not missing, f"kinds without an ONNX form in this file: {sorted(missing)}"


@pytest.mark.parametrize("case", [case for case in CASES if case.kind in EMIT and case.channels_last], ids=str)
def test_reference_equals_onnx_runtime(case: Case) -> None:
    graph = build(case)
    op, rng = operator(graph), np.random.default_rng(case.seed)
    tensors = [graph.tensor(name) for name in graph.activations(op)]
    inputs = [graph.constants[tensor.name] if tensor.name in graph.constants else draw(rng, tensor.shape, tensor.dtype)
              for tensor in tensors]  # fmt: skip
    output = graph.tensor(op.output)
    expected = clamped(op, output, onnx_runtime(graph, op, inputs))
    actual: Any = real(output, spec_of(op).reference(graph, op, inputs))
    if (
        output.dtype not in ("float16", "float32")
        and case.dtype in ("uint8", "int8")
        and case.kind not in WITHIN_ONE_STEP
        and not getattr(case.attributes, "antialias", False)
    ):
        np.testing.assert_array_equal(actual, expected)
    elif output.quantization is None:
        # One rounding to half precision, and sums in another order; what is beyond it ends at 65504, not in infinity.
        largest = np.finfo(np.float16).max if output.dtype == "float16" else np.inf
        bounded = (np.clip(values.astype(np.float64), -largest, largest) for values in (actual, expected))
        np.testing.assert_allclose(*bounded, rtol=2**-10, atol=2**-10)
    else:
        steps = np.abs(actual - expected) / output.quantization.scale
        assert steps.max() < 1.01, f"{steps.max()} steps"
        assert np.count_nonzero(steps > 0.5) <= max(2, 0.01 * prod(output.shape))
