"""Waits per layer against sums by hand and against the emulator's clock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npu_backend.isa import FORMAT_BY_NAME
from npu_backend.machine import load_machine
from npu_backend.report.figures import figures, plan_name
from npu_backend.report.instructions import Instructions
from npu_backend.report.waiting import waits_ns
from tests.report.test_figures import compiled


def instructions(rows: list[tuple[int, str, int, int]]) -> Instructions:
    """Rows of layer, name, core and semaphore."""
    layer, names, core, semaphore = zip(*rows)
    codes = [FORMAT_BY_NAME[name].code for name in names]
    nothing = np.zeros(len(rows), np.int64)
    return Instructions(
        np.array(layer),
        nothing,
        np.array(codes),
        np.array(core),
        nothing,
        nothing,
        np.array(semaphore),
        nothing - 1,
        nothing - 1,
    )


def test_waits_by_hand() -> None:
    """Core 0 waits at 10..50 in layer 1 and at 20..60 in layer 2; it works at 0..10 and 30..35; the rest is its own."""
    rows = [
        (0, "CONV", 0, -1), (1, "WAIT", 0, 0), (2, "WAIT", 0, 1), (1, "LOAD", 0, -1), (2, "WAIT", 0, 2),
        (1, "SIGNAL", 1, 0), (2, "SIGNAL", 1, 1), (2, "SIGNAL", 0, 2), (0, "CONV", 1, -1),
    ]  # fmt: skip
    spans = np.array(
        [[0, 10], [10, 50], [20, 60], [30, 35], [60, 90], [50, 50], [60, 60], [90, 90], [0, 100]], np.float64
    )
    found = waits_ns(instructions(rows), spans, 3, 2)
    assert found.tolist() == [[0, 0], [35, 0], [10, 0]]


@pytest.mark.parametrize("machine", ["exynos2100", "mesh16"])
def test_layers_add_up_to_the_clock(machine: str) -> None:
    found = figures([compiled(load_machine(machine).take(3), "channel")], 3)
    assert sum(core.sync_us for core in found.per_core) > 0
    assert 3 * sum(layer.sync_us for layer in found.layers) == pytest.approx(sum(row.sync_us for row in found.per_core))
    waits = found.synchronization
    assert 0 < waits.layers <= len(found.layers)
    assert waits.mean_us * waits.layers == pytest.approx(sum(layer.sync_us for layer in found.layers))
    for core in found.per_core:
        assert core.load_bytes + core.store_bytes == core.dram_bytes
        assert core.matrix_busy_us + core.vector_busy_us > 0
        assert max(core.matrix_busy_us, core.vector_busy_us) <= core.busy_us


def test_one_core_waits_for_nobody() -> None:
    found = figures([compiled(load_machine("exynos2100").take(1), "single")], 1)
    assert (found.synchronization.layers, found.synchronization.mean_us, found.per_core[0].sync_us) == (0, 0, 0)


def test_choices_of_several_programs() -> None:
    timed = compiled(load_machine("exynos2100").take(2))
    rows = [{**row, "stratum": 1, "stratum_reason": "runs on", "recompute_us": 0.5, "synchronization_us": 2.0}
            for row in timed.program.metadata["layers"]]  # fmt: skip
    other = replace(timed, program=replace(timed.program, metadata={**timed.program.metadata, "layers": rows,
                                                                    "plan": "halo"}))  # fmt: skip
    layers = figures([other, other], 2).layers
    half = len(layers) // 2
    assert {layer.stratum for layer in layers[:half]} == {1}
    assert {layer.stratum for layer in layers[half:]} == {3}
    assert (layers[0].recompute_us, layers[0].synchronization_us) == (0.5, 2.0)
    assert all(layer.reason for layer in layers)
    assert plan_name([other, other], "stratum") == "halo"
    assert plan_name([], "stratum") == "stratum"
