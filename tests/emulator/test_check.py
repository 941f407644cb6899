"""The checked run finds every kind of hazard, and none in a program that is ordered."""

from __future__ import annotations

import re

import numpy as np
import pytest

from npu_backend.errors import EmulatorError
from npu_backend.runtime import Emulator
from tests.emulator.assembler import LOAD, NETWORK, STORE, VECTOR, Assembly

X = np.arange(64, dtype=np.uint8)


def run_checked(assembly: Assembly) -> None:
    with Emulator(assembly.build()) as emulator:
        inputs = {port.name: np.zeros(port.shape, port.dtype) for port in emulator.inputs}
        emulator.run(inputs, check=True)


def refused(assembly: Assembly, pattern: str) -> None:
    with pytest.raises(EmulatorError, match=f"^{pattern}"):
        run_checked(assembly)


def start() -> Assembly:
    return Assembly(cores=3).input("x", 0, (64,)).output("y", 64, (64,)).node("a")


def finish(assembly: Assembly, core: int, engine: int, spm: int, semaphore: int = 15) -> Assembly:
    return assembly.sync(semaphore, (core, engine), (core, STORE)).store(core, 64, spm, 64)


def test_read_after_write_between_engines() -> None:
    racy = finish(start().load(0, 0, 0, 64).node("b").copy(0, 0, 64, 64), 0, VECTOR, 64)
    refused(racy, re.escape("race on spm 0x0 of core 0: core 0 vector 0x0 COPY (node b) reads it and "
                            "core 0 load 0x0 LOAD (node a) writes it, and no semaphore orders them"))  # fmt: skip
    run_checked(finish(start().load(0, 0, 0, 64).sync(0, (0, LOAD), (0, VECTOR)).copy(0, 0, 64, 64), 0, VECTOR, 64))


def write_after_read(ordered: bool) -> Assembly:
    """A second LOAD reuses a buffer that COPY reads."""
    assembly = start().load(0, 0, 0, 64).sync(0, (0, LOAD), (0, VECTOR)).copy(0, 0, 256, 64).node("b")
    if ordered:
        assembly.sync(1, (0, VECTOR), (0, LOAD))
    return finish(assembly.load(0, 0, 32, 64), 0, VECTOR, 256)


def test_write_after_read_between_engines() -> None:
    refused(write_after_read(False), r"race on spm 0x\d+ of core 0: core 0 (load 0x\w+ LOAD|vector 0x\w+ COPY)")
    run_checked(write_after_read(True))


def write_after_write(ordered: bool) -> Assembly:
    assembly = start().load(0, 0, 0, 64).node("b")
    if ordered:
        assembly.sync(0, (0, LOAD), (0, VECTOR))
    return finish(assembly.fill(0, 0, 64), 0, VECTOR, 0)


def test_write_after_write_between_engines() -> None:
    refused(write_after_write(False), re.escape("race on spm 0x0 of core 0: core 0 vector 0x0 FILL (node b) writes it "
                                                "and core 0 load 0x0 LOAD (node a) writes it"))  # fmt: skip
    run_checked(write_after_write(True))


def through_another_core(*, ready: bool, taken: bool) -> Assembly:
    """Core 0 sends to core 1, which copies; then core 0 sends again into the same buffer."""
    assembly = start().load(0, 0, 0, 64).sync(0, (0, LOAD), (0, NETWORK)).send(0, 1, 0, 0, 64)
    if ready:
        assembly.sync(1, (0, NETWORK), (1, VECTOR))
    assembly.node("b").copy(1, 0, 64, 64)
    if taken:
        assembly.sync(2, (1, VECTOR), (0, NETWORK))
    return finish(assembly.send(0, 1, 0, 0, 64), 1, VECTOR, 64)


def test_across_cores() -> None:
    unwritten = re.escape("core 1 vector 0x0 COPY (node b) reads spm 0x0 of core 1, which nothing has written")
    refused(through_another_core(ready=False, taken=True), f"(race on spm 0x0 of core 1|{unwritten})")
    refused(through_another_core(ready=True, taken=False), "race on spm 0x0 of core 1: core [01] ")
    run_checked(through_another_core(ready=True, taken=True))


def through_dram(order: str) -> Assembly:
    """Core 0 stores to DRAM, core 1 loads it, core 0 stores there again; `order` has the syncs that are there."""
    assembly = start().fill(0, 0, 64).sync(0, (0, VECTOR), (0, STORE)).store(0, 512, 0, 64)
    if "ready" in order:
        assembly.sync(1, (0, STORE), (1, LOAD))
    assembly.node("b").load(1, 512, 0, 64)
    if "taken" in order:
        assembly.sync(2, (1, LOAD), (0, STORE))
    return finish(assembly.store(0, 512, 0, 64), 1, LOAD, 0)


def test_through_dram() -> None:
    refused(through_dram("taken"), "(race on dram 0x200|core 1 load 0x0 LOAD .* reads dram 0x200, which nothing)")
    refused(through_dram("ready"), "race on dram 0x200: core [01] (store|load)")
    run_checked(through_dram("ready taken"))


def two_writers(ordered: bool) -> Assembly:
    assembly = start().fill(0, 0, 64).sync(0, (0, VECTOR), (0, STORE)).store(0, 64, 0, 64)
    assembly.fill(1, 0, 64).sync(1, (1, VECTOR), (1, STORE))
    if ordered:
        assembly.sync(2, (0, STORE), (1, STORE))
    return assembly.store(1, 64 + 63, 0, 1)


def test_two_cores_write_dram() -> None:
    refused(two_writers(False), "race on dram 0x7f: core 1 store .* writes it and core 0 store .* writes it")
    run_checked(two_writers(True))


