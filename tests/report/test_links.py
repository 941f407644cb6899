"""Bytes and utilisation of the network's resources, by hand and against the instructions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from npu_backend.machine import load_machine
from npu_backend.report.links import link_figures
from tests.report.test_figures import compiled

CORES = 4


@pytest.mark.parametrize("machine", ["exynos2100", "mesh16", "ring4"])
def test_resources(machine: str) -> None:
    """Each by its kind; DRAM carries whole bursts, no resource more than it can."""
    cores = min(CORES, len(load_machine(machine).cores))
    timed = compiled(load_machine(machine).take(cores), "channel" if machine == "exynos2100" else "halo")
    found = link_figures([timed])
    names = {link.name: link for link in found}
    assert len(found) == len(names) == len(timed.program.resources)
    assert [link.utilization for link in found] == sorted((link.utilization for link in found), reverse=True)
    assert all(0 <= link.utilization <= 1 + 1e-9 for link in found)
    dram = names["dram"]
    assert dram.kind == "dram"
    assert dram.bytes >= sum(core.dram_bytes for core in timed.timing.cores)
    assert dram.utilization == pytest.approx(dram.bytes / dram.gb_per_s / timed.timing.total_ns)
    assert {names[f"npu0.{way}"].kind for way in ("load", "store")} == {"dma"}
    assert names["npu1.memory"].kind == "port"
    # A multicast crosses DRAM once and every reader's port.
    at_ports = sum(link.bytes for link in found if link.name.endswith(".memory"))
    assert at_ports > dram.bytes if load_machine(machine).network.multicast else at_ports == dram.bytes
    sent = sum(link.bytes for link in found if link.name.endswith(".send"))
    assert sent == sum(core.network_bytes for core in timed.timing.cores)
    assert any(link.kind == "link" for link in found)


def test_programs_add_up() -> None:
    timed = compiled(load_machine("ring4"), "halo")
    one, two = link_figures([timed]), link_figures([timed, timed])
    assert [(link.name, 2 * link.bytes, link.utilization) for link in one] == [
        (link.name, link.bytes, pytest.approx(link.utilization)) for link in two]  # fmt: skip
    assert link_figures([]) == ()


def test_equally_busy_ones_stay_in_order() -> None:
    timed = compiled(load_machine("mesh16").take(2), "single")
    idle = replace(timed.timing, resource_bytes=0 * timed.timing.resource_bytes)
    found = link_figures([replace(timed, timing=idle)])
    assert [link.name for link in found] == [record["name"] for record in timed.program.resources]
