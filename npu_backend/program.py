"""The program file: everything needed to run a compiled graph, versioned and checksummed.

A file is a header, a table of sections, then the sections. Sections are arrays of the fixed-width records below, or
plain bytes. The records are written once, here: the emulator's C header is generated from the same tables.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from npu_backend.errors import ProgramError
from npu_backend.isa import DATA_TYPES, ISA_VERSION, DataType, Engine, Field, parse_fields

FORMAT_VERSION = 5
MAGIC = int.from_bytes(b"NPUP", "little")
DRAM_NODE = 0xFFFFFFFF
MAX_RANK = 6


class Section(IntEnum):
    """What a section holds."""

    MACHINE = 1
    CORE = 2
    RESOURCE = 3
    PATH = 4
    PATH_STEP = 5
    PORT = 6
    STREAM = 7
    CODE = 8
    CONSTANTS = 9
    ORIGIN = 10
    NAMES = 11
    METADATA = 12
    KERNEL = 13


RECORDS: Mapping[str, tuple[Field, ...]] = {
    "header": parse_fields("""
        u32 magic
        u32 format_version
        u32 isa_version
        u32 checksum              CRC-32 of every byte after this field's 16-byte row
        u64 total_bytes
        u32 section_count
        u32 reserved
    """),
    "section": parse_fields("""
        u32 kind                  Section
        u32 count                 records, or bytes for plain sections when they fit, else 0
        u64 offset                from the start of the file, a multiple of 64
        u64 bytes
    """),
    "machine": parse_fields("""
        u64 dram_bytes            size of the DRAM image the program needs
        u32 core_count            cores the program uses
        u32 semaphore_count
        f64 dram_latency_ns
        f64 signal_ns             a semaphore signal between engines of one core
        f64 cross_signal_ns       a semaphore signal to another core
        u32 burst_bytes           DRAM moves whole bursts: each contiguous run is rounded up to these
        u32 multicast_group_count
        f64 mac_pj[12]             energy per multiply-accumulate, by DataType
        f64 vector_pj             energy per vector element operation
        f64 spm_pj_per_byte
        f64 network_pj_per_byte_hop
        f64 dram_pj_per_byte
        f64 static_mw
    """),
    "core": parse_fields("""
        f64 clock_mhz
        f64 rate[12]               multiply-accumulate rate relative to int8, by DataType; 0: not supported
        u64 spm_bytes
        u32 lanes_input_channels
        u32 lanes_output_channels
        u32 lanes_pixels
        u32 depthwise_channels    lanes of a depthwise convolution
        u32 depthwise_pixels
        u32 vector_lanes          bytes a cycle
        u32 matrix_fill_cycles    start of a matrix instruction until its first result
        u32 vector_fill_cycles
        u32 dma_setup_cycles
        u32 folds_kernel_width    1: taps of a kernel row share input lanes that the channels leave free
        u32 spm_banks             scratchpad words served a cycle
        u32 array_fill_cycles     of every block of sums in the array: filling, and draining the accumulators
    """),
    "resource": parse_fields("""
        f64 bytes_per_ns          capacity shared by the flows that cross it
        u32 name                  offset in NAMES
        u32 is_link               1: a link of the network; 0: DRAM, a port, a core's DMA
    """),
    "path": parse_fields("""
        u32 source                core, or 0xFFFFFFFF for DRAM
        u32 destination
        u32 first_step            index in PATH_STEP
        u32 step_count
        f64 latency_ns
        u32 hops                  network hops, for energy
        u32 reserved
    """),
    "path_step": parse_fields("u32 resource"),
    "port": parse_fields("""
        u64 dram                  byte offset of the dense tensor
        u32 name                  offset in NAMES
        u32 is_output
        u32 data_type
        u32 rank
        u32 host_shape[6]
        u32 storage_axes[6]       host axis i is storage axis storage_axes[i]
    """),
    "stream": parse_fields("""
        u32 core
        u32 engine                Engine
        u64 offset                in CODE
        u64 bytes
    """),
    "origin": parse_fields("u32 name  offset in NAMES of the operator's ONNX node"),
    "kernel": parse_fields("u32 name  offset in NAMES of the native function's symbol"),
}

_CODES = {"u32": "I", "i32": "i", "f32": "f", "u64": "Q", "f64": "d"}
RECORD_STRUCTS: Mapping[str, struct.Struct] = {
    name: struct.Struct("<" + "".join(f"{f.count}{_CODES[f.type]}" for f in fields)) for name, fields in RECORDS.items()
}
_CHECKSUM_START = 16
_ALIGNMENT = 64
_RECORD_OF = {
    Section.MACHINE: "machine", Section.CORE: "core", Section.RESOURCE: "resource", Section.PATH: "path",
    Section.PATH_STEP: "path_step", Section.PORT: "port", Section.STREAM: "stream", Section.ORIGIN: "origin",
    Section.KERNEL: "kernel",
}  # fmt: skip

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Port:
    """A program input or output as the host sees it; the tensor lies dense in DRAM in storage order."""

    name: str
    is_output: bool
    dtype: str
    host_shape: tuple[int, ...]
    storage_axes: tuple[int, ...]
    dram: int


@dataclass(frozen=True)
class Program:
    """A compiled graph: machine records, per-core per-engine code, initial DRAM bytes, ports, origins, metadata.

    `kernels`: symbols of the native functions that it calls, which are not in the file.
    """

    machine: Record
    cores: tuple[Record, ...]
    resources: tuple[Record, ...]
    paths: tuple[Record, ...]
    path_steps: tuple[int, ...]
    ports: tuple[Port, ...]
    streams: Mapping[tuple[int, Engine], bytes]
    constants: bytes
    origins: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    kernels: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The file's bytes; deterministic for equal programs."""
        return _Writer(self).file()

    @staticmethod
    def from_bytes(data: bytes) -> Program:
        """Reads a file.

        Raises ProgramError when it is cut short, corrupted or of another version.
        """
        return _Reader(data).program()


