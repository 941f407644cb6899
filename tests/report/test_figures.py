"""Figures against hand sums, and texts of every stage, on a small graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npu_backend.encoding import decode
from npu_backend.graph import Graph, GraphBuilder, Quantization, Tensor
from npu_backend.isa import Engine
from npu_backend.machine import load_machine
from npu_backend.machine_types import Machine
from npu_backend.ops import append_op
from npu_backend.ops.attributes import BinaryAttributes, ConvAttributes, GatherAttributes, PoolAttributes
from npu_backend.pipeline import STAGES, compile_graph
from npu_backend.program import Program
from npu_backend.report.figures import TimedProgram, figures, lower_bound_us, peak_macs_per_us
from npu_backend.report.stages import disassembly, stage_text
from npu_backend.runtime import CoreTiming, Emulator, Timing
from npu_backend.strategies import STRATEGIES

SIZE, CHANNELS = 24, 32
CODES = Quantization(float(np.float32(0.05)), 120)


def small_graph() -> Graph:
    """A convolution, a residual one and a pool: 3x3x3 and 3x3x32 taps."""
    b, generator = GraphBuilder("small"), np.random.default_rng(3)
    x = b.input(Tensor("x", (1, SIZE, SIZE, 3), "uint8", CODES), "x")
    first = _conv(b, generator, x, 3, "first")
    second = _conv(b, generator, first, CHANNELS, "second")
    total = append_op(
        b, "binary", (second, first), BinaryAttributes("add"), name="add", dtype="uint8", quantization=CODES
    )
    pool = PoolAttributes("maximum", (2, 2), (2, 2), (0, 0, 0, 0))
    b.output(append_op(b, "pool2d", (total,), pool, name="pool", dtype="uint8", quantization=CODES), "y")
    return b.freeze()


def _conv(b: GraphBuilder, generator: np.random.Generator, x: str, inputs: int, name: str) -> str:
    weight = b.constant(f"{name}.w", generator.integers(-127, 128, (CHANNELS, inputs, 3, 3)).astype(np.int8))
    scale = b.constant(f"{name}.s", np.full(1, 0.001, np.float32))
    attributes = ConvAttributes((1, 1), (1,) * 4, (1, 1), 1)
    return append_op(b, "conv2d", (x, weight, scale), attributes, name=name, dtype="uint8", quantization=CODES)


MACS = SIZE * SIZE * CHANNELS * 9 * (3 + CHANNELS)
CONSTANT_BYTES = CHANNELS * 9 * (3 + CHANNELS) + 2 * 4
IO_BYTES = SIZE * SIZE * 3 + (SIZE // 2) ** 2 * CHANNELS


def compiled(machine: Machine, strategy: str = "base") -> TimedProgram:
    data = compile_graph(small_graph(), machine, STRATEGIES[strategy]).to_bytes()
    with Emulator(data) as emulator:
        return TimedProgram(Program.from_bytes(data), emulator.time(spans=True))


@pytest.fixture(scope="module", params=["exynos2100", "mesh16"])
def machine(request: pytest.FixtureRequest) -> Machine:
    return load_machine(request.param).take(3)


@pytest.fixture(scope="module")
def timed(machine: Machine) -> TimedProgram:
    return compiled(machine)


def test_sums(machine: Machine, timed: TimedProgram) -> None:
    found = figures([timed], 3)
    assert found.macs == MACS
    assert found.macs_executed >= MACS
    assert found.latency_us == timed.timing.total_ns / 1000
    assert found.cycles == round(timed.timing.total_ns * machine.cores[0].clock_mhz / 1000)
    assert sum(layer.cycles for layer in found.layers) == found.cycles
    assert sum(layer.latency_us for layer in found.layers) == pytest.approx(found.latency_us)
    assert sum(layer.dram_bytes for layer in found.layers) == found.dram_bytes
    assert sum(core.dram_bytes for core in found.per_core) == found.dram_bytes
    for core in found.per_core:
        assert core.busy_us + core.idle_us + core.sync_us == pytest.approx(found.latency_us)
    assert found.noc_bytes == sum(core.network_bytes for core in timed.timing.cores)
    with Emulator(timed.program.to_bytes()) as emulator:
        assert max(map(emulator.spm_peak_bytes, range(3))) <= found.spm_peak_bytes <= machine.cores[0].spm_bytes
    assert 0 < found.utilization < 1
    assert 0 < found.bound_share < 1


def test_dram_bytes_are_those_of_the_instructions(timed: TimedProgram) -> None:
    moved, shared = 0, dict[object, int]()
    for stream in timed.program.streams.values():
        for instruction in decode(stream):
            if instruction.name in ("LOAD", "STORE", "LOAD_MULTICAST"):
                size = int(np.prod(instruction.values["counts"])) * int(instruction.values["run_bytes"])  # type: ignore[call-overload]
                moved += size if instruction.name != "LOAD_MULTICAST" else 0
                shared |= {instruction.values["group"]: size} if instruction.name == "LOAD_MULTICAST" else {}
    assert moved + sum(shared.values()) == sum(layer.dram_bytes for layer in timed.layers)


def test_lower_bound(machine: Machine, timed: TimedProgram) -> None:
    peak = sum(core.mac_array.macs_per_cycle * core.clock_mhz for core in machine.cores)
    assert sum(map(peak_macs_per_us, timed.program.cores)) == pytest.approx(peak)
    dram_us = (CONSTANT_BYTES + IO_BYTES) / (machine.dram.bandwidth_gb_per_s * 1000)
    assert lower_bound_us([timed.program]) == pytest.approx(max(MACS / peak, dram_us))
    assert lower_bound_us([timed.program], 10**9) == pytest.approx(
        (CONSTANT_BYTES + 10**9) / machine.dram.bandwidth_gb_per_s / 1000
    )


def test_layer_ends_follow_compute() -> None:
    """Two layers on one core: loads at 0..10 and 5..20 ns, compute at 10..40 and 40..70, a store at 70..100."""
    timed = compiled(load_machine("exynos2100").take(1), "single")
    count = sum(1 for stream in timed.program.streams.values() for _ in decode(stream))
    layers = len(timed.program.metadata["layers"])
    spans, position, ends = np.zeros((count, 2)), 0, np.arange(1, layers + 1) * 30.0 + 10
    for (_, engine), stream in sorted(timed.program.streams.items()):
        for instruction in decode(stream):
            layer = timed.program.metadata["origin_layers"][instruction.origin]
            # Stores run late, beside the next layer: they must not count.
            late = 25.0 if engine == Engine.STORE else 0.0
            spans[position] = ends[layer] - 30, ends[layer] + late
            position += 1
    total = float(ends[-1] + 25)
    row = CoreTiming(0, 0, 0, 0, total, 0.0, 0.0, 0.0, 0.0, 0.0)
    found = TimedProgram(timed.program, Timing(total, 0.0, 0, (row,), spans, np.zeros(0))).layers
    expected = np.diff([0.0, *ends[:-1], total]) / 1000
    assert [layer.latency_us for layer in found] == pytest.approx(expected.tolist())


def test_programs_add_up(timed: TimedProgram) -> None:
    one, two = figures([timed], 3), figures([timed, timed], 3)
    assert two.latency_us == pytest.approx(2 * one.latency_us)
    assert two.macs == 2 * one.macs
    assert two.dram_bytes == 2 * one.dram_bytes
    assert two.energy_uj == pytest.approx(2 * one.energy_uj)
    assert two.spm_peak_bytes == one.spm_peak_bytes
    assert len(two.layers) == 2 * len(one.layers)
    assert two.utilization == pytest.approx(one.utilization)


def test_cores_left_idle(timed: TimedProgram) -> None:
    """What the compiler says of them, and a core that the program does not know."""
    found = figures([timed], 4)
    assert (found.cores_used, found.cores_reason) == (timed.program.metadata.get("cores_used", 4), "")
    assert (found.per_core[3].busy_us, found.per_core[3].idle_us) == (0, found.latency_us)
    told = replace(timed.program, metadata={**timed.program.metadata, "cores_used": 2, "cores_reason": "DRAM is full"})
    found = figures([replace(timed, program=told)] * 2, 3)
    assert (found.cores_used, found.cores_reason) == (2, "DRAM is full")


def test_model_without_programs() -> None:
    found = figures([], 2, 100)
    assert (found.cycles, found.latency_us, found.lower_bound_us, found.utilization) == (0, 0, 0, 0)
    assert len(found.per_core) == 2


def test_text_of_every_stage(machine: Machine) -> None:
    texts: dict[str, list[str]] = {}
    again: dict[str, list[str]] = {}
    for target in (texts, again):

        def observe(name: str, stage: object, target: dict[str, list[str]] = target) -> None:
            target[name] = stage_text(stage).splitlines()

        compile_graph(small_graph(), machine, STRATEGIES["base"], observe)
    assert texts == again
    assert tuple(texts) == STAGES
    layers = len(texts["fuse"]) - 1
    assert len(texts["partition"]) == layers + 1
    assert sum(not line.startswith("    ") for line in texts["tile"]) == layers + 1
    assert int(texts["schedule"][0].split()[2]) == sum(" core " in line for line in texts["schedule"])
    assert all("at 0x" not in line and "object" not in line for lines in texts.values() for line in lines)
    assert texts["partition"][0] == f"splits small on {machine.name}: npu0, npu1, npu2"


def test_disassembly_names_every_instruction(timed: TimedProgram) -> None:
    lines = list(disassembly(timed.program))
    instructions = [line for line in lines if line.startswith("  ")]
    assert len(instructions) == sum(1 for stream in timed.program.streams.values() for _ in decode(stream))
    # A change of the input's axis order comes from the input itself.
    assert {line.partition("# ")[2] for line in instructions} - {"x"} == {"first", "second", "add", "pool"}
    matrix = list(disassembly(timed.program, core=1, engine=Engine.MATRIX))
    assert [line for line in matrix if line.startswith("core")] == [
        line for line in lines if line.startswith("core 1 matrix")
    ]


def test_rows_that_a_gather_loads_are_its_traffic() -> None:
    """Six rows of 64 bytes of a table in DRAM, their indices, and what is stored of them."""
    b = GraphBuilder("table")
    table = b.constant_tensor("table", np.zeros((40000, 64), np.uint8), CODES)
    indices = b.input(Tensor("indices", (6,), "int64"), "indices")
    b.output(
        append_op(b, "gather", (table, indices), GatherAttributes(0), name="rows", dtype="uint8", quantization=CODES),
        "y",
    )
    data = compile_graph(b.freeze(), load_machine("exynos2100").take(1), STRATEGIES["single"]).to_bytes()
    with Emulator(data) as emulator:
        timed = TimedProgram(Program.from_bytes(data), emulator.time(spans=True))
    found = figures([timed], 1)
    assert found.per_core[0].load_bytes == 6 * 64 + 6 * 8
    assert sum(layer.dram_bytes for layer in found.layers) == found.dram_bytes == 2 * 6 * 64 + 6 * 8