def test_neighbouring_bytes_do_not_race() -> None:
    """Two cores write odd and even bytes of the same words."""
    assembly = start()
    for core in range(2):
        assembly.fill(core, 0, 32).sync(core, (core, VECTOR), (core, STORE))
        assembly.store(core, 64 + core, 0, 1, counts=(1, 1, 1, 32), dram_strides=(0, 0, 0, 2), spm_strides=(0, 0, 0, 1))
    run_checked(assembly)


def test_many_readers_at_once() -> None:
    """All cores read a buffer at once; its next writer must wait for each of them."""
    for forgotten in (None, 0, 1, 2):
        assembly = start()
        for core in range(3):
            assembly.load(core, 0, 0, 64)
            if core != forgotten:
                assembly.sync(core, (core, LOAD), (0, STORE))
        assembly.fill(0, 64, 64).sync(5, (0, VECTOR), (0, STORE)).store(0, 0, 64, 64)
        finish(assembly, 1, LOAD, 0)
        if forgotten is None:
            run_checked(assembly)
        else:
            refused(assembly, f"race on dram 0x0: .*core {forgotten} load 0x0 LOAD")


def test_bytes_never_written() -> None:
    assembly = start().load(0, 0, 0, 63).sync(0, (0, LOAD), (0, VECTOR)).node("b").copy(0, 0, 64, 64)
    expected = "core 0 vector 0x10 COPY (node b) reads spm 0x3f of core 0, which nothing has written"
    refused(finish(assembly, 0, VECTOR, 64), re.escape(expected))
    refused(start().load(0, 256, 0, 64), re.escape("core 0 load 0x0 LOAD (node a) reads dram 0x100, which nothing"))


def test_outputs_never_written() -> None:
    assembly = start().load(0, 0, 0, 64).sync(0, (0, LOAD), (0, STORE)).store(0, 64, 0, 60)
    refused(assembly, "output y: nothing has written dram 0x7c")


def test_in_place_by_element() -> None:
    assembly = start().load(0, 0, 0, 64).load(0, 0, 512, 64, counts=(1, 1, 1, 4), spm_strides=(0, 0, 0, 64))
    assembly.sync(0, (0, LOAD), (0, VECTOR))
    strides = {"input_strides": (0, 0, 0, 1), "output_strides": (0, 0, 0, 1), "counts": (1, 1, 1, 64)}
    assembly.emit(0, VECTOR, "TABLE", input=0, output=0, table=512, **strides)
    run_checked(finish(assembly, 0, VECTOR, 0))


def barrier(reuse: bool, waits: int) -> Assembly:
    """Cores 1 and 2 signal one semaphore after their stores; core 0 waits for both, then loads what they stored.

    With `reuse` the same semaphore serves a second time, which is only sound because both wait in between.
    """
    assembly = start()
    for turn in range(1 + reuse):
        for core in (1, 2):
            assembly.fill(core, 0, 64).sync(core, (core, VECTOR), (core, STORE))
            assembly.store(core, 512 + 64 * core, 0, 64).signal(core, STORE, 5)
        assembly.wait(0, LOAD, *[5] * waits).load(0, 512 + 64, 0, 128).wait(0, LOAD, *[5] * (2 - waits))
        if reuse and turn == 0:
            for core in (1, 2):
                assembly.sync(5 + core, (0, LOAD), (core, VECTOR))
    return finish(assembly, 0, LOAD, 0)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_semaphore_with_several_signallers(reuse: bool) -> None:
    run_checked(barrier(reuse, 2))
    refused(barrier(reuse, 1), "race on dram 0x2[48]0|core 0 load .* which nothing has written")


def shared_tokens(ordered: bool) -> Assembly:
    """Cores 1 and 2 each wait for one token of core 0: either may take the first, so both only know of the first."""
    assembly = start().load(0, 0, 0, 64).sync(0, (0, LOAD), (0, NETWORK))
    if ordered:
        assembly.send(0, 1, 0, 0, 64).send(0, 2, 0, 0, 64).signal(0, NETWORK, 1, 1)
    else:
        assembly.send(0, 1, 0, 0, 64).signal(0, NETWORK, 1).send(0, 2, 0, 0, 64).signal(0, NETWORK, 1)
    for core in (1, 2):
        assembly.wait(core, VECTOR, 1).copy(core, 0, 64, 64)
    return finish(assembly, 1, VECTOR, 64)


def test_a_semaphore_with_several_waiters() -> None:
    run_checked(shared_tokens(True))
    refused(shared_tokens(False), "race on spm 0x0 of core 2|core 2 vector .* which nothing has written")


def test_double_buffering_with_counted_tokens() -> None:
    """The producer may run two buffers ahead; one token more at the start lets it overwrite what is being read."""
    for ahead in (2, 3):
        assembly = start().signal(0, VECTOR, *[1] * ahead)
        for turn in range(12):
            buffer = 64 * (turn % 2)
            assembly.wait(0, LOAD, 1).load(0, 0, buffer, 64).signal(0, LOAD, 0)
            assembly.wait(0, VECTOR, 0).copy(0, buffer, 256, 64).signal(0, VECTOR, 1)
        assembly.wait(0, VECTOR, *[1] * ahead)
        finish(assembly, 0, VECTOR, 256)
        if ahead == 2:
            run_checked(assembly)
        else:
            refused(assembly, r"race on spm 0x\w+ of core 0: core 0 (vector|load)")


def test_the_message_does_not_change_from_run_to_run() -> None:
    messages = set()
    with Emulator(write_after_read(False).build()) as emulator:
        for threads in (1, 2, 2, 1):
            with pytest.raises(EmulatorError) as caught:
                emulator.run([X], check=True, threads=threads)
            messages.add(str(caught.value))
    assert len(messages) == 1