class _Writer:
    """Collects the name table and the sections of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.names = bytearray()
        self.offsets: dict[str, int] = {}

    def name(self, text: str) -> int:
        if text not in self.offsets:
            self.offsets[text] = len(self.names)
            self.names += text.encode() + b"\0"
        return self.offsets[text]

    def file(self) -> bytes:
        sections = [(kind, self._align(data)) for kind, data in self._sections()]
        table_bytes = RECORD_STRUCTS["header"].size + len(sections) * RECORD_STRUCTS["section"].size
        offset, rows = -(-table_bytes // _ALIGNMENT) * _ALIGNMENT, []
        for kind, (count, size, padded) in sections:
            rows.append(RECORD_STRUCTS["section"].pack(kind, count, offset, size))
            offset += len(padded)
        body = b"".join(rows).ljust(-(-table_bytes // _ALIGNMENT) * _ALIGNMENT - RECORD_STRUCTS["header"].size, b"\0")
        body += b"".join(padded for _, (_, _, padded) in sections)
        tail = struct.pack("<QII", offset, len(sections), 0)
        checksum = zlib.crc32(tail + body)
        return struct.pack("<IIII", MAGIC, FORMAT_VERSION, ISA_VERSION, checksum) + tail + body

    def _align(self, data: tuple[int, bytes]) -> tuple[int, int, bytes]:
        count, body = data
        return count, len(body), body.ljust(-(-len(body) // _ALIGNMENT) * _ALIGNMENT, b"\0")

    def _sections(self) -> list[tuple[Section, tuple[int, bytes]]]:
        program, code, streams = self.program, bytearray(), []
        for (core, engine), stream in sorted(program.streams.items()):
            streams.append({"core": core, "engine": engine, "offset": len(code), "bytes": len(stream)})
            code += stream
        records: list[tuple[Section, Sequence[Record]]] = [
            (Section.MACHINE, [program.machine]),
            (Section.CORE, program.cores),
            (Section.RESOURCE, [{**row, "name": self.name(row["name"])} for row in program.resources]),
            (Section.PATH, program.paths),
            (Section.PORT, [self._port(port) for port in program.ports]),
            (Section.STREAM, streams),
            (Section.ORIGIN, [{"name": self.name(text)} for text in program.origins]),
            (Section.KERNEL, [{"name": self.name(text)} for text in program.kernels]),
        ]
        packed = [(kind, (len(rows), b"".join(pack(_RECORD_OF[kind], row) for row in rows))) for kind, rows in records]
        steps = struct.pack(f"<{len(program.path_steps)}I", *program.path_steps)
        packed.append((Section.PATH_STEP, (len(program.path_steps), steps)))
        metadata = json.dumps(program.metadata, sort_keys=True, separators=(",", ":")).encode()
        plain = [(Section.CODE, bytes(code)), (Section.CONSTANTS, program.constants),
                 (Section.NAMES, bytes(self.names)), (Section.METADATA, metadata)]  # fmt: skip
        return packed + [(kind, (len(data) & 0xFFFFFFFF, data)) for kind, data in plain]

    def _port(self, port: Port) -> Record:
        rank = len(port.host_shape)
        pad = (0,) * (MAX_RANK - rank)
        return {
            "dram": port.dram, "name": self.name(port.name), "is_output": int(port.is_output),
            "data_type": DATA_TYPES[port.dtype], "rank": rank, "host_shape": (*port.host_shape, *pad),
            "storage_axes": (*port.storage_axes, *pad),
        }  # fmt: skip


def pack(record: str, values: Record) -> bytes:
    """Bytes of one record; a missing field is our own bug."""
    flat: list[Any] = []
    for entry in RECORDS[record]:
        value: Any = 0 if entry.name == "reserved" else values[entry.name]
        flat += [value] if entry.count == 1 else list(value)
    return RECORD_STRUCTS[record].pack(*flat)


def unpack(record: str, data: bytes, offset: int = 0) -> dict[str, Any]:
    """Field values of one record."""
    flat, values = list(RECORD_STRUCTS[record].unpack_from(data, offset)), {}
    for entry in RECORDS[record]:
        taken, flat = flat[: entry.count], flat[entry.count :]
        values[entry.name] = taken[0] if entry.count == 1 else tuple(taken)
    return values


class _Reader:
    """Checks a file's frame and reads its sections."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._check_frame()
        header = unpack("header", data)
        size = RECORD_STRUCTS["section"].size
        start = RECORD_STRUCTS["header"].size
        rows = [unpack("section", data, start + i * size) for i in range(header["section_count"])]
        self.sections = {row["kind"]: row for row in rows}

    def _check_frame(self) -> None:
        data = self.data
        if len(data) < RECORD_STRUCTS["header"].size or int.from_bytes(data[:4], "little") != MAGIC:
            raise ProgramError("not an NPU program: the file does not start with 'NPUP'")
        header = unpack("header", data)
        found = (header["format_version"], header["isa_version"])
        if found != (FORMAT_VERSION, ISA_VERSION):
            raise ProgramError(f"program of format {found[0]}, instruction set {found[1]}; this version reads "
                               f"{FORMAT_VERSION} and {ISA_VERSION}: compile the model again")  # fmt: skip
        if header["total_bytes"] != len(data):
            raise ProgramError(f"program cut short: {len(data)} of {header['total_bytes']} bytes; compile it again")
        if zlib.crc32(data[_CHECKSUM_START:]) != header["checksum"]:
            raise ProgramError("program corrupted: its checksum does not match; compile the model again")

    def section(self, kind: Section) -> bytes:
        row = self.sections[kind]
        return self.data[row["offset"] : row["offset"] + row["bytes"]]

    def records(self, kind: Section) -> list[dict[str, Any]]:
        name, data = _RECORD_OF[kind], self.section(kind)
        return [unpack(name, data, offset) for offset in range(0, len(data), RECORD_STRUCTS[name].size)]

    def program(self) -> Program:
        names, code = self.section(Section.NAMES), self.section(Section.CODE)

        def text(offset: int) -> str:
            return names[offset : names.index(b"\0", offset)].decode()

        return Program(
            machine=self.records(Section.MACHINE)[0],
            cores=tuple(self.records(Section.CORE)),
            resources=tuple({**row, "name": text(row["name"])} for row in self.records(Section.RESOURCE)),
            paths=tuple(self.records(Section.PATH)),
            path_steps=tuple(step for step, in struct.iter_unpack("<I", self.section(Section.PATH_STEP))),
            ports=tuple(_port(row, text(row["name"])) for row in self.records(Section.PORT)),
            streams={(row["core"], Engine(row["engine"])): code[row["offset"] : row["offset"] + row["bytes"]]
                     for row in self.records(Section.STREAM)},
            constants=self.section(Section.CONSTANTS),
            origins=tuple(text(row["name"]) for row in self.records(Section.ORIGIN)),
            metadata=json.loads(self.section(Section.METADATA)),
            kernels=tuple(text(row["name"]) for row in self.records(Section.KERNEL)),
        )  # fmt: skip


def _port(row: Record, name: str) -> Port:
    rank = row["rank"]
    dtype = DataType(row["data_type"]).name.lower()
    return Port(name, bool(row["is_output"]), dtype, row["host_shape"][:rank], row["storage_axes"][:rank], row["dram"])
