"""How far a quantised model is from its float original, over samples, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from npu_backend.errors import ModelError
from npu_backend.report.document import QuantizedOutput
from tvm_ext.accuracy import Accuracy
from tvm_ext.calibration import Feed
from tvm_ext.onnx_runtime import import_onnx_runtime, refusals, run_session, session_of
from tvm_ext.quantize import PURPOSE

# A UNet's sample takes a second; more samples than these move no figure's first digits.
MOST_SAMPLES = 16


def measure_error(
    model: onnx.ModelProto, quantized: onnx.ModelProto, feeds: Sequence[Feed]
) -> tuple[QuantizedOutput, ...]:
    """Per output, over the first MOST_SAMPLES samples.

    Raises ModelError when ONNX Runtime does not run one of the models.
    """
    onnxruntime = import_onnx_runtime(PURPOSE)
    classifies = len(model.graph.output) == 1
    sums: dict[str, Accuracy] = {}
    try:
        sessions = [session_of(each.SerializeToString(), PURPOSE) for each in (model, quantized)]
        for feed in feeds[:MOST_SAMPLES]:
            expected, actual = (run_session(session, feed) for session in sessions)
            for name, value in expected.items():
                sums.setdefault(name, Accuracy()).add(value, actual[name])
    except refusals(onnxruntime) as error:
        raise ModelError(f"{model.graph.name}: ONNX Runtime cannot run it: {error}") from error
    return tuple(_output(name, accuracy, classifies=classifies) for name, accuracy in sums.items())


def _output(name: str, accuracy: Accuracy, *, classifies: bool) -> QuantizedOutput:
    return QuantizedOutput(
        name=name,
        sqnr_db=accuracy.sqnr_db,
        max_abs=accuracy.max_abs,
        top1_agreement=accuracy.top1_agreement if classifies else None,
    )
