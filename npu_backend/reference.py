"""The whole graph in NumPy, operator by operator: slow, and the judge of every pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from npu_backend.graph import Graph
from npu_backend.ops import spec_of


def evaluate(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by host name, in the host's axis order; `inputs` likewise."""
    values = {name: graph.constants[name] for name in graph.constant_tensors}
    for port in graph.inputs:
        values[port.tensor] = np.transpose(inputs[port.host_name], np.argsort(port.storage_axes))
    for op in graph.ops:
        activations = [values[name] for name in graph.activations(op)]
        values[op.output] = spec_of(op).reference(graph, op, activations)
    return {port.host_name: np.transpose(values[port.tensor], port.storage_axes) for port in graph.outputs}
