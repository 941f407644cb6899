"""Whether a machine's MAC arrays take the data types of a graph."""

from __future__ import annotations

import numpy as np

from npu_backend.errors import UnsupportedError
from npu_backend.graph import Graph, Op
from npu_backend.isa import DATA_TYPES
from npu_backend.machine import load_machine, machine_names
from npu_backend.machine_types import Machine
from npu_backend.ops import spec_of
from npu_backend.stages import Fused


def check_rates(graph: Graph, machine: Machine) -> None:
    """Raises UnsupportedError for the first operator whose multiply-accumulates a core has no rate for."""
    for op in graph.ops:
        dtype = multiplied_type(graph, op)
        lacking = [core.name for core in machine.cores if not core.type_rates[DATA_TYPES[dtype]]]
        if lacking and spec_of(op).macs(graph, op):
            able = ", ".join(machines_for(dtype)) or "none shipped"
            raise UnsupportedError(
                f"{op.kind} {op.name} multiplies {dtype}, for which {machine.name} has no rate (core {lacking[0]}):"
                f" choose a machine that has one ({able}), or quantise the model with --quantize int8"
            )


def least_ns(fused: Fused, machine: Machine) -> float:
    """Nanoseconds that the multiply-accumulates take at the peak rate of all cores: no plan is faster."""
    total = 0.0
    for op in (op for layer in fused.layers for op in layer.ops):
        if macs := spec_of(op).macs(fused.graph, op):
            total += macs / sum(core.peak_macs_per_ns(multiplied_type(fused.graph, op)) for core in machine.cores)
    return total


def multiplied_type(graph: Graph, op: Op) -> str:
    """The data type that the MAC array gets of the operator's tensors: floats count as float16, codes as the widest."""
    dtypes = [graph.tensor(name).dtype for name in graph.activations(op)] or [graph.tensor(op.output).dtype]
    if any(dtype.startswith("float") for dtype in dtypes):
        return "float16"
    return max(dtypes, key=lambda dtype: np.dtype(dtype).itemsize)


def machines_for(dtype: str) -> tuple[str, ...]:
    """The shipped machines whose cores all multiply a data type."""
    return tuple(
        name for name in machine_names() if all(core.type_rates[DATA_TYPES[dtype]] for core in load_machine(name).cores)
    )
