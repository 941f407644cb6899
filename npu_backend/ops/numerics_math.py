"""exp and log of float32 as the emulator computes them (``emulator/float_math.h``): in float64, rounded once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from npu_backend.ops import elementary
from npu_backend.ops.numerics_core import FLOAT, FloatArray


def exp(x: npt.ArrayLike) -> FloatArray:
    """``e ** x``; beyond float32's range 0 or infinity, NaN stays NaN."""
    return _rounded(elementary.exp, x)


def log(x: npt.ArrayLike) -> FloatArray:
    """The natural logarithm; of 0 minus infinity, of less NaN."""
    return _rounded(elementary.log, x)


def _rounded(function: Callable[[elementary.Doubles], elementary.Doubles], x: npt.ArrayLike) -> FloatArray:
    with np.errstate(all="ignore"):
        return np.asarray(function(np.asarray(x, FLOAT).astype(np.float64)), FLOAT)
