"""The six networks equal ONNX Runtime bit for bit, however they are split, tiled and run."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from npu_backend.machine import load_machine
from npu_backend.program import Program
from npu_backend.runtime import Emulator
from npu_backend.strategies import STRATEGIES
from tests.e2e.networks import Case, assert_exact, prepared, program_of
from tests.e2e.onnx_runtime import outputs_of

# Small enough for the whole matrix, large enough that every kind of layer has work for several cores. UNet's maps are
# 60, 30, 15, 7 and 3 wide: on the way up two of them are padded by one.
REDUCED = (
    Case("mobilenet_v2", 96),
    Case("mobilenet_v2", 96, "int8"),
    Case("inception_v3", 107),
    Case("mobilenet_v2_ssd", 160),
    Case("mobiledet_ssd", 160),
    Case("deeplab_v3_plus", 129),
    Case("unet", 60),
)
CORES = (("exynos2100", 1), ("exynos2100", 2), ("exynos2100", 3), ("mesh16", 4), ("mesh16", 7))
SPM_BYTES = (1 << 20, 1 << 17)
# Machines whose cores reach each other, some by multicasts.
LINKED = (("exynos2200", 2, "stratum"), ("biglittle", 2, "halo"), ("ring4", 4, "stratum"), ("torus16", 16, "halo"),
          ("mesh64", 16, "halo"))  # fmt: skip
# One plan of the matrix is for `make check` too.
QUICK = (REDUCED[0], ("exynos2100", 3), 1 << 20, "stratum")

# What the float transposed convolutions of the original UNet do to its logits: single steps in 5 of 100,000 elements,
# which the layers after them spread. Measured on the two inputs: 0.10 and 0.30 of the elements, 3 and 5 of 238 steps.
UNET_LARGEST_SHARE = 0.35
UNET_LARGEST_STEPS = 12


def known_equal(machine, cores, strategy):
    """Whether `test_one_core_has_one_plan` says that the matrix has the same instructions under another strategy."""
    if cores == 1:
        return strategy not in ("base", "halo")
    return strategy == "single" and (machine == "exynos2100" or cores > 4)


def is_crossed(machine, cores, spm_bytes, strategy):
    """What a network after the first is tried with: each strategy, machine and scratchpad, not each with each.

    `stratum` plans and times what the rungs below it make, so it meets every machine and scratchpad.
    """
    if strategy == "stratum":
        return cores > 1
    if strategy in ("base", "halo"):
        return (machine, cores) in (("exynos2100", 3), ("mesh16", 7)) and spm_bytes == SPM_BYTES[-1]
    return (machine, cores) == ("exynos2100", 2) and spm_bytes == SPM_BYTES[0]


def plans():
    """Network by network: a process then imports each only once."""
    for plan in product(REDUCED, CORES, SPM_BYTES, STRATEGIES):
        case, (machine, cores), spm_bytes, strategy = plan
        if case != REDUCED[0] and not is_crossed(machine, cores, spm_bytes, strategy):
            continue
        if case == REDUCED[0] and known_equal(machine, cores, strategy):
            continue
        name = f"{case}-{machine}-{cores}-{spm_bytes >> 10}K-{strategy}"
        yield pytest.param(*plan, id=name, marks=() if plan == QUICK else pytest.mark.slow)


@pytest.mark.parametrize(("case", "cores", "spm_bytes", "strategy"), [*plans()])
def test_reduced(case, cores, spm_bytes, strategy):
    machine, count = cores
    chosen = load_machine(machine).take(count).with_spm_bytes(spm_bytes)
    network = prepared(case)
    assert_exact(program_of(network.graph, chosen, strategy), network)


def linked_plans():
    """Each network on each machine, the first on all cores of the largest one too."""
    for case, (machine, cores, strategy) in product(REDUCED, LINKED):
        yield pytest.param(case, machine, cores, strategy, id=f"{case}-{machine}-{cores}-{strategy}")
    yield pytest.param(REDUCED[0], "mesh64", 64, "halo", id="mobilenet_v2-mesh64-64-halo")


@pytest.mark.slow
@pytest.mark.parametrize(("case", "machine", "cores", "strategy"), [*linked_plans()])
def test_cores_that_reach_each_other(case, machine, cores, strategy):
    network = prepared(case)
    assert_exact(program_of(network.graph, load_machine(machine).take(cores), strategy), network)


@pytest.mark.slow
@pytest.mark.parametrize("spm_bytes", SPM_BYTES)
@pytest.mark.parametrize(("machine", "most"), [("exynos2100", 3), ("mesh16", 7)])
def test_one_core_has_one_plan(machine, most, spm_bytes):
    """Strategies that keep maps give one core the same instructions, `single` on any number too; so do the others."""
    network = prepared(REDUCED[0])

    def streams(cores, strategy):
        chosen = load_machine(machine).take(cores).with_spm_bytes(spm_bytes)
        return Program.from_bytes(program_of(network.graph, chosen, strategy)).streams

    first = streams(1, "single")
    assert all(streams(1, name) == first for name, strategy in STRATEGIES.items() if strategy.forward)
    assert used(streams(most, "single")) == used(first)
    stored = streams(1, "base")
    assert all(streams(1, name) == stored for name, strategy in STRATEGIES.items() if not strategy.forward)


def used(streams):
    return {key: instructions for key, instructions in streams.items() if instructions}


@pytest.mark.slow
@pytest.mark.parametrize("name", dict.fromkeys(case.network for case in REDUCED))
def test_whole_size(name):
    network = prepared(Case(name, None))
    assert_exact(program_of(network.graph, load_machine("exynos2100"), "stratum"), network)


@pytest.mark.slow
def test_unet_beside_float_transposes():
    """The original file in ONNX Runtime, whose transposed convolutions are in float: close, and by how much."""
    case = Case("unet", 60)
    network, model = prepared(case), case.model()
    with Emulator(program_of(network.graph, load_machine("exynos2100"), "base")) as emulator:
        got = np.concatenate([emulator.run(feed)["logits"] for feed in network.feeds])
    wanted = np.concatenate([outputs["logits"] for outputs in outputs_of(model, network.feeds)])
    step = np.diff(np.unique(wanted)).min()
    assert np.count_nonzero(got != wanted) <= UNET_LARGEST_SHARE * wanted.size
    assert np.abs(got - wanted).max() <= UNET_LARGEST_STEPS * step * 1.001
