"""The collector is paused inside only, whatever happens there."""

from __future__ import annotations

import gc

import pytest

from npu_backend.collector import collector_paused


def test_the_collector_is_paused_inside_only() -> None:
    with pytest.raises(ValueError, match="inside"):
        _fail_inside()
    assert gc.isenabled()


def _fail_inside() -> None:
    with collector_paused():
        assert not gc.isenabled()
        raise ValueError("inside")


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
