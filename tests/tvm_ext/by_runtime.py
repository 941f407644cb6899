"""A model run by ONNX Runtime, and its outputs compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime

Feed = Mapping[str, np.ndarray]


def by_onnx_runtime(model: onnx.ModelProto, feed: Feed, *, optimised: bool = True) -> list[np.ndarray]:
    """The outputs, computed by ONNX Runtime's default session, or by one that takes the model as it is."""
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feed)))


def assert_close(actual: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 1e-5) -> None:
    """The same shapes, data types and, within `tolerance`, numbers."""
    assert [(a.shape, a.dtype) for a in actual] == [(e.shape, e.dtype) for e in expected]
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)
