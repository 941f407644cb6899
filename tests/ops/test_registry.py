"""Every registered operator on every kind of machine, split and scratchpad: the emulator equals the NumPy reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from npu_backend.machine import Machine, load_machine
from npu_backend.ops import registered_ops, spec_of
from npu_backend.pipeline import compile_graph
from npu_backend.reference import evaluate
from npu_backend.runtime import Emulator
from npu_backend.strategies import STRATEGIES
from tests.ops.case import Case, build, draw_inputs, operator
from tests.ops.cases import CASES

LARGE_SPM_BYTES = 1 << 20


@dataclass(frozen=True)
class Target:
    """Where a case runs; `prefix` computes its inputs by other layers, which may leave them in the scratchpads."""

    machine: str
    cores: int
    strategy: str
    small: bool
    prefix: bool

    def __str__(self) -> str:
        memory = "small" if self.small else "large"
        return f"{self.machine}-{self.cores}-{self.strategy}-{memory}{'-prefix' if self.prefix else ''}"


MACHINES = (("exynos2100", 2), ("exynos2100", 3), ("mesh16", 4), ("mesh16", 7))
TARGETS = (
    *(Target("exynos2100", 1, "single", small, prefix) for small in (False, True) for prefix in (False, True)),
    *(Target(machine, cores, strategy, small, prefix) for machine, cores in MACHINES
      for strategy in ("spatial", "channel") for small in (False, True) for prefix in (False, True)),
)  # fmt: skip
FAST = (
    Target("exynos2100", 3, "spatial", False, True),
    Target("exynos2100", 1, "single", True, False),
    Target("mesh16", 7, "channel", False, True),
    Target("mesh16", 4, "spatial", True, True),
)


def test_every_kind_has_cases() -> None:
    # A kernel's function is its front end's: tests/ops/test_kernel.py.
    missing = set(registered_ops()) - {case.kind for case in CASES} - {"kernel"}
    assert not missing, f"kinds without a case in tests/ops/cases.py: {sorted(missing)}"


def test_case_names_differ() -> None:
    names = [str(case) for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.dtype != "int8"], ids=str)
def test_small_scratchpad_needs_tiles(case: Case) -> None:
    graph = build(case)
    machine = with_every_rate(load_machine("exynos2100")).take(1).with_spm_bytes(case.spm_bytes)
    layers = compile_graph(graph, machine, STRATEGIES["single"]).metadata["layers"]
    output = graph.tensor(operator(graph).output)
    axes = spec_of(operator(graph)).split_axes(graph, operator(graph))
    divisible = any(output.shape[axis] > multiple for axis, multiple in axes.items())
    if case.kind == "unary" and not layers:
        return  # an identity of floats moves nothing
    assert not divisible or max(layer["tiles"][0] for layer in layers) > 1


def with_every_rate(machine: Machine) -> Machine:
    """The machine with a MAC array that takes every data type."""
    rates = [replace(core.rates, int16=core.rates.int16 or 0.25, float16=core.rates.float16 or 0.25)
             for core in machine.cores]  # fmt: skip
    return replace(machine, cores=tuple(replace(core, rates=own) for core, own in zip(machine.cores, rates)))


def fast_target(case: Case) -> Target:
    """One target for each case, in turn."""
    return FAST[CASES.index(case) % len(FAST)]


def check(case: Case, targets: Sequence[Target]) -> None:
    for prefix in (False, True):
        graph = build(case, prefix=prefix)
        inputs = draw_inputs(graph, case.seed)
        expected = evaluate(graph, inputs)["y"]
        for target in targets:
            if target.prefix != prefix:
                continue
            machine = with_every_rate(load_machine(target.machine)).take(target.cores)
            machine = machine.with_spm_bytes(case.spm_bytes if target.small else LARGE_SPM_BYTES)
            program = compile_graph(graph, machine, STRATEGIES[target.strategy].alone, check=True)
            with Emulator(program.to_bytes()) as emulator:
                actual = emulator.run(inputs, check=True)["y"]
            np.testing.assert_array_equal(actual, expected, str(target))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator(case: Case) -> None:
    check(case, [fast_target(case)])


def shares(case: Case) -> int:
    """How many cases share the targets: twins in other forms differ in the arithmetic of single elements only, as
    element-wise functions of the same shapes do.
    """
    if registered_ops()[case.kind].is_elementwise:
        same = (each for each in CASES if (each.kind, each.shapes, each.channels_last) == (
            case.kind, case.shapes, case.channels_last))  # fmt: skip
        return 1 if next(same) == case else 6
    return 1 if case.dtype in ("uint8", "float16") else 3


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_everywhere(case: Case) -> None:
    check(case, TARGETS[CASES.index(case) % shares(case) :: shares(case)])
