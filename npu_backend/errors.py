"""What a user can mend, one class per cause; every message names the numbers and what to change.

`assert` is for our own bugs and is never turned into one of these.
"""

from __future__ import annotations


class NpuError(Exception):
    """Base of every error that is the user's to mend; the command line prints it and exits with code 2."""


class MachineError(NpuError):
    """A machine description that is missing, malformed or contradicts itself."""


class ModelError(NpuError):
    """A model that cannot be read or is not valid: truncated, not ONNX, dynamic shapes without values."""


class UnsupportedError(NpuError):
    """An operator or a form of it that the NPU does not run and that cannot stay on the host."""


class CapacityError(NpuError):
    """A plan that cannot fit: carries the demand, the bound and the lever."""


class InputError(NpuError):
    """A run's inputs or outputs do not match the model: name, shape or data type."""


class OptionError(NpuError):
    """A command-line option, target option or strategy that does not exist or contradicts another."""


class ProgramError(NpuError):
    """A program or package that is corrupted, of another version, or refused by the emulator."""


class EmulatorError(NpuError):
    """A program that trapped: the message names the core, the engine, the instruction and the operator."""


class ToolchainError(NpuError):
    """No C compiler, or one that failed; says what to install."""


class OutputError(NpuError):
    """A file that could not be written whole; nothing half-written is left behind."""


class DoesNotFitError(Exception):
    """Inside the compiler: a layer's tiles or a schedule's buffers do not fit a core's scratchpad.

    The fit pass then keeps less in the scratchpads and tries again; a user only ever sees its CapacityError.
    """

    def __init__(self, layer_index: int, core: int, demand_bytes: int, room_bytes: int) -> None:
        super().__init__(f"layer {layer_index} core {core}: {demand_bytes} > {room_bytes} bytes")
        self.layer_index, self.core = layer_index, core
        self.demand_bytes, self.room_bytes = demand_bytes, room_bytes
