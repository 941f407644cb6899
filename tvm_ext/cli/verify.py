"""Outputs compared with ONNX Runtime's on the original file, every element."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from npu_backend.errors import InputError
from npu_backend.report.document import Verification
from tvm_ext.accuracy import Accuracy
from tvm_ext.float_resizes import with_float_resizes
from tvm_ext.onnx_runtime import import_onnx_runtime, refusals, run_session, session_of
from tvm_ext.uint8_codes import with_uint8_codes

Array = npt.NDArray[Any]


_EXACT = "session.x64quantprecision"
# What float32 sums in another order may differ by. A wrong code upstream differs by far more.
FLOAT_ROUNDING = 1e-4
# 16-bit codes, whose steps ONNX Runtime's float arithmetic takes now and then.
WIDE_ROUNDING = 1e-3
# Operators that round to half precision, one after the other, as measured on text detectors: 0.014.
HALF_ROUNDING = 0.02
# How much larger than the share of the whole a single error may be: a steep function, as the sigmoid of a detector,
# spreads its input's rounding over a few elements (0.24 of the largest, measured).
PEAK = 25.0


@dataclass(frozen=True)
class Tolerance:
    """What is no failure: `lsb` steps of an output's codes, and errors of float arithmetic.

    Those are up to the share `relative` of the output, both as root mean squares, and singly up to `peak` times that
    share of its largest magnitude. `codes_too`: float arithmetic is behind outputs of known step as well, and decides
    integers and truth values (an index of the largest), of which that share may differ.
    """

    lsb: float = 0.0
    relative: float = 0.0
    peak: float = 1.0
    codes_too: bool = False

    def failures(
        self, expected: Array, differences: npt.NDArray[np.float64], step: float | None, sqnr_db: float | None
    ) -> int:
        """How many of the `differences`, those that are not 0, are too large; all where they are too many."""
        is_float = expected.dtype.kind == "f"
        bound = 0.0 if step is None else self.lsb * step
        if is_float and (step is None or self.codes_too):
            bound = max(bound, self.peak * self.relative * _largest(expected))
        # Written so that what is no number counts.
        failures = int((~(differences <= bound)).sum())
        if not is_float:
            return 0 if self.codes_too and failures <= self.relative * expected.size else failures
        share = np.inf if sqnr_db is None else 10 ** (-sqnr_db / 20)
        return differences.size if step is None and share > self.relative else failures


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
    checked = [_check_output(reference, name, outputs[name], wanted, steps.get(name), tolerance)
               for name, wanted in expected.items()]  # fmt: skip
    accuracies = [each.accuracy for each in checked]
    rows = sum(each.rows for each in accuracies)
    return Verification(
        reference=reference,
        elements=sum(wanted.size for wanted in expected.values()),
        mismatches=sum(each.mismatches for each in checked),
        max_lsb=_worst(max, (each.max_lsb for each in checked)),
        max_abs=_worst(max, (each.max_abs for each in accuracies)),
        max_relative=_worst(max, (each.max_relative for each in accuracies)),
        cosine=_worst(min, (each.cosine for each in accuracies)),
        sqnr_db=min((each.sqnr_db for each in accuracies if each.sqnr_db is not None), default=None),
        top1_agreement=sum(each.agreeing for each in accuracies) / rows if rows else None,
        failures=sum(each.failures for each in checked),
    )


@dataclass(frozen=True)
class _Checked:
    """One output."""

    mismatches: int
    failures: int
    max_lsb: float | None
    accuracy: Accuracy


def _check_output(
    reference: str, name: str, got: Array, wanted: Array, step: float | None, tolerance: Tolerance
) -> _Checked:
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        raise InputError(f"output {name!r} is {got.dtype}{list(got.shape)}, {reference} gives {wanted.dtype}"
                         f"{list(wanted.shape)}: compile the package from the same file")  # fmt: skip
    accuracy = Accuracy()
    accuracy.add(wanted, got)
    different = ~_equal(got, wanted)
    if not different.any():
        return _Checked(0, 0, 0.0, accuracy)
    differences = _differences(got[different], wanted[different])
    if wanted.dtype.kind != "f":
        step = 1.0
    failures = tolerance.failures(wanted, differences, step, accuracy.sqnr_db)
    steps = None if step is None or accuracy.max_abs is None else accuracy.max_abs / step
    return _Checked(differences.size, failures, steps, accuracy)


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


def _largest(values: Array) -> float:
    """The largest finite magnitude."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=0))


def _worst(choose: Callable[[Iterable[float]], float], figures: Iterable[float | None]) -> float | None:
    """The largest or smallest, None if any is."""
    known = [*figures]
    return None if None in known or not known else choose(figure for figure in known if figure is not None)
