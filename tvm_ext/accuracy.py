"""How far values are from what they should be: the largest error, signal to noise, direction, the class chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# What rows of probabilities may miss of 1: half precision's rounding, added up.
PROBABILITY_SLACK = 2e-2


@dataclass
class Accuracy:
    """Sums over one output, of one sample or of many. Every figure is None where no number can be given."""

    signal: float = 0.0
    noise: float = 0.0
    actual: float = 0.0
    product: float = 0.0
    largest_error: float = 0.0
    largest_value: float = 0.0
    comparable: bool = True
    rows: int = 0
    agreeing: int = 0

    def add(self, expected: Any, actual: Any) -> None:
        """One sample."""
        self.comparable &= isinstance(expected, np.ndarray) and expected.dtype.kind in "biuf"
        if not self.comparable or expected.shape != actual.shape:
            self.comparable = False
            return
        wanted, got = (value.astype(np.float64).ravel() for value in (expected, actual))
        # Infinities and what is no number, of which the difference is none, are no error where both have them.
        same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
        difference = np.abs(np.where(same, 0, got) - np.where(same, 0, wanted))
        magnitude = np.abs(wanted[np.isfinite(wanted)])
        self.signal += float(magnitude @ magnitude)
        self.noise += float(difference @ difference)
        finite = np.isfinite(wanted) & np.isfinite(got)
        self.actual += float(got[finite] @ got[finite])
        self.product += float(wanted[finite] @ got[finite])
        self.largest_error = max(self.largest_error, float(difference.max(initial=0)))
        self.largest_value = max(self.largest_value, float(magnitude.max(initial=0)))
        self._add_classes(expected, actual)

    @property
    def finite(self) -> bool:
        """Whether the errors are numbers."""
        return self.comparable and math.isfinite(self.noise) and math.isfinite(self.signal)

    @property
    def max_abs(self) -> float | None:
        """The largest error."""
        return self.largest_error if self.finite else None

    @property
    def max_relative(self) -> float | None:
        """The largest error as a share of the largest value there should be."""
        if not self.finite or (self.largest_error and not self.largest_value):
            return None
        return self.largest_error / self.largest_value if self.largest_error else 0.0

    @property
    def sqnr_db(self) -> float | None:
        """Energy of the signal over that of the error, in dB; None without an error."""
        return 10 * math.log10(self.signal / self.noise) if self.finite and self.signal and self.noise else None

    @property
    def cosine(self) -> float | None:
        """Of the angle between the two as vectors; 1 without an error."""
        if not self.finite or (self.noise and not (self.signal and self.actual)):
            return None
        return self.product / math.sqrt(self.signal * self.actual) if self.noise else 1.0

    @property
    def top1_agreement(self) -> float | None:
        """Share of the rows whose largest score is the same one; None where there are no scores of classes."""
        return self.agreeing / self.rows if self.comparable and self.rows else None

    def _add_classes(self, expected: Array, actual: Array) -> None:
        """Scores are float [samples, classes], without extents of 1 behind, or of any rank if rows add up to 1."""
        if expected.dtype.kind != "f" or not expected.size:
            return
        shape = expected.shape
        while len(shape) > 2 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) < 2 or shape[-1] < 2:
            return
        wanted, got = (value.reshape(-1, shape[-1]) for value in (expected, actual))
        if len(shape) > 2 and not (np.abs(wanted.sum(axis=1, dtype=np.float64) - 1) <= PROBABILITY_SLACK).all():
            return
        self.rows += len(wanted)
        self.agreeing += int((wanted.argmax(axis=1) == got.argmax(axis=1)).sum())
