"""DMA instructions: boxes and constants between DRAM, scratchpads and cores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npu_backend.graph import Tensor
from npu_backend.ops.base import Address, LoweredInstruction, Operand, dense_strides
from npu_backend.ops.strided import runs


def load_box(tensor: Tensor, base: int, target: Operand) -> tuple[LoweredInstruction, ...]:
    """Loads of the target's box from the tensor, which lies dense at DRAM byte `base`."""
    return _dram_transfer("LOAD", tensor, base, target)


def store_box(tensor: Tensor, base: int, source: Operand) -> tuple[LoweredInstruction, ...]:
    """Stores of the source's box into the tensor, which lies dense at DRAM byte `base`."""
    return _dram_transfer("STORE", tensor, base, source)


def _dram_transfer(name: str, tensor: Tensor, base: int, operand: Operand) -> tuple[LoweredInstruction, ...]:
    dram_strides = dense_strides(tensor.shape, tensor.itemsize)
    start = base + sum(low * stride for low, stride in zip(operand.box.starts, dram_strides))
    lowered = []
    sides = (dram_strides, operand.strides)
    for run, counts, (dram_steps, spm_steps), (dram, spm) in runs(operand.box.shape, sides, tensor.itemsize):
        lowered.append(LoweredInstruction(name, {
            "dram": start + dram, "spm": operand.address + spm, "run_bytes": run, "counts": counts,
            "dram_strides": dram_steps, "spm_strides": spm_steps,
        }))  # fmt: skip
    return tuple(lowered)


def send_box(source: Operand, targets: Sequence[tuple[Operand, int]]) -> tuple[LoweredInstruction, ...]:
    """Sends of the source's box to the same box in other cores' scratchpads, a run for all of them before the next."""
    item = int(np.dtype(source.dtype).itemsize)
    sides = (source.strides, *(target.strides for target, _ in targets))
    lowered = []
    for run, counts, (own, *strides), (own_offset, *offsets) in runs(source.box.shape, sides, item):
        for (target, core), there, offset in zip(targets, strides, offsets):
            lowered.append(LoweredInstruction("SEND", {
                "destination_core": core, "spm": source.address + own_offset,
                "destination_spm": target.address + offset, "run_bytes": run, "counts": counts,
                "spm_strides": own, "destination_strides": there,
            }))  # fmt: skip
    return tuple(lowered)


def constant_load(
    base: int, row_bytes: int, rows: tuple[int, int], columns: tuple[int, int], target: Address
) -> tuple[LoweredInstruction, ...]:
    """A load of some columns of some rows of a packed constant, dense into the target."""
    count, width = rows[1] - rows[0], columns[1] - columns[0]
    pattern = next(runs((count, width), ((row_bytes, 1), (width, 1)), 1))
    run, counts, (dram_steps, spm_steps), _ = pattern
    return (LoweredInstruction("LOAD", {
        "dram": base + rows[0] * row_bytes + columns[0], "spm": target, "run_bytes": run, "counts": counts,
        "dram_strides": dram_steps, "spm_strides": spm_steps,
    }),)  # fmt: skip
