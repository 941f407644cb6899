"""What exporters spell out becomes the one operator it means: layer and root-mean-square normalisation, Gelu.

Only where every constant is the right one. The operator takes the name of the last node that it replaces; in reports it
stands for all of them (`onnx_origin`). Its value is the last node's; no other value inside may be read from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_graph import Nodes, producers_of, readers_of
from tvm_ext.onnx_origin import inherit


@dataclass(frozen=True)
class View:
    """The nodes of a model as a matcher sees them; `shapes` are the static extents that are known."""

    nodes: Sequence[onnx.NodeProto]
    constants: Constants
    shapes: Mapping[str, tuple[int, ...]]
    producers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, Sequence[onnx.NodeProto]]

    @staticmethod
    def of(nodes: Nodes, constants: Constants, shapes: Mapping[str, tuple[int, ...]]) -> View:
        """Indexes the nodes."""
        return View(nodes, constants, shapes, producers_of(nodes), readers_of(nodes))

    def made_by(self, name: str, *op_types: str) -> onnx.NodeProto | None:
        """The node behind a value if it has one of these types."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in op_types and not node.domain else None

    def number(self, name: str) -> float | None:
        """A constant of one element."""
        if name not in self.constants or self.constants.element_count(name) != 1:
            return None
        return float(self.constants[name].reshape(()))


@dataclass(frozen=True)
class Fused:
    """One operator and the nodes it replaces, the last of which makes its value."""

    node: onnx.NodeProto
    replaced: Nodes


Matcher = Callable[[onnx.NodeProto, View], Fused | None]


def fuse(nodes: Nodes, view: View, pinned: frozenset[str], matchers: Sequence[Matcher]) -> Nodes:
    """The nodes with every match replaced; `pinned` values stay."""
    replacement: dict[str, onnx.NodeProto] = {}
    gone: set[str] = set()
    # From the end, so that a match with scale and offset comes before the one without.
    for node in reversed(nodes):
        if node.name in gone:
            continue
        for fused in _matches(node, view, matchers):
            names = {old.name for old in fused.replaced}
            if gone.isdisjoint(names) and _is_closed(fused, view, pinned):
                gone |= names
                replacement[node.name] = _finished(fused, node, view)
                break
    return [replacement.get(node.name, node) for node in nodes if node.name in replacement or node.name not in gone]


def _matches(node: onnx.NodeProto, view: View, matchers: Sequence[Matcher]) -> Iterator[Fused]:
    for matcher in matchers:
        fused = matcher(node, view)
        if fused is not None:
            yield fused


def _is_closed(fused: Fused, view: View, pinned: frozenset[str]) -> bool:
    names = {node.name for node in fused.replaced}
    inner = [name for node in fused.replaced for name in node.output if name not in fused.node.output]
    outside = (reader for name in inner for reader in view.readers.get(name, ()) if reader.name not in names)
    return pinned.isdisjoint(inner) and next(outside, None) is None


def _finished(fused: Fused, last: onnx.NodeProto, view: View) -> onnx.NodeProto:
    fused.node.name = last.name
    names = {node.name for node in fused.replaced}
    return inherit(fused.node, (node for node in view.nodes if node.name in names))
