"""The clock: every expected figure is summed by hand beside it. One cycle is one nanosecond (see replay.py)."""

from __future__ import annotations

import contextlib
import random
import zlib
from dataclasses import replace

import pytest

from npu_backend.cost import CostModel
from npu_backend.errors import EmulatorError, NpuError
from npu_backend.isa import DataType, Engine
from npu_backend.machine import load_machine as load_shipped
from npu_backend.machine import machine_names
from npu_backend.network import machine_records
from npu_backend.runtime import Emulator
from tests.emulator.replay import (
    NETWORK,
    assemble,
    conv,
    fill,
    instruction,
    load,
    machine,
    replay,
    replay_records,
    send,
    signal,
    store,
    wait,
)

LOAD, STORE, NETWORK_DMA, MATRIX, VECTOR = Engine.LOAD, Engine.STORE, Engine.NETWORK, Engine.MATRIX, Engine.VECTOR
TRANSFER = 10 + 2 + 100  # set-up, one hop, DRAM


def test_one_load() -> None:
    timing, spans = replay(machine(), {(0, LOAD): [load(640)]})
    assert spans[0, LOAD].tolist() == [[0, TRANSFER + 640 / 10]]  # the core's memory port gives 10 bytes/ns
    assert timing.total_ns == TRANSFER + 64
    core = timing.cores[0]
    assert (core.dram_bytes, core.dram_read_bytes, core.network_bytes) == (640, 640, 0)
    assert (core.busy_ns, core.sync_ns, core.idle_ns) == (TRANSFER + 64, 0, 0)


def test_short_runs_move_whole_bursts() -> None:
    strided = load(10, counts=(1, 1, 1, 4), dram_strides=(0, 0, 0, 1000), spm_strides=(0, 0, 0, 10))
    timing, _ = replay(machine(), {(0, LOAD): [strided]})
    assert timing.total_ns == pytest.approx(TRANSFER + 4 * 64 / 10)
    assert timing.cores[0].dram_bytes == 40


def test_contiguous_steps_are_one_run() -> None:
    dense = load(10, counts=(1, 1, 8, 4), dram_strides=(0, 0, 40, 10), spm_strides=(0, 0, 40, 10))
    timing, _ = replay(machine(), {(0, LOAD): [dense]})
    assert timing.total_ns == pytest.approx(TRANSFER + 320 / 10)


def test_transfers_of_an_engine_follow_each_other() -> None:
    _, spans = replay(machine(), {(0, LOAD): [load(640), load(64)]})
    assert spans[0, LOAD].tolist() == [[0, 176], [176, 176 + TRANSFER + 6.4]]


def test_load_and_store_share_the_memory_port() -> None:
    _, spans = replay(machine(), {(0, LOAD): [load(640)], (0, STORE): [store(1280, dram=4096)]})
    # 5 bytes/ns each until the load ends at 112 + 128; the store has 640 bytes left then, at 10.
    assert spans[0, LOAD].tolist() == [[0, 240]]
    assert spans[0, STORE].tolist() == [[0, 240 + 64]]


def test_cores_contend_for_dram() -> None:
    timing, spans = replay(machine(4), {(core, LOAD): [load(640)] for core in range(4)})
    assert all(span.tolist() == [[0, TRANSFER + 640 / 5]] for span in spans.values())  # 20 bytes/ns among four
    assert timing.total_ns == 240


def test_send_crosses_both_links_and_no_dram() -> None:
    timing, spans = replay(machine(2), {(0, NETWORK_DMA): [send(500, core=1)]})
    assert spans[0, NETWORK_DMA].tolist() == [[0, 10 + 2 + 500 / 50]]  # no bursts
    assert (timing.cores[0].network_bytes, timing.cores[0].dram_bytes) == (500, 0)


def test_two_senders_share_the_receivers_link() -> None:
    _, spans = replay(machine(3), {(0, NETWORK_DMA): [send(500, core=2)],
                                   (1, NETWORK_DMA): [send(500, core=2, destination_spm=500)]})  # fmt: skip
    assert [span.tolist() for span in spans.values()] == [[[0, 12 + 500 / 25]]] * 2


def test_send_without_a_path_is_refused() -> None:
    isolated = machine(2, network=replace(NETWORK, cores_reach_each_other=False))
    with pytest.raises(NpuError, match=r"core 0 network .*SEND.*node.*path"):
        replay(isolated, {(0, NETWORK_DMA): [send(64, core=1)]})


