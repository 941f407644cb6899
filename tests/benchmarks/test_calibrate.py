"""The calibration's file handling, and that the shipped machine is what it says."""

from __future__ import annotations

import pytest

from benchmarks.calibrate import GOOD_ENOUGH, PARAMETERS, STEP_PRICE, Fit, values_of, with_values, written
from npu_backend.machine import load_machine, machine_path, parse_machine

MACHINE = "exynos2100"


def other_values() -> tuple[float, ...]:
    return tuple(parameter.values[-1] for parameter in PARAMETERS)


def test_the_machine_has_the_values_it_is_given() -> None:
    assert values_of(with_values(load_machine(MACHINE), other_values())) == other_values()


def test_the_file_has_the_values_and_keeps_its_comments() -> None:
    text = machine_path(MACHINE).read_text()
    changed = written(text, other_values())
    assert parse_machine(changed, MACHINE) == with_values(load_machine(MACHINE), other_values())
    assert [line.partition("#")[2] for line in changed.splitlines()] == [
        line.partition("#")[2] for line in text.splitlines()
    ]
    assert written(changed, values_of(load_machine(MACHINE))) == text


def test_the_shipped_values_are_among_those_that_are_searched() -> None:
    for parameter, value in zip(PARAMETERS, values_of(load_machine(MACHINE)), strict=True):
        assert value in parameter.values, parameter.key
        assert parameter.assumed in parameter.values


def test_the_price_prefers_assumptions_where_the_fit_is_good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = Fit(load_machine(MACHINE))
    monkeypatch.setattr(Fit, "latency_us", lambda _, values, target: target.latency_us * (1 + values[0] / 1000))
    assumed = tuple(parameter.assumed for parameter in PARAMETERS)
    near, far = (4, *assumed[1:]), (20, *assumed[1:])
    assert fit.price(assumed) < fit.price(near) < fit.price(far)
    # Below what is asked for, only steps count.
    assert fit.price(near) == pytest.approx(GOOD_ENOUGH + 4 * STEP_PRICE)
