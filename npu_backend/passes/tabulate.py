"""Tabulate: element-wise operators on one 8-bit tensor and constant numbers become tables of all 256 codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from npu_backend.graph import Graph, Op
from npu_backend.ops import spec_of
from npu_backend.ops.numerics_core import byte_values


def tabulate(graph: Graph) -> Graph:
    """The same function; a table costs a look-up an element, whatever it holds."""
    constants = dict(graph.constants)
    ops = []
    for op in graph.ops:
        table = _table(graph, op)
        if table is None:
            ops.append(op)
            continue
        name = f"{op.output}.table"
        assert name not in constants, name
        constants[name] = table.view(np.uint8)
        ops.append(replace(op, kind="table", inputs=(_computed(graph, op)[0], name), attributes=None))
    return replace(graph, constants=constants, ops=tuple(ops))


def _computed(graph: Graph, op: Op) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in graph.activations(op) if name not in graph.constants))


def _table(graph: Graph, op: Op) -> np.ndarray | None:
    """The operator's result for every code, None where it is no such function."""
    computed, output = _computed(graph, op), graph.tensor(op.output)
    if op.kind != "binary" or len(computed) != 1 or output.itemsize != 1:
        return None
    x = graph.tensor(computed[0])
    numbers = [graph.constants[name] for name in graph.activations(op) if name in graph.constants]
    is_byte_code = x.itemsize == 1 and x.quantization is not None
    if not is_byte_code or x.shape != output.shape or any(number.size != 1 for number in numbers):
        return None
    every = byte_values(x.dtype)
    inputs = [graph.constants[name].reshape(1) if name in graph.constants else every for name in graph.activations(op)]
    return np.ascontiguousarray(spec_of(op).reference(graph, op, inputs))