def test_a_pipeline_by_hand() -> None:
    timing, spans = replay(machine(), {
        (0, LOAD): [load(640), signal(0)],
        (0, MATRIX): [wait(0), conv(4, 4, 16, 16), signal(1)],
        (0, STORE): [wait(1), store(256, dram=4096, spm=1 << 19)],
    })  # fmt: skip
    loaded = 176
    started = loaded + 5  # the signal's way
    computed = started + 11
    stored = computed + 5 + TRANSFER + 25.6
    assert spans[0, LOAD].tolist() == [[0, loaded], [loaded, loaded]]
    assert spans[0, MATRIX].tolist() == [[0, started], [started, computed], [computed, computed]]
    assert spans[0, STORE].tolist() == [[0, computed + 5], [computed + 5, pytest.approx(stored)]]
    core = timing.cores[0]
    assert timing.total_ns == pytest.approx(stored)
    assert core.sync_ns == 0
    assert core.idle_ns == pytest.approx(5 + 5)  # nothing works while a signal travels
    assert (core.matrix_busy_ns, core.vector_busy_ns, core.macs) == (11, 0, 16 * 16 * 16)


def test_waiting_for_another_core_is_synchronisation() -> None:
    timing, spans = replay(machine(2), {
        (0, VECTOR): [fill(32), fill(320), signal(0)],  # 4 + 13
        (1, VECTOR): [fill(32), wait(0), fill(32)],  # 4, until 17 + 50, 4
    })  # fmt: skip
    assert spans[1, VECTOR].tolist() == [[0, 4], [4, 67], [67, 71]]
    first, second = timing.cores
    assert (first.busy_ns, first.sync_ns, first.idle_ns) == (17, 0, 71 - 17)
    assert (second.busy_ns, second.sync_ns, second.idle_ns) == (8, 63, 0)


def test_no_synchronisation_time_while_another_engine_works() -> None:
    timing, _ = replay(machine(2), {
        (0, VECTOR): [fill(320), signal(0)],  # 13, so the signal arrives at 63
        (1, VECTOR): [wait(0), fill(32)],
        (1, MATRIX): [conv(4, 4, 16, 16, (3, 3))],  # 36 + 7 = 43
    })  # fmt: skip
    assert (timing.cores[1].busy_ns, timing.cores[1].sync_ns) == (43 + 4, 63 - 43)


def test_waiters_are_served_in_the_order_they_came() -> None:
    _, spans = replay(machine(), {
        (0, LOAD): [load(640), signal(0), signal(0)],
        (0, MATRIX): [conv(4, 4, 16, 16), wait(0)],  # comes second, at 11
        (0, VECTOR): [wait(0), fill(32)],
    })  # fmt: skip
    assert spans[0, VECTOR].tolist() == [[0, 181], [181, 185]]
    assert spans[0, MATRIX].tolist() == [[0, 11], [11, 181]]


def test_a_signal_before_its_wait_is_kept() -> None:
    _, spans = replay(machine(), {(0, LOAD): [signal(0)], (0, VECTOR): [fill(320), wait(0), fill(32)]})
    assert spans[0, VECTOR].tolist() == [[0, 13], [13, 13], [13, 17]]


def test_deadlock_names_the_waiters() -> None:
    streams = {(0, MATRIX): [wait(0), signal(1)], (0, VECTOR): [fill(32), wait(1), signal(0)]}
    with pytest.raises(EmulatorError, match=r"(?s)matrix.*vector"):
        replay(machine(), streams)


def test_energy_by_hand() -> None:
    timing, _ = replay(machine(2), {
        (0, LOAD): [load(100)],  # 128 bytes of bursts in DRAM, one hop; 100 in the scratchpad
        (0, NETWORK_DMA): [send(50, core=1, spm=512)],  # 50 read, 50 written, one hop
        (1, MATRIX): [conv(4, 4, 16, 16)],
        (1, VECTOR): [fill(32)],
    })  # fmt: skip
    transfers = 128 * 7 + 100 * 3 + 128 * 5 + (50 + 50) * 3 + 50 * 5
    spm_bytes = 16 * 16 + 16 * 16 + 128 + 16 * 16  # input, weights, parameters, output
    assert timing.cores[0].energy_pj == pytest.approx(transfers)
    assert timing.cores[1].energy_pj == pytest.approx(16**3 * 1 + spm_bytes * 3 + 32 * 2 + 32 * 3)
    static = timing.total_ns * 11
    assert timing.energy_pj == pytest.approx(sum(core.energy_pj for core in timing.cores) + static)


