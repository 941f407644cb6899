"""DRAM: which tensors have a place there, and where."""

from __future__ import annotations

from npu_backend.stages import DramLayout, Resident, Tiled, aligned


def stored_tensors(resident: Resident) -> frozenset[str]:
    """Tensors whose layers store all of their output: graph outputs, and what some reader takes from DRAM."""
    fused = resident.partitioned.fused
    stored = set(fused.graph.output_names)
    for layer in fused.layers:
        for index in fused.readers.get(layer.output, ()):
            if resident.in_scratchpad(layer.output, index) is None:
                stored.add(layer.output)
    return frozenset(stored)


def lay_out_dram(tiled: Tiled) -> DramLayout:
    """Constants and constant tensors first, as the program file holds them, then what may be moved, dense."""
    fused, offset = tiled.resident.partitioned.fused, 0
    constants: dict[tuple[str, int], int] = {}
    for layer in fused.layers:
        for op in layer.ops:
            for index, constant in enumerate(fused.constants[op.output]):
                constants[op.output, index] = offset
                offset += aligned(constant.rows.size)
    tensors: dict[str, int] = {}
    for name in fused.graph.constant_tensors:
        tensors[name] = offset
        offset += aligned(fused.graph.tensor(name).size_bytes)
    constant_bytes = offset
    for name in [port.tensor for port in fused.graph.inputs] + [layer.output for layer in fused.layers]:
        tensors[name] = offset
        offset += aligned(fused.graph.tensor(name).size_bytes)
    return DramLayout(constants, tensors, constant_bytes, offset)
