"""Kernels: native functions that a front end compiles, which run on the vector processors on scratchpad buffers.

An operator of the kind `kernel` is a function of whole tensors that can be had for any box of its output. The compiler
asks which boxes of its inputs that takes and what it costs; the front end makes native code of the boxes that became
tiles. Program files name kernels and hold no native code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from npu_backend.box import Box

# Operands of one kernel: its inputs, and its output.
MAX_OPERANDS = 8


@dataclass(frozen=True)
class KernelOperations:
    """What a call computes, each operation counted with the bytes of its data type, as vector lanes are.

    `simple_bytes`: arithmetic, comparisons, selections, conversions, and arithmetic of indices that are not affine.
    `special_bytes`: divisions, roots, exponentials and the like. `access_bytes`: loaded and stored.
    """

    simple_bytes: int
    special_bytes: int
    access_bytes: int

    def __add__(self, other: KernelOperations) -> KernelOperations:
        return KernelOperations(
            self.simple_bytes + other.simple_bytes,
            self.special_bytes + other.special_bytes,
            self.access_bytes + other.access_bytes,
        )


class TileFunction(Protocol):
    """A function of whole tensors that can be had for any box of its output.

    `name` is for texts; `shape` and `dtype` are the output's; `split_axes` are the axes of the output that cores and
    tiles may divide.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...

    @property
    def split_axes(self) -> tuple[int, ...]: ...

    def input_boxes(self, out_box: Box) -> tuple[Box, ...]:
        """For every input, the region that an output region needs, clipped to the tensor."""

    def operations(self, out_box: Box) -> KernelOperations:
        """What the region costs."""

    def reference(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """The whole output of whole inputs."""

    def symbol(self, kernel: Kernel) -> str:
        """The name of a kernel's native function, in C of the type ``int32_t (void *const *operands)``.

        `operands` are the addresses of the first elements of the kernel's boxes, the output's last; the function
        returns 0.
        """


@dataclass(frozen=True)
class Kernel:
    """A box of a function on operands that lie in memory in a certain way.

    `strides` are the byte strides of the inputs' boxes, then of the output's.
    """

    function: TileFunction
    out_box: Box
    strides: tuple[tuple[int, ...], ...]

    @property
    def symbol(self) -> str:
        """The native function's name."""
        return self.function.symbol(self)
