"""DeepLabV3+ in 16-bit codes, the paper's form: exact sums here, float32 sums in ONNX Runtime, some steps of 65,536."""

from __future__ import annotations

import numpy as np
import pytest

from npu_backend.machine import load_machine
from npu_backend.runtime import Emulator
from tests.e2e.networks import Case, assert_equal, prepared, program_of

pytestmark = pytest.mark.slow

# ONNX Runtime rounds its sums to 24 bits; 74 layers spread that. Measured: 9 steps at most, 1.4 on average.
LARGEST_STEPS = 20
MEAN_STEPS = 2.0


@pytest.mark.parametrize(("machine", "cores"), [("exynos2100", 1), ("exynos2100", 3), ("mesh16", 4)])
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_deeplab_is_some_steps_from_float_sums(dtype, machine, cores):
    network = prepared(Case("deeplab_v3_plus", 129, dtype))
    (output,) = network.graph.outputs
    (last,) = (op for op in network.graph.ops if op.output == output.tensor)
    step = network.graph.tensor(last.inputs[0]).quantization.scale
    with Emulator(program_of(network.graph, load_machine(machine).take(cores), "base")) as emulator:
        for feed, expected in zip(network.feeds, network.expected, strict=True):
            got = emulator.run(feed, check=True)
            assert_equal(emulator.run(feed, threads=2), got)
            steps = np.abs(got[output.host_name] - expected[output.host_name]) / step
            assert steps.max() <= LARGEST_STEPS
            assert steps.mean() <= MEAN_STEPS
