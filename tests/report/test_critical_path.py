"""The critical path: a chain by hand, and on programs of all kinds that its pieces are the run, without a gap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from npu_backend.errors import EmulatorError
from npu_backend.isa import Engine
from npu_backend.machine import load_machine
from npu_backend.program import Program
from npu_backend.report.critical_path import KINDS, CriticalPath, critical_path
from npu_backend.report.figures import TimedProgram
from npu_backend.runtime import Emulator
from tests.emulator.assembler import LOAD, NETWORK, STORE, VECTOR, Assembly
from tests.report.test_figures import compiled

# The assembler's machine.
SETUP, PATH, DRAM, SIGNAL, CROSS_SIGNAL, BYTES_PER_NS = 10, 10, 100, 5, 50, 16
CORES, SEMAPHORES, GROUPS = 3, 4, 32


def timed_program(assembly: Assembly) -> TimedProgram:
    """Every origin is a layer of its own."""
    program = assembly.program()
    layers = range(len(program.origins))
    metadata = {"origin_layers": list(layers), "layers": [{} for _ in layers]}
    machine = {**program.machine, "multicast_group_count": GROUPS}
    return timed(replace(program, machine=machine, metadata=metadata))


def timed(program: Program) -> TimedProgram:
    with Emulator(program.to_bytes()) as emulator:
        return TimedProgram(program, emulator.time(spans=True))


def check_is_whole(path: CriticalPath, *programs: TimedProgram) -> None:
    """From 0 to the end, each piece where the last one ended, nothing unexplained; sums are those of the pieces."""
    total_ns = sum(program.timing.total_ns for program in programs)
    if not total_ns:
        assert not len(path.start_ns)
        return
    assert path.start_ns[0] == 0
    assert (path.start_ns[1:] == path.end_ns[:-1]).all()
    assert path.end_ns[-1] == total_ns
    assert path.total_us == total_ns / 1000
    assert (path.end_ns > path.start_ns).all()
    assert path.by_kind["idle"] == 0
    assert tuple(path.by_kind) == KINDS
    assert sum(path.by_kind.values()) == pytest.approx(path.total_us)
    assert sum(path.by_layer) == pytest.approx(path.total_us)


def pieces(path: CriticalPath) -> list[tuple[str, str, int, int, float]]:
    """Kind, node, core, layer, ns."""
    return [
        (KINDS[kind], path.nodes[origin], int(core), int(layer), float(end - start))
        for kind, origin, core, layer, start, end in zip(
            path.kind, path.origin, path.core, path.layer, path.start_ns, path.end_ns, strict=True
        )
    ]


def test_chain_by_hand() -> None:
    """Core 0 loads, fills and sends; core 1, which did something shorter meanwhile, stores what it got."""
    assembly = Assembly().node("load").load(0, 0, 0, 3200).load(1, 0, 0, 64)
    assembly.node("fill").sync(0, (0, LOAD), (0, VECTOR)).fill(0, 0, 3200)
    assembly.node("send").sync(1, (0, VECTOR), (0, NETWORK)).send(0, 1, 0, 4096, 160)
    assembly.node("store").sync(2, (0, NETWORK), (1, STORE)).store(1, 8192, 4096, 64)
    program = timed_program(assembly)
    path = critical_path([program])
    fill_ns = next(row[-1] for row in pieces(path) if row[0] == "vector")
    # The loads share the bytes of DRAM: the second has its 64, and so have the first's, by twice 64 / 16.
    assert pieces(path) == [
        ("latency", "load", 0, 1, SETUP + PATH + DRAM), ("load", "load", 0, 1, (3200 + 64) / BYTES_PER_NS),
        ("signal", "fill", 0, 2, SIGNAL), ("vector", "fill", 0, 2, fill_ns),
        ("signal", "send", 0, 3, SIGNAL), ("latency", "send", 0, 3, SETUP + PATH),
        ("network", "send", 0, 3, 160 / BYTES_PER_NS), ("signal", "store", 1, 4, CROSS_SIGNAL),
        ("latency", "store", 1, 4, SETUP + PATH + DRAM), ("store", "store", 1, 4, 64 / BYTES_PER_NS),
    ]  # fmt: skip
    check_is_whole(path, program)
    longest = path.longest(2)
    assert [(segment.kind, segment.node, segment.engine) for segment in longest] == [
        ("load", "load", "load"), ("latency", "load", "load")]  # fmt: skip
    assert (longest[0].start_us, longest[0].end_us) == (0.12, 0.324)


def test_what_does_not_wait_is_not_on_the_path() -> None:
    """The signal was there before core 1 came to its WAIT, so its own two loads are the path; they become one piece."""
    assembly = Assembly().signal(0, VECTOR, 0).load(1, 0, 0, 640).wait(1, LOAD, 0).load(1, 0, 1024, 640)
    path = critical_path([timed_program(assembly)])
    assert [row[0] for row in pieces(path)] == ["latency", "load"] * 2
    assert path.by_kind["signal"] == 0
    fills = Assembly().fill(0, 0, 640).fill(0, 1024, 640)
    assert [row[:3] for row in pieces(critical_path([timed_program(fills)]))] == [("vector", "start", 0)]


def test_multicast_follows_the_core_that_comes_last() -> None:
    assembly = Assembly().node("alone").load(1, 0, 0, 1600)
    for core in (0, 1):
        assembly.node(f"both{core}").load_multicast(core, 0, 0, 4096, 640)
    assembly.node("after").sync(0, (0, LOAD), (0, VECTOR)).fill(0, 0, 64)
    program = timed_program(assembly)
    path = critical_path([program])
    check_is_whole(path, program)
    assert [row[:3] for row in pieces(path)] == [
        ("latency", "alone", 1), ("load", "alone", 1), ("latency", "both0", 0), ("load", "both0", 0),
        ("signal", "after", 0), ("vector", "after", 0)]  # fmt: skip
    assert [row[-1] for row in pieces(path)[2:4]] == [SETUP + PATH + DRAM, 640 / BYTES_PER_NS]


def test_sends_of_a_multicast_are_one() -> None:
    assembly = Assembly(cores=3).node("fill").fill(0, 0, 640).node("send").sync(0, (0, VECTOR), (0, NETWORK))
    assembly.send_multicast(0, 0, 1, 0, 0, 640).send_multicast(0, 0, 2, 0, 0, 640)
    assembly.node("on").sync(1, (0, NETWORK), (2, VECTOR)).fill(2, 0, 32)
    program = timed_program(assembly)
    path = critical_path([program])
    check_is_whole(path, program)
    assert [row[:2] for row in pieces(path)] == [
        ("vector", "fill"), ("signal", "send"), ("latency", "send"), ("network", "send"), ("signal", "on"),
        ("vector", "on")]  # fmt: skip


SIZES = st.integers(1, 40).map(lambda lines: 16 * lines)
ACTIONS = st.tuples(
    st.sampled_from(["load", "store", "send", "fill", "sync", "sync", "both", "all"]), st.integers(0, CORES - 1),
    st.integers(0, CORES - 1), SIZES, st.integers(0, SEMAPHORES - 1), st.sampled_from([LOAD, STORE, NETWORK, VECTOR]),
    st.sampled_from([LOAD, STORE, NETWORK, VECTOR]),
)  # fmt: skip


def assembled(actions: list[tuple[str, int, int, int, int, Engine, Engine]]) -> Assembly:
    """Any mixture; semaphores are shared, so that it may deadlock."""
    assembly, groups = Assembly(cores=CORES), 0
    for index, (kind, core, other, size, semaphore, before, after) in enumerate(actions):
        assembly.node(f"node{index}")
        if kind == "sync":
            assembly.sync(semaphore, (core, before), (other, after))
        elif kind == "send" and core != other:
            assembly.send(core, other, 0, 0, size)
        elif kind == "fill":
            assembly.fill(core, 0, size)
        elif kind == "load":
            assembly.load(core, 0, 0, size)
        elif kind == "store":
            assembly.store(core, 0, 0, size)
        elif kind == "both" and core != other:
            assembly.load_multicast(core, groups, 0, 0, size).load_multicast(other, groups, 0, 0, size)
            groups += 1
        elif kind == "all":
            for target in {0, 1, 2} - {core}:
                assembly.send_multicast(core, groups, target, 0, 0, size)
            groups += 1
    return assembly


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, max_size=30))
def test_adds_up_on_any_program(actions: list[tuple[str, int, int, int, int, Engine, Engine]]) -> None:
    program = timed_or_none(assembled(actions))
    assume(program is not None)
    assert program is not None
    check_is_whole(critical_path([program]), program)


def timed_or_none(assembly: Assembly) -> TimedProgram | None:
    try:
        return timed_program(assembly)
    except EmulatorError as error:
        if "deadlock" in str(error):
            return None
        raise


@pytest.mark.parametrize(("machine", "cores"), [("exynos2100", 3), ("mesh16", 16), ("ring4", 4), ("torus16", 9)])
@pytest.mark.parametrize("strategy", ["base", "channel", "stratum"])
def test_adds_up_on_compiled_networks(machine: str, cores: int, strategy: str) -> None:
    program = compiled(load_machine(machine).take(cores), strategy)
    path = critical_path([program])
    check_is_whole(path, program)
    assert len(path.by_layer) == len(program.layers)
    assert path.by_kind["matrix"] > 0


def test_programs_follow_each_other() -> None:
    program = compiled(load_machine("exynos2100").take(2))
    one, two = critical_path([program]), critical_path([program, program])
    check_is_whole(two, program, program)
    assert two.by_layer == pytest.approx(one.by_layer * 2)
    assert {kind: us / 2 for kind, us in two.by_kind.items()} == pytest.approx(one.by_kind)
    assert int(two.origin.max()) < len(two.nodes) == 2 * len(one.nodes)


def test_without_programs() -> None:
    path = critical_path([])
    assert (path.total_us, path.longest(20), path.by_layer) == (0, (), ())
    assert set(path.by_kind.values()) == {0}
    assert path.start_ns.dtype == np.float64