def test_empty_program_takes_no_time() -> None:
    timing, _ = replay(machine(2), {})
    assert (timing.total_ns, timing.energy_pj, timing.events) == (0, 0, 0)


def test_replays_are_equal() -> None:
    streams = {(core, LOAD): [load(64 * (1 + core + step), dram=64 * step) for step in range(50)] for core in range(3)}
    first, second = (replay(load_shipped("exynos2100"), streams)[0] for _ in range(2))
    assert first.spans is not None
    assert second.spans is not None
    assert first.total_ns == second.total_ns
    assert (first.spans == second.spans).all()


@pytest.mark.parametrize("name", machine_names())
def test_cost_model_and_clock_agree_on_a_lone_transfer(name: str) -> None:
    on = load_shipped(name)
    cost = CostModel(on)
    for core in range(len(on.cores)):
        # Two thirds of the last burst are padding.
        timing, _ = replay(on, {(core, LOAD): [load(4117)]})
        assert timing.total_ns == pytest.approx(cost.transfer_ns(core, 4117, 4117))
        timing, _ = replay(on, {(core, STORE): [store(4117)]})
        assert timing.total_ns == pytest.approx(cost.transfer_ns(core, 4117, 4117, store=True))
        other = (core + 1) % len(on.cores)
        if cost.reaches(core, other):
            timing, _ = replay(on, {(core, NETWORK_DMA): [send(4117, core=other)]})
            assert timing.total_ns == pytest.approx(cost.transfer_ns(core, 4117, 4117, to_core=other))


def test_rows_by_index_take_the_time_of_their_bytes() -> None:
    """Of a table of 100 rows of 200 bytes three are moved: 12 bursts of 64 bytes for 600, whichever they are."""
    step = instruction("LOAD_ROWS", index_count=3, index_type=DataType.INT32, extent=100, input_step_bytes=200,
                       output_step_bytes=200, run_bytes=200, output=256, counts=(1, 1, 1))  # fmt: skip
    cost = CostModel(machine())
    timing, _ = replay(machine(), {(0, LOAD): [step]})
    assert timing.total_ns == pytest.approx(cost.rows_ns(0, step))
    assert timing.total_ns == pytest.approx(cost.transfer_ns(0, 600, 200))
    assert (timing.cores[0].dram_bytes, timing.cores[0].dram_read_bytes) == (600, 600)


def test_cost_of_transfers_that_share_dram() -> None:
    cost = CostModel(machine(4))
    assert cost.transfer_ns(0, 640, 640, sharers=2) == pytest.approx(TRANSFER + 64)  # 20 / 2 is all the port takes
    assert cost.transfer_ns(0, 640, 640, sharers=4) == pytest.approx(TRANSFER + 640 / 5)
    assert cost.transfer_ns(0, 40, 10) == pytest.approx(TRANSFER + 25.6)  # four bursts
    assert cost.transfer_ns(0, 45, 10) == pytest.approx(TRANSFER + 32)  # and one for the rest
    assert (cost.signal_ns(0, 0), cost.signal_ns(0, 1)) == (5, 50)


def test_a_core_without_banks_is_refused() -> None:
    records = machine_records(machine())
    broken = records._replace(cores=({**records.cores[0], "spm_banks": 0},))
    with pytest.raises(NpuError, match="banks"):
        replay_records(broken, {(0, VECTOR): [fill(32)]})


@pytest.mark.parametrize("seed", range(20))
def test_damaged_programs_end_with_a_time_or_a_message(seed: int) -> None:
    """Bytes changed and the checksum mended: whatever opens is replayed to an end."""
    rng = random.Random(seed)
    original = assemble(machine_records(load_shipped("ring4")), {
        (0, LOAD): [load(640), signal(0), load(64, spm=1024, counts=(1, 1, 2, 3), spm_strides=(0, 0, 256, 64))],
        (0, VECTOR): [wait(0), fill(32), signal(1)],
        (1, NETWORK_DMA): [wait(1), send(64, core=3)],
    })  # fmt: skip
    for _ in range(40):
        data = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 2, 0x7F, 0xFF, rng.randrange(256)])
        data[12:16] = zlib.crc32(data[16:]).to_bytes(4, "little")
        with contextlib.suppress(NpuError), Emulator(bytes(data)) as emulator:
            assert emulator.time().total_ns >= 0
