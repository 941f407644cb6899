"""How far a quantised model is from its float original, over samples, by ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from npu_backend.errors import ModelError
from npu_backend.report.document import QuantizedOutput
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
    sums: dict[str, _Sum] = {}
    try:
        sessions = [session_of(each.SerializeToString(), PURPOSE) for each in (model, quantized)]
        for feed in feeds[:MOST_SAMPLES]:
            expected, actual = (run_session(session, feed) for session in sessions)
            for name, value in expected.items():
                sums.setdefault(name, _Sum()).add(value, actual[name])
    except refusals(onnxruntime) as error:
        raise ModelError(f"{model.graph.name}: ONNX Runtime cannot run it: {error}") from error
    return tuple(total.output(name, classifies=classifies) for name, total in sums.items())


@dataclass
class _Sum:
    """Over samples: energy of the signal and of the error, the largest error, and rows whose largest value agrees."""

    signal: float = 0.0
    noise: float = 0.0
    largest: float = 0.0
    comparable: bool = True
    rows: int = 0
    agreeing: int = 0

    def add(self, expected: Any, actual: Any) -> None:
        """One sample."""
        self.comparable &= isinstance(expected, np.ndarray) and expected.dtype.kind in "biuf"
        if not self.comparable or expected.shape != actual.shape:
            self.comparable = False
            return
        wanted = expected.astype(np.float64)
        difference = actual.astype(np.float64) - wanted
        self.signal += float(np.square(wanted).sum())
        self.noise += float(np.square(difference).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0)))
        self._add_classes(expected, actual)

    def output(self, name: str, *, classifies: bool) -> QuantizedOutput:
        """What is told of the output."""
        finite = self.comparable and math.isfinite(self.noise) and math.isfinite(self.signal)
        decibels = 10 * math.log10(self.signal / self.noise) if finite and self.signal and self.noise else None
        return QuantizedOutput(
            name=name,
            sqnr_db=decibels,
            max_abs=self.largest if finite else None,
            top1_agreement=self.agreeing / self.rows if classifies and self.rows else None,
        )

    def _add_classes(self, expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> None:
        """Scores of classes are float [samples, classes], with extents of 1 behind from some exporters."""
        shape = expected.shape
        if expected.dtype.kind != "f" or len(shape) < 2 or shape[1] < 2 or set(shape[2:]) - {1}:
            return
        best = [value.reshape(shape[:2]).argmax(axis=1) for value in (expected, actual)]
        self.rows += len(best[0])
        self.agreeing += int((best[0] == best[1]).sum())
