"""Batch normalisations without a node of their own.

Behind a convolution, plain or transposed, they become its weights and bias, else a multiplication and an addition per
channel, which ONNX Runtime can quantise:
``y = (x - mean) / sqrt(variance + epsilon) * scale + bias`` (ONNX, BatchNormalization at inference).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tvm_ext.onnx_origin import inherit

Array = npt.NDArray[np.float32]
_EPSILON = 1e-5
# The axis of a weight along which the output channels lie.
_OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1}


def fold_batch_norms(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> None:
    """Changes the model; normalisations whose parameters are no constants stay.

    `shapes` gives extents of values beside those that the model tells.
    """
    folding = _Folding(model.graph, shapes or {})
    for node in [node for node in model.graph.node if node.op_type == "BatchNormalization"]:
        if len(node.output) == 1 and all(name in folding.constants for name in node.input[1:]):
            folding.replace(node)
    # ONNX Runtime would warn of each.
    unused = set(folding.constants) - set(_names_in(model.graph))
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in unused]:
        model.graph.initializer.remove(tensor)


def _names_in(graph: onnx.GraphProto) -> Iterator[str]:
    """What the nodes of a graph and of the graphs inside them read, and its outputs."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _names_in(inner)


@dataclass
class _Folding:
    graph: onnx.GraphProto
    shapes: Mapping[str, tuple[int, ...]]
    constants: dict[str, onnx.TensorProto] = field(init=False)
    producers: dict[str, onnx.NodeProto] = field(init=False)

    def __post_init__(self) -> None:
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.producers = {name: node for node in self.graph.node for name in node.output}

    def replace(self, node: onnx.NodeProto) -> None:
        """One normalisation."""
        scale, bias, mean, variance = (self._array(name).astype(np.float64) for name in node.input[1:])
        epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), _EPSILON)
        factor = scale / np.sqrt(variance + epsilon)
        offset = bias - mean * factor
        shift, addition = self._addition(node.input[0], len(factor))
        source = node.input[0] if addition is None else self._computed(addition)
        convolution = self.producers.get(source)
        if convolution is not None and self._foldable(convolution, len(factor)):
            self._fold(convolution, factor, shift * factor + offset, node.output[0])
            gone = [addition, node] if addition is not None else [node]
            inherit(convolution, [convolution, *gone])
            for old in gone:
                self.graph.node.remove(old)
            self.producers[convolution.output[0]] = convolution
            return
        self._scale(node, factor, offset)

    def _addition(self, name: str, channels: int) -> tuple[npt.NDArray[np.float64], onnx.NodeProto | None]:
        """A constant per channel that an Add puts in front, read by nothing else."""
        node, nothing = self.producers.get(name), np.zeros(channels)
        if node is None or node.op_type != "Add" or not self._read_once(name):
            return nothing, None
        constant = next((self._array(operand) for operand in node.input if operand in self.constants), None)
        if constant is None or constant.size != channels or constant.ndim < 3 or constant.shape[-3] != channels:
            return nothing, None
        return constant.reshape(-1).astype(np.float64), node

    def _computed(self, addition: onnx.NodeProto) -> str:
        computed: str = next(name for name in addition.input if name not in self.constants)
        return computed

    def _foldable(self, node: onnx.NodeProto, channels: int) -> bool:
        if node.op_type not in _OUTPUT_AXIS or not self._read_once(node.output[0]):
            return False
        constant = all(name in self.constants for name in node.input[1:])
        # With groups, a transposed convolution's weight has the channels of one group only.
        return constant and self.constants[node.input[1]].dims[_OUTPUT_AXIS[node.op_type]] == channels

    def _fold(
        self, node: onnx.NodeProto, factor: npt.NDArray[np.float64], offset: npt.NDArray[np.float64], output: str
    ) -> None:
        weight = self._array(node.input[1])
        axis = _OUTPUT_AXIS[node.op_type]
        along = factor.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])
        bias = self._array(node.input[2]) * factor + offset if len(node.input) > 2 else offset
        inputs = [node.input[0], self._constant(f"{output}_weight", weight * along),
                  self._constant(f"{output}_bias", bias)]  # fmt: skip
        del node.input[:]
        node.input.extend(inputs)
        node.output[0] = output

    def _scale(self, node: onnx.NodeProto, factor: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]) -> None:
        output, index = node.output[0], list(self.graph.node).index(node)
        rank = self._rank(node.input[0])
        # Without a known rank, two axes behind the channels, as images have.
        shape = (-1, *(1,) * ((4 if rank is None else rank) - 2))
        scaled = f"{output}_scaled"
        factors, offsets = (self._constant(f"{output}_{name}", values.reshape(shape))
                            for name, values in (("factor", factor), ("offset", offset)))  # fmt: skip
        product = helper.make_node("Mul", [node.input[0], factors], [scaled], name=f"{node.name or output}_scale")
        total = helper.make_node("Add", [scaled, offsets], [output], name=f"{node.name or output}_offset")
        self.graph.node.remove(node)
        for made in (total, product):
            self.graph.node.insert(index, inherit(made, [node]))

    def _rank(self, name: str) -> int | None:
        if name in self.shapes:
            return len(self.shapes[name])
        for value in (*self.graph.value_info, *self.graph.input):
            if value.name == name and value.type.tensor_type.HasField("shape"):
                return len(value.type.tensor_type.shape.dim)
        return None

    def _read_once(self, name: str) -> bool:
        readers = sum(list(node.input).count(name) for node in self.graph.node)
        return readers == 1 and name not in {value.name for value in self.graph.output}

    def _array(self, name: str) -> Array:
        array: Array = numpy_helper.to_array(self.constants[name])
        return array

    def _constant(self, name: str, values: npt.NDArray[np.float64]) -> str:
        tensor = numpy_helper.from_array(values.astype(np.float32), name)
        self.graph.initializer.append(tensor)
        self.constants[name] = tensor
        return name
