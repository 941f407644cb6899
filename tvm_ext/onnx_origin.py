"""Which nodes of the user's model a node of the cleaned one stands for, kept in the node itself.

A node that the clean-up has not made or merged stands for itself. Where several became one (a fused layer
normalisation), or one became several (the parts of a Split), the metadata of the node names the originals.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

_KEY = "npu.origin."

Origin = tuple[str, str]


def origins(node: onnx.NodeProto) -> tuple[Origin, ...]:
    """Name and operator type of the original nodes, in their order."""
    kept = tuple((entry.key[len(_KEY) :], entry.value) for entry in node.metadata_props if entry.key.startswith(_KEY))
    return kept or ((node.name, node.op_type),)


def inherit(made: onnx.NodeProto, sources: Iterable[onnx.NodeProto]) -> onnx.NodeProto:
    """`made`, standing for what `sources` stand for."""
    found = dict(origin for source in sources for origin in origins(source))
    del made.metadata_props[:]
    for name, op_type in found.items():
        made.metadata_props.add(key=f"{_KEY}{name}", value=op_type)
    return made
