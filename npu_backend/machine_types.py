"""The machine: cores, network, DRAM, synchronisation and energy, as a TOML file describes them.

`machine` reads and checks the files; nothing here knows a machine's numbers. Units are in the names: GB/s are
10^9 bytes a second, so one GB/s is one byte a nanosecond.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import ConfigDict, Field

from npu_backend.errors import OptionError
from npu_backend.isa import DATA_TYPES, DataType

PositiveFloat = Annotated[float, Gt(0)]
FloatFromZero = Annotated[float, Ge(0)]
Fraction = Annotated[float, Gt(0), Le(1)]
PositiveInt = Annotated[int, Gt(0), Le(2**31)]
IntFromZero = Annotated[int, Ge(0), Le(2**31)]
Name = Annotated[str, MinLen(1)]

# Read by the file's validator: unknown keys, strings for numbers and infinities are errors.
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class MacArray:
    """A matrix engine: it multiplies `input_channels x output_channels x pixels` pairs a cycle at int8."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    input_channels: PositiveInt
    output_channels: PositiveInt
    pixels: PositiveInt
    depthwise_channels: PositiveInt
    depthwise_pixels: PositiveInt
    # Of every block of output_channels x pixels sums: filling the array and draining its accumulators.
    fill_cycles: IntFromZero
    # Whether the taps of one kernel row share the input-channel lanes when the channels leave lanes free.
    folds_kernel_width: bool

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates a cycle at int8 when every lane is used."""
        return self.input_channels * self.output_channels * self.pixels


@dataclass(frozen=True)
class Rates:
    """Multiply-accumulate rate per data type relative to int8; 0 where the core cannot."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    int8: PositiveFloat
    int16: FloatFromZero
    float16: FloatFromZero


@dataclass(frozen=True)
class Core:
    """One core: MAC array, vector unit, scratchpad and DMA. `dma_bytes_per_cycle` holds for each direction."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: Name
    clock_mhz: PositiveFloat
    mac_array: MacArray
    rates: Rates
    vector_lanes: PositiveInt  # bytes a cycle
    channel_alignment: PositiveInt
    spm_bytes: PositiveInt
    spm_banks: PositiveInt
    # Transfers a DMA direction moves at a time; engines run in order, so one.
    dma_queues: Literal[1]
    dma_bytes_per_cycle: PositiveFloat
    dma_setup_cycles: IntFromZero
    memory_gb_per_s: PositiveFloat  # loads and stores together
    matrix_fill_cycles: IntFromZero
    vector_fill_cycles: IntFromZero

    @property
    def dma_gb_per_s(self) -> float:
        """Bytes a nanosecond of one DMA direction."""
        return self.dma_bytes_per_cycle * self.clock_mhz / 1000

    def peak_macs_per_ns(self, data_type: str = "int8") -> float:
        """Multiply-accumulates of a type a nanosecond at full use of the array."""
        return self.mac_array.macs_per_cycle * self.type_rates[DATA_TYPES[data_type]] * self.clock_mhz / 1000

    @property
    def type_rates(self) -> tuple[float, ...]:
        """Multiply-accumulate rate relative to int8, indexed by DataType, 0 where the core cannot."""
        return _per_type(self.rates.int8, self.rates.int16, self.rates.float16)


@dataclass(frozen=True, kw_only=True)
class _NetworkBase:
    """What every topology says."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    cores_reach_each_other: bool
    multicast: bool  # whether one transfer may feed several cores
    clock_mhz: PositiveFloat
    hop_latency_ns: FloatFromZero


@dataclass(frozen=True, kw_only=True)
class Bus(_NetworkBase):
    """One medium that all transfers share."""

    topology: Literal["bus"]
    bytes_per_cycle: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class Crossbar(_NetworkBase):
    """A link into and a link out of every core, no other contention inside."""

    topology: Literal["crossbar"]
    link_bytes_per_cycle: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class Ring(_NetworkBase):
    """Nodes 0..nodes-1 in a circle, a link each way; core i sits at node i, DRAM at `memory_nodes`."""

    topology: Literal["ring"]
    nodes: Annotated[int, Ge(3), Le(1024)]
    link_bytes_per_cycle: PositiveFloat
    memory_nodes: tuple[IntFromZero, ...]
    memory_port_gb_per_s: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class Mesh(_NetworkBase):
    """rows x columns nodes, numbered along rows; core i sits at node i, DRAM at `memory_nodes`."""

    topology: Literal["mesh"]
    rows: Annotated[int, Gt(0), Le(64)]
    columns: Annotated[int, Gt(0), Le(64)]
    link_bytes_per_cycle: PositiveFloat
    memory_nodes: tuple[IntFromZero, ...]
    memory_port_gb_per_s: PositiveFloat


