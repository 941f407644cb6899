"""Small programs by hand: cores with 32 KiB of scratchpad, paths between all of them and DRAM, any instruction."""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from npu_backend.encoding import encode_all
from npu_backend.isa import DATA_TYPES, FORMAT_BY_NAME, Engine, Instruction
from npu_backend.program import DRAM_NODE, Port, Program, Record

SPM_BYTES = 1 << 15
DRAM_BYTES = 1 << 16
_TYPES = len(DATA_TYPES)

LOAD, STORE, NETWORK, MATRIX, VECTOR = Engine


def contiguous(run: int, *counts: int) -> dict[str, tuple[int, ...]]:
    """Counts and strides of four axes over a dense array of `run`-byte elements."""
    counts = (1,) * (4 - len(counts)) + counts
    strides = [run]
    for count in reversed(counts[1:]):
        strides.append(strides[-1] * count)
    return {"counts": counts, "strides": tuple(reversed(strides))}


def instruction(name: str, origin: int = 0, **values: Any) -> Instruction:
    """Fields that are not given are 0; counts are 1."""
    defaults = {
        entry.name: 0 if entry.count == 1 else ((1,) if "counts" in entry.name else (0,)) * entry.count
        for entry in FORMAT_BY_NAME[name].fields
    }
    assert set(values) <= set(defaults), (name, set(values) - set(defaults))
    return Instruction(name, {**defaults, **values}, origin)


