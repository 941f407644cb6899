"""The machine: cores, network, DRAM, synchronisation and energy, as a TOML file describes them.

The networks are in `network_types`. `machine` reads and checks the files; nothing here knows a machine's numbers.
Units are in the names: GB/s are 10^9 bytes a second, so one GB/s is one byte a nanosecond.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt, Le
from pydantic import ConfigDict, Field

from npu_backend.errors import OptionError
from npu_backend.isa import DATA_TYPES, DataType
from npu_backend.network_types import STRICT, FloatFromZero, IntFromZero, Name, Network, PositiveFloat, PositiveInt

Fraction = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True)
class MacArray:
    """A matrix engine: it multiplies `input_channels x output_channels x pixels` pairs a cycle at int8."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

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

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    int8: PositiveFloat
    int16: FloatFromZero
    float16: FloatFromZero


@dataclass(frozen=True)
class Core:
    """One core: MAC array, vector unit, scratchpad and DMA. `dma_bytes_per_cycle` holds for each direction."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

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


@dataclass(frozen=True)
class Dram:
    """The memory behind the network; `efficiency` is the share of the peak that transfers can reach."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    bandwidth_gb_per_s: PositiveFloat
    efficiency: Fraction
    latency_ns: FloatFromZero
    burst_bytes: PositiveInt


@dataclass(frozen=True)
class Synchronization:
    """From the end of the work before a signal until the waiter may start, in one core and across cores."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    signal_ns: FloatFromZero
    cross_signal_ns: FloatFromZero


@dataclass(frozen=True)
class Energy:
    """Picojoules per event, and the power that flows whatever happens."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

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

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

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
