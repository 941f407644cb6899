"""ONNX's If without control flow: the branch that a constant condition chooses, else both branches and Where.

Partitioning knows no control flow, and operators have no effects, so that computing both is the same. A branch that
cannot run on the shapes of this model's inputs is one that no valid run takes, so that the other one holds. What was
inside carries the If's name before its own; the Where that chooses stands for the If in reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import helper

from npu_backend.errors import UnsupportedError
from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_graph import Nodes, attribute
from tvm_ext.onnx_origin import inherit

Shapes = Mapping[str, tuple[int, ...]]
# Folds constants, which decides conditions, and tells the shapes it knows; asked to be strict, it raises InferenceError
# for shapes that contradict each other.
Settle = Callable[[Nodes, bool], tuple[Nodes, Shapes]]


@dataclass
class Branches:
    """Takes the Ifs out of a list of nodes, those inside others last."""

    constants: Constants
    settle: Settle
    strict: bool = False
    choices: list[tuple[str, str, str]] = field(default_factory=list)

    def settled(self, nodes: Nodes) -> Nodes:
        """The nodes without any If."""
        while any(map(_is_if, nodes)):
            nodes, _ = self.settle(nodes, self.strict)
            nodes = self.inline(nodes)
        return nodes

    def inline(self, nodes: Sequence[onnx.NodeProto]) -> Nodes:
        """One round: the Ifs whose condition is constant, or all where none is; each makes nodes, maybe Ifs again."""
        constant = {node.name for node in nodes if _is_if(node) and node.input[0] in self.constants}
        result: Nodes = []
        for node in nodes:
            if not _is_if(node) or (constant and node.name not in constant):
                result.append(node)
            elif constant:
                result += self._chosen(node)
            else:
                result += self._possible(node, [other for other in nodes if other is not node])
        return result

    def check(self, shapes: Shapes) -> None:
        """Raises UnsupportedError where two branches give tensors of different shapes, which one value cannot hold."""
        for name, left, right in self.choices:
            if left in shapes and right in shapes and shapes[left] != shapes[right]:
                raise UnsupportedError(f"If {name!r}: one branch gives {list(shapes[left])}, the other"
                                       f" {list(shapes[right])}; export the model with the same shape from both"
                                       )  # fmt: skip

    def _chosen(self, node: onnx.NodeProto) -> Nodes:
        return self._one(node, "then_branch" if self.constants[node.input[0]].all() else "else_branch")

    def _possible(self, node: onnx.NodeProto, others: Nodes) -> Nodes:
        runs = [branch for branch in ("then_branch", "else_branch") if self._runs(node, branch, others)]
        return self._one(node, runs[0]) if len(runs) == 1 else self._both(node)

    def _runs(self, node: onnx.NodeProto, branch: str, others: Nodes) -> bool:
        """Whether ONNX's shape inference finds nothing against a branch; what follows the If says nothing of it."""
        trial = Branches(self.constants, self.settle, strict=True)
        nodes, _ = self._body(node, branch)
        try:
            trial.settle(trial.settled([*_before(node, others), *nodes]), True)
        except onnx.shape_inference.InferenceError as error:
            # An operator that ONNX does not know is another error.
            return "ShapeInferenceError" not in str(error)
        return True

    def _one(self, node: onnx.NodeProto, branch: str) -> Nodes:
        nodes, outputs = self._body(node, branch)
        return [*nodes, *(_made("Identity", node, i, [name]) for i, name in enumerate(outputs))]

    def _both(self, node: onnx.NodeProto) -> Nodes:
        (then, lefts), (other, rights) = self._body(node, "then_branch"), self._body(node, "else_branch")
        chosen = []
        for index, (left, right) in enumerate(zip(lefts, rights, strict=True)):
            self.choices.append((node.name, left, right))
            chosen.append(_made("Where", node, index, [node.input[0], left, right]))
        return [*then, *other, *chosen]

    def _body(self, node: onnx.NodeProto, branch: str) -> tuple[Nodes, list[str]]:
        """The nodes of a branch and what it gives, under names of their own."""
        graph, prefix = attribute(node, branch, None), f"{node.name}/{branch.removesuffix('_branch')}"
        inner = [tensor.name for tensor in graph.initializer] + [name for n in graph.node for name in n.output if name]
        names = {name: f"{prefix}/{name}" for name in inner}
        for tensor in graph.initializer:
            self.constants.take(names[tensor.name], tensor)
        nodes = [_renamed(inside, names) for inside in graph.node]
        for index, inside in enumerate(nodes):
            inside.name = f"{prefix}/{inside.name or f'{inside.op_type}_{index}'}"
        return nodes, [names.get(value.name, value.name) for value in graph.output]


def without_branches(nodes: Nodes, constants: Constants, settle: Settle) -> Nodes:
    """The nodes without any If.

    Raises UnsupportedError where the branches of an If give tensors of different shapes.
    """
    branches = Branches(constants, settle)
    nodes = branches.settled(nodes)
    if branches.choices:
        nodes, shapes = settle(nodes, False)
        branches.check(shapes)
    return nodes


def _before(node: onnx.NodeProto, others: Nodes) -> Nodes:
    """The nodes that `node` and the graphs inside it can read from, without other Ifs and what follows them."""
    made: set[str] = set(node.output)
    kept = []
    for other in others:
        if _is_if(other) or not made.isdisjoint(other.input):
            made.update(other.output)
        else:
            kept.append(other)
    return kept


def _is_if(node: onnx.NodeProto) -> bool:
    return node.op_type == "If" and not node.domain


def _made(op_type: str, node: onnx.NodeProto, index: int, inputs: Sequence[str]) -> onnx.NodeProto:
    name = f"{node.name}:{index}" if len(node.output) > 1 else node.name
    return inherit(helper.make_node(op_type, inputs, [node.output[index]], name=name), [node])


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy that reads and makes values under their new names, in the graphs inside it as well."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for given in copy.attribute:
        for graph in (*([given.g] if given.HasField("g") else []), *given.graphs):
            inner = [_renamed(inside, names) for inside in graph.node]
            del graph.node[:]
            graph.node.extend(inner)
            for value in graph.output:
                value.name = names.get(value.name, value.name)
    return copy