@dataclass
class Assembly:
    """Collects streams and ports; every method returns the assembly, so calls chain."""

    cores: int = 2
    constants: bytes = b""
    spm_bytes: int = SPM_BYTES
    semaphores: int = 16
    groups: int = 4
    nodes: list[str] = field(default_factory=lambda: ["start"])
    kernels: list[str] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)
    streams: dict[tuple[int, Engine], list[Instruction]] = field(default_factory=lambda: defaultdict(list))

    def node(self, name: str) -> Assembly:
        """Instructions from here on come from this ONNX node."""
        self.nodes.append(name)
        return self

    def emit(self, core: int, engine: Engine, name: str, **values: Any) -> Assembly:
        self.streams[core, engine].append(instruction(name, len(self.nodes) - 1, **values))
        return self

    def load(self, core: int, dram: int, spm: int, run_bytes: int, **more: Any) -> Assembly:
        return self.emit(core, LOAD, "LOAD", dram=dram, spm=spm, run_bytes=run_bytes, **more)

    def store(self, core: int, dram: int, spm: int, run_bytes: int, **more: Any) -> Assembly:
        return self.emit(core, STORE, "STORE", dram=dram, spm=spm, run_bytes=run_bytes, **more)

    def send(self, core: int, to: int, spm: int, destination_spm: int, run_bytes: int, **more: Any) -> Assembly:
        return self.emit(core, NETWORK, "SEND", destination_core=to, spm=spm, destination_spm=destination_spm,
                         run_bytes=run_bytes, **more)  # fmt: skip

    def load_multicast(self, core: int, group: int, dram: int, spm: int, run_bytes: int, **more: Any) -> Assembly:
        return self.emit(core, LOAD, "LOAD_MULTICAST", group=group, dram=dram, spm=spm, run_bytes=run_bytes, **more)

    def send_multicast(self, core: int, group: int, to: int, spm: int, destination_spm: int, run_bytes: int,
                       **more: Any) -> Assembly:  # fmt: skip
        return self.emit(core, NETWORK, "SEND_MULTICAST", group=group, destination_core=to, spm=spm,
                         destination_spm=destination_spm, run_bytes=run_bytes, **more)  # fmt: skip

    def fill(self, core: int, spm: int, size: int, value: int = 0) -> Assembly:
        return self.emit(core, VECTOR, "FILL", output=spm, element_bytes=1, counts=(1, 1, 1, size),
                         output_strides=(0, 0, 0, 1), value=value)  # fmt: skip

    def copy(self, core: int, source: int, target: int, size: int) -> Assembly:
        return self.emit(core, VECTOR, "COPY", input=source, output=target, element_bytes=1, counts=(1, 1, 1, size),
                         input_strides=(0, 0, 0, 1), output_strides=(0, 0, 0, 1))  # fmt: skip

    def wait(self, core: int, engine: Engine, *semaphores: int) -> Assembly:
        for semaphore in semaphores:
            self.emit(core, engine, "WAIT", semaphore=semaphore)
        return self

    def signal(self, core: int, engine: Engine, *semaphores: int) -> Assembly:
        for semaphore in semaphores:
            self.emit(core, engine, "SIGNAL", semaphore=semaphore)
        return self

    def sync(self, semaphore: int, before: tuple[int, Engine], after: tuple[int, Engine]) -> Assembly:
        """What `before` did so far happens before what `after` does from here on."""
        return self.signal(*before, semaphore).wait(*after, semaphore)

    def port(self, name: str, dram: int, shape: tuple[int, ...], dtype: str = "uint8",
             axes: tuple[int, ...] | None = None, *, is_output: bool = False) -> Assembly:  # fmt: skip
        order = tuple(range(len(shape))) if axes is None else axes
        self.ports.append(Port(name, is_output, dtype, shape, order, dram))
        return self

    def input(self, name: str, dram: int, shape: tuple[int, ...], dtype: str = "uint8",
              axes: tuple[int, ...] | None = None) -> Assembly:  # fmt: skip
        return self.port(name, dram, shape, dtype, axes)

    def output(self, name: str, dram: int, shape: tuple[int, ...], dtype: str = "uint8",
               axes: tuple[int, ...] | None = None) -> Assembly:  # fmt: skip
        return self.port(name, dram, shape, dtype, axes, is_output=True)

    def program(self) -> Program:
        places = [*range(self.cores), DRAM_NODE]
        paths = [{"source": source, "destination": destination, "first_step": 0, "step_count": 1, "latency_ns": 10.0,
                  "hops": 1} for source, destination in permutations(places, 2)]  # fmt: skip
        return Program(
            machine=self._machine(), cores=(self._core(),) * self.cores,
            resources=({"bytes_per_ns": 16.0, "name": "dram", "is_link": 0},), paths=tuple(paths), path_steps=(0,),
            ports=tuple(self.ports), streams={place: encode_all(rows) for place, rows in self.streams.items()},
            constants=self.constants, origins=tuple(self.nodes),
            kernels=tuple(self.kernels),
        )  # fmt: skip

    def build(self) -> bytes:
        return self.program().to_bytes()

    def _machine(self) -> Record:
        return {
            "dram_bytes": DRAM_BYTES, "core_count": self.cores, "semaphore_count": self.semaphores,
            "multicast_group_count": self.groups,
            "dram_latency_ns": 100.0, "signal_ns": 5.0, "cross_signal_ns": 50.0, "burst_bytes": 64,
            "mac_pj": (1.0,) * _TYPES, "vector_pj": 1.0, "spm_pj_per_byte": 1.0, "network_pj_per_byte_hop": 1.0,
            "dram_pj_per_byte": 1.0, "static_mw": 1.0,
        }  # fmt: skip

    def _core(self) -> Record:
        return {
            "clock_mhz": 1000.0, "rate": (1.0,) * _TYPES, "spm_bytes": self.spm_bytes, "lanes_input_channels": 16,
            "lanes_output_channels": 16, "lanes_pixels": 4, "depthwise_channels": 16, "depthwise_pixels": 4,
            "vector_lanes": 32, "matrix_fill_cycles": 7, "vector_fill_cycles": 3, "dma_setup_cycles": 10,
            "folds_kernel_width": 0, "spm_banks": 8, "array_fill_cycles": 0,
        }  # fmt: skip


def with_checksum(data: bytes) -> bytes:
    """The file with the checksum that its bytes call for."""
    return data[:12] + struct.pack("<I", zlib.crc32(data[16:])) + data[16:]
