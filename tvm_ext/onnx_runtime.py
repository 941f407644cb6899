"""ONNX Runtime's CPU session, as reference and for quantising; imported on first use, for it is optional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from npu_backend.errors import OptionError

Array = npt.NDArray[Any]


def import_onnx_runtime(purpose: str) -> Any:
    """The module; raises OptionError that says what `purpose` needs."""
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise OptionError(f"{purpose} needs ONNX Runtime: install npu-backend[verify]") from error
    return onnxruntime


def session_of(model: str | bytes, purpose: str, *, threads: int = 1, saturating: bool = False) -> Any:
    """The default session, with every optimisation, of a file or a serialised model.

    `saturating` allows the u8 x s8 kernels that saturate on x86 without VNNI: some models are refused otherwise.
    """
    onnxruntime = import_onnx_runtime(purpose)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what it refuses is told by its exception
    options.add_session_config_entry("session.x64quantprecision", "0" if saturating else "1")
    # Products with int8 weights between floats: computed on the numbers, not on activations rounded to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, feed: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Any]:
    """Outputs by name; all of them by default."""
    wanted = [output.name for output in session.get_outputs()] if names is None else list(names)
    return dict(zip(wanted, session.run(wanted, dict(feed)), strict=True))


def refusals(onnxruntime: Any) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: ValueError for inputs, and its own exceptions, which have no common base."""
    state = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    return ValueError, RuntimeError, *(kind for kind in state if isinstance(kind, type) and issubclass(kind, Exception))
