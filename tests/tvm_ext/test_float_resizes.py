"""Interpolating Resizes in ONNX Runtime releases that would compute them on the codes."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from npu_backend.ops import numerics_resize as resize
from tests.ops.onnx_reference import Graph
from tvm_ext.float_resizes import with_float_resizes
from tvm_ext.onnx_runtime import run_session, session_of

LAST_FOR_PYTHON_3_10 = "1.23.2"
F = np.float32
CODE = (F(0.25), 3)


def resizing(mode: str, decoded: bool = True):
    """A Resize to twice the height and width, and its codes: model, feeds, output."""
    graph = Graph()
    codes = np.random.default_rng(0).integers(0, 256, (1, 2, 5, 7)).astype(np.uint8)
    x = graph.quantized_input(codes, CODE) if decoded else graph.input(codes.astype(F))
    sizes = graph.constant(np.array([1, 2, 10, 14]))
    y = graph.quantize(graph.op("Resize", x, "", "", sizes, mode=mode), CODE, np.uint8)
    return graph._model(y, np.uint8, 17), graph.feeds, y


def test_only_what_older_releases_change():
    linear, _, y = resizing("linear")
    exposed = with_float_resizes(linear, LAST_FOR_PYTHON_3_10)
    assert [value.name for value in exposed.graph.output] == [y, linear.graph.node[1].output[0]]
    assert [value.name for value in linear.graph.output] == [y]
    assert with_float_resizes(exposed, LAST_FOR_PYTHON_3_10) is None
    assert with_float_resizes(linear, "1.32.0") is None
    assert with_float_resizes(linear, "2.0.0.dev20270101") is None
    assert with_float_resizes(resizing("nearest")[0], LAST_FOR_PYTHON_3_10) is None
    assert with_float_resizes(resizing("linear", decoded=False)[0], LAST_FOR_PYTHON_3_10) is None


@pytest.mark.parametrize("version", [LAST_FOR_PYTHON_3_10, onnxruntime.__version__])
def test_equals_the_reference(version):
    """Whatever release is installed: exposed for an older one, the result is that of the newer ones."""
    model, feeds, y = resizing("linear")
    kept = with_float_resizes(model, version) or model
    (codes,) = feeds.values()
    rows, columns = (resize.linear_taps(resize.Axis(n, 2 * n, "half_pixel")) for n in (5, 7))
    expected = resize.resize_linear(codes.transpose(0, 2, 3, 1), *CODE, *CODE, rows, columns).transpose(0, 3, 1, 2)
    actual = run_session(session_of(kept.SerializeToString(), "test"), feeds, [y])[y]
    np.testing.assert_array_equal(actual, expected)
