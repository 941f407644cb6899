"""Model inputs that are numbers of an operator rather than data: axes, shapes, counts, scales of codes.

A program is made for one shape of every tensor, so these must be known when it is made: whoever runs the model on given
inputs has them compiled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tvm_ext.onnx_load import model_inputs

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
_OPERANDS: Mapping[str, tuple[int, ...]] = {
    **{f"Reduce{name}": (1,) for name in _REDUCTIONS},
    **dict.fromkeys(("AffineGrid", "CenterCropPad", "CumSum", "Expand", "OneHot", "Reshape", "Split", "SplitToSequence",
                     "Squeeze", "Tile", "TopK", "Trilu", "Unsqueeze", "Upsample"), (1,)),
    **dict.fromkeys(("BlackmanWindow", "ConstantOfShape", "HammingWindow", "HannWindow"), (0,)),
    "Col2Im": (1, 2),
    "DFT": (1, 2),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1, 2, 3, 4),
    "NonMaxSuppression": (2, 3, 4),
    "Pad": (1, 2, 3),
    "QLinearConv": (1, 2, 3, 4, 5, 6, 7, 8),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QuantizeLinear": (1, 2),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "ReverseSequence": (1,),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
}  # fmt: skip


def parameter_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """The inputs that an operator reads as such a number, in order."""
    read = {node.input[index] for node in model.graph.node if node.domain in ("", "ai.onnx")
            for index in _OPERANDS.get(node.op_type, ()) if index < len(node.input)}  # fmt: skip
    return tuple(value.name for value in model_inputs(model) if value.name in read)


def with_parameters(model: onnx.ModelProto, values: Mapping[str, np.ndarray[Any, Any]]) -> onnx.ModelProto:
    """The model with those inputs as constants."""
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    kept = [value for value in model.graph.input if value.name not in values]
    del bound.graph.input[:]
    bound.graph.input.extend(kept)
    bound.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    return bound
