"""Which models are refused whoever would compute them: by the data types they take and give, or for being random."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from npu_backend.errors import UnsupportedError
from tvm_ext.onnx_load import model_inputs

# TVM's tensors of them do not cross its border, or its casts do not saturate.
_REFUSED = (
    TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128,
    TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ,
    TensorProto.UINT4, TensorProto.INT4, TensorProto.FLOAT4E2M1,
)  # fmt: skip


def check_model(model: onnx.ModelProto) -> None:
    """Raises UnsupportedError for a model that nothing here computes right, on the host neither."""
    check_types(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in (node for node in model.graph.node if node.op_type == "Dropout" and len(node.input) > 2):
        flags = [name not in constants or onnx.numpy_helper.to_array(constants[name]).any() for name in node.input[1:3]]
        # A ratio that is left out is a half.
        if node.input[2] and (flags[0] or not node.input[1]) and flags[1]:
            raise UnsupportedError(
                f"Dropout {node.name!r} drops at random, in training; export the model for inference"
            )


def check_types(model: onnx.ModelProto) -> None:
    """Raises UnsupportedError for an input or output that holds what nothing here computes right."""
    for value in (*model_inputs(model), *model.graph.output):
        data_type = _element_type(value.type)
        if data_type in _REFUSED:
            name = TensorProto.DataType.Name(data_type).lower()
            raise UnsupportedError(f"{value.name!r} of {model.graph.name} holds {name}, which nothing here computes;"
                                   " export with integers of 8 bits or more, or with float16 or float32")  # fmt: skip


def _element_type(kind: onnx.TypeProto) -> int:
    for wrapper in ("optional_type", "sequence_type"):
        if kind.HasField(wrapper):
            return _element_type(getattr(kind, wrapper).elem_type)
    return int(kind.tensor_type.elem_type)
