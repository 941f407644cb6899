"""Small machines in round numbers and programs for them: at 1000 MHz a cycle is a nanosecond, a GB/s a byte of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.encoding import encode_all
from npu_backend.isa import FORMAT_BY_NAME, DataType, Engine, Instruction
from npu_backend.machine import Core, Crossbar, Dram, Energy, MacArray, Machine, Network, Rates, Synchronization
from npu_backend.network import MachineRecords, machine_records
from npu_backend.program import Program
from npu_backend.runtime import Emulator, Timing

Streams = Mapping[tuple[int, Engine], Sequence[Instruction]]
Spans = Mapping[tuple[int, Engine], npt.NDArray[np.float64]]

SPM_BYTES = 1 << 20
ARRAY = MacArray(input_channels=16, output_channels=16, pixels=4, depthwise_channels=16, depthwise_pixels=4,
                 fill_cycles=0, folds_kernel_width=False)  # fmt: skip
CORE = Core(
    name="core", clock_mhz=1000, mac_array=ARRAY, rates=Rates(1, 0.25, 0), vector_lanes=32, channel_alignment=16,
    spm_bytes=SPM_BYTES, spm_banks=8, dma_queues=1, dma_bytes_per_cycle=100, dma_setup_cycles=10, memory_gb_per_s=10,
    matrix_fill_cycles=7, vector_fill_cycles=3,
)  # fmt: skip
NETWORK = Crossbar(topology="crossbar", cores_reach_each_other=True, multicast=False, clock_mhz=1000, hop_latency_ns=2,
                   link_bytes_per_cycle=50)  # fmt: skip
ENERGY = Energy(mac_int8_pj=1, mac_int16_pj=4, mac_float16_pj=4, vector_pj=2, spm_pj_per_byte=3,
                network_pj_per_byte_hop=5, dram_pj_per_byte=7, static_mw=11)  # fmt: skip


def machine(cores: int = 1, network: Network = NETWORK, core: Core = CORE, dram_gb_per_s: float = 20) -> Machine:
    """Equal cores; DRAM with 100 ns of latency and bursts of 64 bytes; signals of 5 and 50 ns."""
    return Machine("test", "", tuple(replace(core, name=f"core{index}") for index in range(cores)), network,
                   Dram(dram_gb_per_s, 1, 100, 64), Synchronization(5, 50), ENERGY)  # fmt: skip


def instruction(name: str, **values: Any) -> Instruction:
    """An instruction whose fields are 0 (arrays: 1 for counts) unless given."""
    defaults = {
        field.name: 0 if field.count == 1 else ((1,) if "counts" in field.name else (0,)) * field.count
        for field in FORMAT_BY_NAME[name].fields
    }
    assert not set(values) - set(defaults), (name, set(values) - set(defaults))
    return Instruction(name, {**defaults, **values})


def load(size: int, dram: int = 0, spm: int = 0, **values: Any) -> Instruction:
    return instruction("LOAD", run_bytes=size, dram=dram, spm=spm, **values)


def store(size: int, dram: int = 0, spm: int = 0, **values: Any) -> Instruction:
    return instruction("STORE", run_bytes=size, dram=dram, spm=spm, **values)


def send(size: int, core: int, spm: int = 0, destination_spm: int = 0) -> Instruction:
    return instruction("SEND", run_bytes=size, destination_core=core, spm=spm, destination_spm=destination_spm)


def load_multicast(group: int, size: int, dram: int = 0, spm: int = 0, **values: Any) -> Instruction:
    return instruction("LOAD_MULTICAST", group=group, run_bytes=size, dram=dram, spm=spm, **values)


def send_multicast(group: int, size: int, *cores: int, spm: int = 0) -> list[Instruction]:
    """One after the other, as a stream must have them."""
    return [instruction("SEND_MULTICAST", group=group, run_bytes=size, destination_core=core, spm=spm)
            for core in cores]  # fmt: skip


def wait(semaphore: int) -> Instruction:
    return instruction("WAIT", semaphore=semaphore)


def signal(semaphore: int) -> Instruction:
    return instruction("SIGNAL", semaphore=semaphore)


def fill(size: int, output: int = 0) -> Instruction:
    return instruction("FILL", output=output, element_bytes=1, counts=(1, 1, 1, size), output_strides=(0, 0, 0, 1))


def conv(height: int, width: int, inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), *,
         data_type: DataType = DataType.INT8, **values: Any) -> Instruction:  # fmt: skip
    """A convolution of stride 1 without padding; `height` and `width` are the output's."""
    rows, columns = kernel
    return instruction("CONV", **_window(height, width, inputs, outputs, rows, columns, data_type), **values)


def depthwise(height: int, width: int, channels: int, kernel: tuple[int, int]) -> Instruction:
    return instruction("DEPTHWISE", **_window(height, width, channels, channels, *kernel, DataType.INT8))


def _window(height: int, width: int, inputs: int, outputs: int, rows: int, columns: int,
            data_type: DataType) -> dict[str, int]:  # fmt: skip
    wide = width + columns - 1
    return {
        "input_row_bytes": wide * inputs, "input_column_bytes": inputs, "input_height": height + rows - 1,
        "input_width": wide, "input_channels": inputs, "output": SPM_BYTES // 2, "output_row_bytes": width * outputs,
        "output_column_bytes": outputs, "output_height": height, "output_width": width, "output_channels": outputs,
        "kernel_height": rows, "kernel_width": columns, "stride_height": 1, "stride_width": 1, "dilation_height": 1,
        "dilation_width": 1, "input_type": data_type, "output_type": data_type, "clamp_low": -128, "clamp_high": 127,
        "weights": SPM_BYTES // 4, "parameters": 3 * SPM_BYTES // 4,
        "block_bytes": 128 + rows * columns * 16 * -(-inputs // 4) * 4,
    }  # fmt: skip


def assemble(records: MachineRecords, streams: Streams) -> bytes:
    """The file of a program without ports."""
    program = Program(
        machine={**records.machine, "dram_bytes": 1 << 24, "semaphore_count": _count(streams, "semaphore"),
                 "multicast_group_count": _count(streams, "group")},
        cores=records.cores, resources=records.resources, paths=records.paths, path_steps=records.path_steps, ports=(),
        streams={place: encode_all(rows) for place, rows in streams.items()}, constants=b"", origins=("node",),
    )  # fmt: skip
    return program.to_bytes()


def _count(streams: Streams, field: str) -> int:
    used = [step.values[field] for rows in streams.values() for step in rows if field in step.values]
    return max((number for number in used if isinstance(number, int)), default=-1) + 1


def replay_records(records: MachineRecords, streams: Streams) -> tuple[Timing, Spans]:
    """The timing of a program and, per stream, its instructions' [start, stop] in nanoseconds."""
    with Emulator(assemble(records, streams)) as emulator:
        timing = emulator.time(spans=True)
    assert timing.spans is not None
    spans, first = {}, 0
    for place in sorted(streams):
        spans[place] = timing.spans[first : first + len(streams[place])]
        first += len(streams[place])
    return timing, spans


def replay(on: Machine, streams: Streams) -> tuple[Timing, Spans]:
    """As `replay_records`, for a machine."""
    return replay_records(machine_records(on), streams)
