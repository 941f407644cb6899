"""The replacement of one ONNX node by others, under construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from npu_backend.errors import ModelError
from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_graph import Nodes, attribute, operand
from tvm_ext.onnx_origin import inherit

Shapes = Mapping[str, tuple[int, ...]]


@dataclass
class Rewrite:
    """One node's replacement under construction; `shapes` are the static extents that are known."""

    node: onnx.NodeProto
    constants: Constants
    shapes: Shapes
    opset: int
    nodes: Nodes = field(default_factory=list)

    def operand(self, index: int) -> str:
        """The name of an operand, empty where it is left out."""
        return operand(self.node, index)

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the node."""
        return attribute(self.node, name, default)

    def emit(self, op_type: str, *inputs: str, output: int | None = None, domain: str = "", **attributes: Any) -> str:
        """Appends a node and returns its value: the node's output of that number, else one in between."""
        label = f"{op_type}_{len(self.nodes)}"
        value = f"{self.node.output[0]}.{label}" if output is None else self.node.output[output]
        made = helper.make_node(op_type, inputs, [value], name=f"{self.node.name}.{label}", domain=domain, **attributes)
        self.nodes.append(inherit(made, [self.node]))
        return value

    def constant(self, label: str, value: Any, dtype: Any = np.float32) -> str:
        """A constant named after the node."""
        return self.constants.add(f"{self.node.name}.{label}", np.asarray(value, dtype))

    def rank(self, name: str) -> int:
        """Axes of a value; raises ModelError where they are not known."""
        if name in self.constants:
            return self.constants.rank(name)
        return len(self.shape(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """Extents of a value; raises ModelError where they are not known."""
        if name not in self.shapes:
            raise ModelError(f"{self.node.op_type} {self.node.name!r}: the shape of {name!r} is not known; run ONNX's"
                             " shape inference on the model before it is optimised")  # fmt: skip
        return self.shapes[name]
