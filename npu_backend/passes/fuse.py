"""Fuse: element-wise operators join the layer whose output they alone read.

The sums of a convolution then go through activation and residual add tile by tile, without leaving the scratchpad.
"""

from __future__ import annotations

from npu_backend.graph import Graph, Op
from npu_backend.ops import spec_of
from npu_backend.stages import Fused, Layer


def fuse(graph: Graph) -> Fused:
    """Groups the operators into layers; a layer stands where its last operator stood."""
    groups: dict[str, list[Op]] = {}
    for op in graph.ops:
        group = groups.pop(_producer(graph, op, groups) or "", [])
        groups[op.output] = [*group, op]
    return Fused(graph, tuple(Layer(tuple(group)) for group in groups.values()))


def _producer(graph: Graph, op: Op, groups: dict[str, list[Op]]) -> str | None:
    """The input whose layer `op` joins: of those that only `op` reads, the one computed last."""
    if not spec_of(op).is_elementwise:
        return None
    result = graph.tensor(op.output)
    position = {name: index for index, name in enumerate(groups)}
    candidates = [
        name
        for name in graph.activations(op)
        if name in groups and graph.consumers[name] == (op,) and name not in graph.output_names
        and op.inputs.count(name) == 1 and graph.tensor(name).shape == result.shape
    ]  # fmt: skip
    return max(candidates, key=position.__getitem__, default=None)
