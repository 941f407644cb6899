"""A model run by TVM on the host, whatever the NPU would take of it, and by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import tvm
from tvm import relax

from tvm_ext.importer import import_onnx
from tvm_ext.onnx_cleanup import clean
from tvm_ext.outline import outline
from tvm_ext.relax_values import Values
from tvm_ext.whole import onnx_call

Feed = Mapping[str, np.ndarray]


def calls(model: onnx.ModelProto) -> list[str]:
    """The operators of the imported model in order: a Relax name, or an ONNX type where it is kept whole."""
    main = import_onnx(clean(model)).module["main"]
    values = [binding.value for block in main.body.blocks for binding in block.bindings]
    return [onnx_call(value) or value.op.name for value in values if isinstance(value, tvm.ir.Call)]


def on_host(model: onnx.ModelProto, feed: Feed) -> list[np.ndarray]:
    """The outputs, computed by TVM."""
    cleaned = clean(model)
    imported = import_onnx(cleaned)
    module = outline(imported, Values.of(imported), [])
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    results = machine["main"](*[tvm.runtime.tensor(feed[value.name]) for value in cleaned.graph.input])
    return [item.numpy() for item in ([results] if hasattr(results, "numpy") else results)]


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