@dataclass(frozen=True)
class Link:
    """A link between two nodes, both ways unless `one_way`. Nodes: cores, "dram", or switches named by links only."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    source: Name
    destination: Name
    bytes_per_cycle: PositiveFloat
    one_way: bool = False


@dataclass(frozen=True, kw_only=True)
class LinkList(_NetworkBase):
    """An explicit list of links."""

    topology: Literal["links"]
    links: tuple[Link, ...]


Network = Bus | Crossbar | Ring | Mesh | LinkList


@dataclass(frozen=True)
class Dram:
    """The memory behind the network; `efficiency` is the share of the peak that transfers can reach."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    bandwidth_gb_per_s: PositiveFloat
    efficiency: Fraction
    latency_ns: FloatFromZero
    burst_bytes: PositiveInt


@dataclass(frozen=True)
class Synchronization:
    """From the end of the work before a signal until the waiter may start, in one core and across cores."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    signal_ns: FloatFromZero
    cross_signal_ns: FloatFromZero


@dataclass(frozen=True)
class Energy:
    """Picojoules per event, and the power that flows whatever happens."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    mac_int8_pj: FloatFromZero
    mac_int16_pj: FloatFromZero
    mac_float16_pj: FloatFromZero
    vector_pj: FloatFromZero  # per element operation
    spm_pj_per_byte: FloatFromZero
    network_pj_per_byte_hop: FloatFromZero
    dram_pj_per_byte: FloatFromZero
    static_mw: FloatFromZero

    @property
    def mac_pj(self) -> tuple[float, ...]:
        """Picojoules of a multiply-accumulate, indexed by DataType."""
        return _per_type(self.mac_int8_pj, self.mac_int16_pj, self.mac_float16_pj)


@dataclass(frozen=True)
class Machine:
    """A whole machine; `machine.load_machine` makes one from a file."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: Name
    description: str
    cores: tuple[Core, ...]
    network: Annotated[Network, Field(discriminator="topology")]
    dram: Dram
    synchronization: Synchronization
    energy: Energy

    @property
    def computes_float(self) -> bool:
        """Whether every core multiplies float16 numbers, so that float operators may run here."""
        return all(core.rates.float16 > 0 for core in self.cores)

    def take(self, cores: int) -> Machine:
        """The machine with its first `cores` cores only; the network keeps all its nodes.

        Raises OptionError for no core or more than there are.
        """
        if 1 <= cores <= len(self.cores):
            return replace(self, cores=self.cores[:cores])
        have = len(self.cores)
        raise OptionError(f"machine {self.name} has {have} core{'s' if have > 1 else ''}, --cores {cores} asked; "
                          f"use 1{f'..{have}' if have > 1 else ''} or another machine")  # fmt: skip

    def with_spm_bytes(self, spm_bytes: int) -> Machine:
        """The machine with `spm_bytes` of scratchpad in every core.

        Raises OptionError when it is no positive multiple of a core's banks.
        """
        for core in self.cores:
            if spm_bytes <= 0 or spm_bytes % core.spm_banks or spm_bytes > 2**31:
                raise OptionError(f"{spm_bytes} bytes of scratchpad for core {core.name} of machine {self.name}; "
                                  f"use a multiple of its {core.spm_banks} banks from 1 to {2**31} bytes")  # fmt: skip
        return replace(self, cores=tuple(replace(core, spm_bytes=spm_bytes) for core in self.cores))


def _per_type(int8: float, int16: float, float16: float) -> tuple[float, ...]:
    """One number per DataType; the MAC array takes neither int32 nor float32."""
    known = {DataType.UINT8: int8, DataType.INT8: int8, DataType.INT16: int16, DataType.UINT16: int16,
             DataType.FLOAT16: float16}  # fmt: skip
    return tuple(known.get(data_type, 0.0) for data_type in DataType)
