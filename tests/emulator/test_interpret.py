"""Functional execution: transfers, semaphores, deadlock, imbalance, threads, ports."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import numpy as np
import pytest

from npu_backend.errors import EmulatorError
from npu_backend.runtime import Emulator
from tests.emulator.assembler import LOAD, MATRIX, NETWORK, STORE, VECTOR, Assembly, instruction

X = np.arange(256, dtype=np.uint8)


def passed_on() -> Assembly:
    """x goes to core 0, is copied there, sent to core 1, and stored from there."""
    return (
        Assembly()
        .input("x", 0, (256,))
        .output("y", 1024, (256,))
        .node("first")
        .load(0, 0, 0, 256)
        .sync(0, (0, LOAD), (0, VECTOR))
        .copy(0, 0, 512, 256)
        .sync(1, (0, VECTOR), (0, NETWORK))
        .node("second")
        .send(0, 1, 512, 64, 256)
        .sync(2, (0, NETWORK), (1, STORE))
        .store(1, 1024, 64, 256)
    )


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("check", [False, True])
def test_through_all_memories(threads: int, check: bool) -> None:
    with Emulator(passed_on().build()) as emulator:
        for _ in range(3):
            outputs = emulator.run({"x": X}, threads=threads, check=check)
            np.testing.assert_array_equal(outputs["y"], X)


def test_spm_peak_is_the_highest_byte_touched() -> None:
    with Emulator(passed_on().build()) as emulator:
        assert [emulator.spm_peak_bytes(core) for core in range(2)] == [512 + 256, 64 + 256]
        assert emulator.core_count == 2
        assert emulator.instruction_count == 4 + 2 * 3


def test_strided_transfer_is_the_numpy_slice() -> None:
    """LOAD takes rows 1:4, columns 2:7 and channels 1:3 of [6, 9, 4]; STORE writes them spread out."""
    whole = np.arange(6 * 9 * 4, dtype=np.uint8).reshape(6, 9, 4)
    part = whole[1:4, 2:7, 1:3]
    assembly = Assembly().input("x", 0, whole.shape).output("y", 4096, (3, 5, 4))
    assembly.load(
        0, 9 * 4 + 2 * 4 + 1, 0, 2, counts=(1, 1, 3, 5), dram_strides=(0, 0, 36, 4), spm_strides=(0, 0, 10, 2)
    )
    assembly.fill(0, 100, 60).sync(1, (0, VECTOR), (0, STORE)).store(0, 4096, 100, 60)
    assembly.sync(0, (0, LOAD), (0, STORE))
    assembly.store(0, 4096, 0, 2, counts=(1, 1, 3, 5), dram_strides=(0, 0, 20, 4), spm_strides=(0, 0, 10, 2))
    expected = np.zeros((3, 5, 4), np.uint8)
    expected[..., :2] = part
    with Emulator(assembly.build()) as emulator:
        np.testing.assert_array_equal(emulator.run([whole], check=True)["y"], expected)


def test_load_may_broadcast_by_a_zero_stride() -> None:
    assembly = Assembly().input("x", 0, (4,)).output("y", 64, (12,))
    assembly.load(0, 0, 0, 4, counts=(1, 1, 1, 3), spm_strides=(0, 0, 0, 4))
    assembly.sync(0, (0, LOAD), (0, STORE)).store(0, 64, 0, 12)
    with Emulator(assembly.build()) as emulator:
        np.testing.assert_array_equal(emulator.run([X[:4]], check=True)["y"], np.tile(X[:4], 3))


def test_constants_are_the_start_of_dram() -> None:
    constants = bytes(range(100))
    assembly = Assembly(constants=constants).output("y", 128, (90,)).output("raw", 0, (100,))
    assembly.load(0, 10, 0, 90).sync(0, (0, LOAD), (0, STORE)).store(0, 128, 0, 90)
    with Emulator(assembly.build()) as emulator:
        outputs = emulator.run({}, check=True)
    assert outputs["y"].tobytes() == constants[10:]
    assert outputs["raw"].tobytes() == constants


DTYPES = ["uint8", "int8", "int16", "int32", "float16", "float32"]


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("dtype", DTYPES)
def test_ports_permute_axes(axes: tuple[int, ...], dtype: str) -> None:
    """Host axis i is storage axis axes[i]; the tensor is identified by its storage bytes in a second port."""
    shape = (3, 37, 41)
    size = np.dtype(dtype).itemsize
    tensor = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    stored = np.ascontiguousarray(tensor.transpose(np.argsort(axes)))
    program = Assembly().input("x", 0, shape, dtype, axes).output("y", 0, shape, dtype, axes)
    program.output("storage", 0, stored.shape, dtype).output("bytes", 0, (stored.size * size,), "uint8")
    with Emulator(program.build()) as emulator:
        outputs = emulator.run({"x": tensor})
    np.testing.assert_array_equal(outputs["y"], tensor)
    np.testing.assert_array_equal(outputs["storage"], stored)
    assert outputs["bytes"].tobytes() == stored.tobytes()


@pytest.mark.parametrize(("shape", "axes"), [((), ()), ((1,), (0,)), ((1, 3, 8, 8), (0, 3, 1, 2)),
                                             ((2, 1, 3, 1, 5, 2), (5, 3, 1, 0, 2, 4))])  # fmt: skip
def test_ports_of_other_ranks(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    tensor = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    stored = tensor.transpose(np.argsort(axes)) if axes else tensor
    program = Assembly().input("x", 0, shape, axes=axes).output("storage", 0, stored.shape)
    with Emulator(program.build()) as emulator:
        np.testing.assert_array_equal(emulator.run({"x": tensor})["storage"], stored)


def test_deadlock_says_who_waits_for_whom() -> None:
    assembly = Assembly().node("conv").wait(0, LOAD, 3).signal(0, LOAD, 4)
    assembly.node("add").wait(1, VECTOR, 4).signal(1, VECTOR, 3).wait(1, MATRIX, 5)
    with Emulator(assembly.build()) as emulator:
        for check in (False, True):
            with pytest.raises(EmulatorError) as caught:
                emulator.run({}, check=check)
            assert str(caught.value).splitlines() == [
                "deadlock: 3 of 3 streams wait and none can go on",
                "  core 0 load 0x0 WAIT (node conv) waits on semaphore 3 for core 1 vector 0x10 SIGNAL (node add)",
                "  core 1 matrix 0x0 WAIT (node add) waits on semaphore 5 for nobody: no SIGNAL of it is left",
                "  core 1 vector 0x0 WAIT (node add) waits on semaphore 4 for core 0 load 0x10 SIGNAL (node conv)",
            ]


@pytest.mark.parametrize("threads", [1, 2])
def test_deadlock_of_many_streams_is_cut_short(threads: int) -> None:
    assembly = Assembly(cores=8)
    for core in range(8):
        for engine in (LOAD, STORE, NETWORK, MATRIX, VECTOR):
            assembly.wait(core, engine, 1)
    with Emulator(assembly.build()) as emulator, pytest.raises(EmulatorError, match=r"(?s)40 of 40.*and \d+ more$"):
        emulator.run({}, threads=threads)


@pytest.mark.parametrize("check", [False, True])
def test_imbalance_names_signallers_and_waiters(check: bool) -> None:
    assembly = Assembly().node("conv").signal(0, LOAD, 7, 7).node("add").wait(1, VECTOR, 7)
    with Emulator(assembly.build()) as emulator, pytest.raises(EmulatorError) as caught:
        emulator.run({}, check=check)
    assert str(caught.value) == (
        "semaphore 7 is 1 at the end, not zero: 2 signals, first by core 0 load 0x0 SIGNAL (node conv); "
        "1 waits, first by core 1 vector 0x0 WAIT (node add)"
    )


def ring(cores: int, laps: int) -> Assembly:
    """A token that is copied and sent around; every core adds a copy, so each wait matters."""
    assembly = Assembly(cores=cores, semaphores=3 * cores).input("x", 0, (64,)).output("y", 64, (64,))
    assembly.load(0, 0, 0, 64).sync(0, (0, LOAD), (0, VECTOR))
    for step in range(laps * cores):
        core, following = step % cores, (step + 1) % cores
        assembly.copy(core, 0, 64, 64).sync(cores + core, (core, VECTOR), (core, NETWORK))
        assembly.send(core, following, 64, 0, 64).sync(2 * cores + core, (core, NETWORK), (following, VECTOR))
    return assembly.sync(1, (0, VECTOR), (0, STORE)).store(0, 64, 0, 64)


@pytest.mark.parametrize("threads", [1, 2, 4, 16])
def test_a_long_chain_of_semaphores(threads: int) -> None:
    with Emulator(ring(4, 50).build()) as emulator:
        for _ in range(20):
            np.testing.assert_array_equal(emulator.run([X[:64]], threads=threads)["y"], X[:64])
        np.testing.assert_array_equal(emulator.run([X[:64]], check=True)["y"], X[:64])


def test_independent_cores_agree_for_any_threads() -> None:
    assembly = Assembly(cores=4, semaphores=64).input("x", 0, (4, 256)).output("y", 4096, (4, 256))
    for core in range(4):
        for turn in range(40):
            assembly.load(core, 256 * core, 512 * (turn % 2), 256).sync(4 * core, (core, LOAD), (core, VECTOR))
            assembly.copy(core, 512 * (turn % 2), 2048, 256).sync(4 * core + 1, (core, VECTOR), (core, LOAD))
        assembly.sync(4 * core + 2, (core, VECTOR), (core, STORE)).store(core, 4096 + 256 * core, 2048, 256)
    x = np.random.default_rng(0).integers(0, 255, (4, 256), np.uint8)
    with Emulator(assembly.build()) as emulator:
        for threads in (1, 2, 3, 8):
            np.testing.assert_array_equal(emulator.run([x], threads=threads)["y"], x)
        emulator.run([x], check=True)


def test_two_emulators_in_two_threads() -> None:
    program = ring(3, 30).build()

    def run(seed: int) -> None:
        x = np.random.default_rng(seed).integers(0, 255, 64, np.uint8)
        with Emulator(program) as emulator:
            for _ in range(30):
                np.testing.assert_array_equal(emulator.run([x], threads=2)["y"], x)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(4)))


def test_one_emulator_from_two_threads() -> None:
    with Emulator(ring(3, 30).build()) as emulator, ThreadPoolExecutor(2) as pool:
        inputs = [np.full(64, seed, np.uint8) for seed in range(20)]
        for x, outputs in zip(inputs, pool.map(lambda x: emulator.run([x]), inputs), strict=True):
            np.testing.assert_array_equal(outputs["y"], x)


def resize_with_table(rows: list[tuple[int, int, float, float]]) -> bytes:
    """A nearest or bilinear resize of [2, 1, 1] to [len(rows), 1, 1] with the row table given as constants."""
    table = b"".join(
        np.array(row[:2], np.uint32).tobytes() + np.array(row[2:], np.float32).tobytes()
        for row in [*rows, (0, 0, 1, 0)]
    )
    assembly = Assembly(constants=table).input("x", 1024, (2,)).output("y", 2048, (len(rows),)).node("resize")
    assembly.load(0, 0, 256, len(table)).load(0, 1024, 0, 2).sync(0, (0, LOAD), (0, VECTOR))
    assembly.emit(0, VECTOR, "RESIZE", input=0, input_row_bytes=1, input_column_bytes=1, output=16, output_row_bytes=1,
                  output_column_bytes=1, input_height=2, input_width=1, output_height=len(rows), output_width=1,
                  channels=1, row_table=256, column_table=256 + 16 * len(rows), function=1, row_taps=2, column_taps=2,
                  input_scale=1.0,
                  output_scale=1.0)  # fmt: skip
    return assembly.sync(1, (0, VECTOR), (0, STORE)).store(0, 2048, 16, len(rows)).build()


def test_resize_tables_are_checked_when_they_are_used() -> None:
    x = np.array([10, 20], np.uint8)
    with Emulator(resize_with_table([(0, 1, 0.5, 0.5), (1, 9, 1.0, 0.0)])) as emulator:
        np.testing.assert_array_equal(emulator.run([x])["y"], [15, 20])
    with (
        Emulator(resize_with_table([(0, 2, 0.5, 0.5)])) as emulator,
        pytest.raises(EmulatorError, match=r"core 0 vector 0x10 RESIZE \(node resize\): a table names a source row"),
    ):
        emulator.run([x])


def test_instructions_default_to_zero_fields() -> None:
    assert instruction("LOAD").values["counts"] == (1, 1, 1, 1)
    assert instruction("FILL", value=3).values["value"] == 3
