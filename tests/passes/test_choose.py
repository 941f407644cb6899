"""Choose: a rung is never slower than the one below, and barriers and halo-first do what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npu_backend.box import Box
from npu_backend.choose import choose
from npu_backend.isa import Engine
from npu_backend.passes.barriers import BARRIER
from npu_backend.passes.fuse import fuse
from npu_backend.passes.halo_first import halo_first
from npu_backend.passes.legalize import legalize
from npu_backend.stages import Fused, Partitioned, Placed
from npu_backend.strategies import STRATEGIES
from tests.e2e.random_graphs import network
from tests.passes.networks import Network, block, machine

LADDER = ("base", "halo", "stratum")


def chain(layers: int = 3) -> Fused:
    net = Network("chain")
    name = net.source((1, 60, 40, 32))
    for _ in range(layers):
        name = net.conv(name, 32, (3, 3))
    net.output(name, "y")
    return fuse(net.freeze())


@pytest.mark.parametrize("target", ["exynos2100", "mesh16"])
@pytest.mark.parametrize("spm_bytes", [1 << 14, 1 << 18])
@pytest.mark.parametrize("seed", range(4))
def test_no_rung_is_slower_than_the_one_below(seed: int, spm_bytes: int, target: str) -> None:
    fused = fuse(legalize(network(np.random.default_rng(seed))))
    total = [choose(fused, machine(target, 3, spm_bytes), STRATEGIES[name]).total_ns for name in LADDER]
    assert total == sorted(total, reverse=True)


def test_the_program_names_what_was_asked_and_what_was_taken() -> None:
    fused = fuse(legalize(block()))
    plan = choose(fused, machine(cores=3, spm_bytes=1 << 18), STRATEGIES["stratum"])
    metadata = plan.program(plan.divided.machine, STRATEGIES["stratum"]).metadata
    assert (metadata["strategy"], metadata["plan"]) == ("stratum", plan.strategy.name)


def test_the_clock_sees_every_layer_on_every_core_of_it() -> None:
    plan = choose(chain(), machine(cores=3, spm_bytes=1 << 18), STRATEGIES["halo"])
    times = plan.computes_ns
    assert not np.isnan(times).any()
    assert (times[:, :, 1] > times[:, :, 0]).all()
    assert plan.ends_ns[-1] <= plan.total_ns


def steps_of(placed: Placed) -> Partitioned:
    return placed.scheduled.tiled.resident.partitioned


def test_with_barriers_no_core_starts_a_layer_before_all_have_stored_the_one_before() -> None:
    fused = chain()
    plan = choose(fused, machine(cores=3, spm_bytes=1 << 18), STRATEGIES["base"])
    times = plan.computes_ns
    for index in range(1, len(fused.layers)):
        assert times[index, :, 0].min() > times[index - 1, :, 1].max()
    steps = plan.placed.scheduled.steps
    waiting = [step for step in steps if any(str(access.buffer).startswith(BARRIER) for access in step.reads)]
    assert {(step.layer, step.core) for step in waiting} == {(i, core) for i in (1, 2) for core in range(3)}
    assert {step.engine for step in waiting} == {Engine.LOAD}


def test_halos_run_first_and_are_cut_off() -> None:
    plan = choose(chain(), machine("mesh16", 3, 1 << 19), STRATEGIES["halo"])
    tiled = plan.placed.scheduled.tiled
    middle = tiled.tilings[1][1]
    own = steps_of(plan.placed).out_box(1, 1)
    assert middle is not None
    assert own is not None
    low, high = own.interval(1)
    first = [part.out_box.interval(1) for part in middle.parts[:2]]
    # The first layer loads its tiles from DRAM: cutting one would load the rows between twice.
    assert (min(first)[0], max(first)[1]) == (low, high)
    assert all(stop - start <= 3 for start, stop in first)
    assert sum(part.out_box.size for part in middle.parts) == own.size


def test_halo_first_leaves_layers_alone_that_nobody_waits_for() -> None:
    plan = choose(chain(), machine(cores=1, spm_bytes=1 << 19), STRATEGIES["halo"])
    tiled = plan.placed.scheduled.tiled
    assert halo_first(tiled) == replace(tiled)
    assert tiled.tilings[0][0] is not None
    assert isinstance(tiled.tilings[0][0].parts[0].out_box, Box)


def test_cores_that_are_of_no_use_stay_idle() -> None:
    net = Network("small")
    net.output(net.conv(net.source((1, 4, 4, 16)), 16), "y")
    plan = choose(fuse(net.freeze()), machine("mesh16", 8), STRATEGIES["halo"])
    metadata = plan.program(machine("mesh16", 8), STRATEGIES["halo"]).metadata
    assert metadata["cores_used"] == len(plan.divided.machine.cores) < 8
    assert "us on 8" in metadata["cores_reason"]
    assert len(choose(fuse(net.freeze()), machine("mesh16", 8), STRATEGIES["halo"].alone).divided.machine.cores) == 8


def test_a_large_network_uses_all_cores() -> None:
    plan = choose(chain(), machine("mesh16", 8, 1 << 19), STRATEGIES["stratum"])
    assert (len(plan.divided.machine.cores), plan.cores_reason) == (8, "")


@pytest.mark.parametrize("seed", range(3))
def test_more_cores_are_never_slower(seed: int) -> None:
    fused = fuse(legalize(network(np.random.default_rng(seed))))
    times = [choose(fused, machine("mesh16", cores, 1 << 18), STRATEGIES["halo"]).total_ns for cores in (1, 2, 4, 8)]
    assert times == sorted(times, reverse=True)
