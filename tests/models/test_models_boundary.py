"""Models whose inputs and outputs are codes compute what the model with floats outside computes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from models.boundary import with_codes_outside
from models.quantize import build_quantized


def test_codes_outside_are_the_quantised_floats() -> None:
    import onnxruntime

    model = build_quantized("mobilenet_v2", 32, images=1)
    inside = with_codes_outside(model)
    assert [value.type.tensor_type.elem_type for value in (*inside.graph.input, *inside.graph.output)] == [2, 2]
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    last = next(node for node in model.graph.node if node.output[0] == model.graph.output[0].name)
    (scale, zero), (end, end_zero) = (
        [np.asarray(onnx_array(scales[name])) for name in node.input[1:3]] for node in (first, last)
    )
    codes = np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32)).astype(np.uint8)
    floats = (codes.astype(np.float32) - zero.astype(np.float32)) * scale
    wanted = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"input": floats})[0]
    got = onnxruntime.InferenceSession(inside.SerializeToString()).run(None, {"input": codes})[0]
    np.testing.assert_array_equal((got.astype(np.float32) - end_zero.astype(np.float32)) * end, wanted)


def onnx_array(tensor: onnx.TensorProto) -> np.ndarray:
    return numpy_helper.to_array(tensor)
