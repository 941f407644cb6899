"""Outputs compared with ONNX Runtime's on the original file, every element."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from npu_backend.errors import InputError
from npu_backend.report.document import Verification
from tvm_ext.float_resizes import with_float_resizes
from tvm_ext.onnx_runtime import import_onnx_runtime, refusals, run_session, session_of
from tvm_ext.uint8_codes import with_uint8_codes

Array = npt.NDArray[Any]


_EXACT = "session.x64quantprecision"
# Of the largest value: what float32 sums in another order may differ by. A wrong code upstream differs by far more.
FLOAT_ROUNDING = 1e-4


@dataclass(frozen=True)
class Tolerance:
    """What is no failure: `lsb` steps of an output's codes; with `float_tail`, rounding of outputs without codes."""

    lsb: float = 0.0
    float_tail: bool = False

    def bound(self, expected: Array, step: float | None) -> float:
        """The largest difference of an output that is accepted."""
        if step is not None:
            return self.lsb * step
        finite = np.abs(expected[np.isfinite(expected)])
        return FLOAT_ROUNDING * float(finite.max(initial=0)) if self.float_tail else 0.0


def verify(path: Path, inputs: Mapping[str, Array], outputs: Mapping[str, Array], tolerance: Tolerance) -> Verification:
    """Runs ONNX Runtime's default session on the file in `path` and compares.

    A model with int8 activations runs with uint8 codes instead, which is the same function (`with_uint8_codes`), and
    older releases are kept from resizing codes (`with_float_resizes`).
    Raises OptionError without ONNX Runtime, InputError when it refuses the model or the inputs.
    """
    name, expected = _reference(path, inputs, list(outputs))
    steps = output_steps(onnx.load(path, load_external_data=False))
    return compare(name, outputs, expected, steps, tolerance)


def compare(
    reference: str,
    outputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    steps: Mapping[str, float],
    tolerance: Tolerance,
) -> Verification:
    """All elements of all outputs; `steps` gives the step of the codes behind a float output, where it is known."""
    elements = mismatches = failures = 0
    max_abs: float | None = 0.0
    max_lsb: float | None = 0.0
    for name, wanted in expected.items():
        got = outputs[name]
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            raise InputError(f"output {name!r} is {got.dtype}{list(got.shape)}, {reference} gives {wanted.dtype}"
                             f"{list(wanted.shape)}: compile the package from the same file")  # fmt: skip
        different = ~_equal(got, wanted)
        elements += got.size
        mismatches += int(different.sum())
        if not different.any():
            continue
        differences = _differences(got[different], wanted[different])
        step = steps.get(name) if got.dtype.kind == "f" else 1.0
        # Written so that what is no number counts.
        failures += int((~(differences <= tolerance.bound(wanted, step))).sum())
        largest = float(differences.max()) if np.isfinite(differences).all() else None
        max_abs = _larger(max_abs, largest)
        max_lsb = _larger(max_lsb, None if largest is None or step is None else largest / step)
    return Verification(reference, elements, mismatches, max_lsb, max_abs, failures)


def output_steps(model: onnx.ModelProto) -> dict[str, float]:
    """Scale of the codes behind each output that a DequantizeLinear makes, where it is one constant."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    steps = {}
    for value in model.graph.output:
        node = producers.get(value.name)
        if node is not None and node.op_type == "DequantizeLinear" and node.input[1] in constants:
            scale = numpy_helper.to_array(constants[node.input[1]])
            if scale.size == 1 and float(scale.reshape(())) > 0:
                steps[value.name] = float(scale.reshape(()))
    return steps


def _reference(path: Path, inputs: Mapping[str, Array], names: list[str]) -> tuple[str, dict[str, Array]]:
    onnxruntime = import_onnx_runtime("--verify")
    refused = refusals(onnxruntime)
    try:
        model, note = _as_integers(path, onnxruntime.__version__)
        try:
            session = session_of(model, "--verify")
        except refused:
            session = session_of(model, "--verify", saturating=True)
            note += f" without {_EXACT}"
        results = run_session(session, inputs, names)
    except refused as error:
        raise InputError(f"ONNX Runtime cannot run {path}, so there is nothing to verify against: {error}") from error
    return f"onnxruntime {onnxruntime.__version__}{note}", results


def _as_integers(path: Path, version: str) -> tuple[str | bytes, str]:
    """What the session runs, the file itself or a model of the same function, and a note of the difference."""
    original = onnx.load(path)
    shifted = with_uint8_codes(original)
    resized = with_float_resizes(original if shifted is None else shifted, version)
    model = resized or shifted
    notes = (
        "" if shifted is None else " with int8 activations as uint8",
        "" if resized is None else " with Resize in float",
    )
    return str(path) if model is None else model.SerializeToString(), "".join(notes)


def _equal(got: Array, wanted: Array) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = got == wanted
    return same | (np.isnan(got) & np.isnan(wanted)) if got.dtype.kind == "f" else same


def _differences(got: Array, wanted: Array) -> npt.NDArray[np.float64]:
    return np.abs(got.astype(np.float64) - wanted.astype(np.float64))


def _larger(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else max(left, right)
