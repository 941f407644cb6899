"""float32 exp and log against float64's."""

from __future__ import annotations

import numpy as np

from npu_backend.ops.numerics_math import exp, log

F = np.float32


def worst_ulps(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest error in units of the last place of float32."""
    return float(np.max(np.abs(actual - expected) / np.spacing(np.abs(expected).astype(F))))


def test_exp_is_within_an_ulp() -> None:
    x = np.random.default_rng(0).uniform(-103, 88.7, 1 << 20).astype(F)
    assert worst_ulps(exp(x), np.exp(x.astype(np.float64))) < 1


def test_log_is_within_an_ulp() -> None:
    x = np.exp(np.random.default_rng(1).uniform(-103, 88, 1 << 20)).astype(F)
    assert worst_ulps(log(x), np.log(x.astype(np.float64))) < 1


def test_exp_at_the_ends() -> None:
    x = [np.inf, -np.inf, np.nan, 0, -0.0, 88.8, -104, 1000]
    np.testing.assert_array_equal(exp(x), F([np.inf, 0, np.nan, 1, 1, np.inf, 0, np.inf]))


def test_log_at_the_ends() -> None:
    x = [0, -0.0, -1, -np.inf, np.inf, np.nan, 1, 1e-45]
    expected = F([-np.inf, -np.inf, np.nan, np.nan, np.inf, np.nan, 0, np.log(F(1e-45))])
    np.testing.assert_array_equal(log(x), expected)
