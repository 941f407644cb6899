"""Data movement that stands among float operators, moved onto the codes beyond the nearest quantise or dequantise.

Both are exact: moving elements commutes with quantising each by the same scale. ONNX Runtime's quantiser leaves such
operators in float (ReduceMean, Reshape, QuantizeLinear), where they would keep their neighbours from matching.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tvm_ext.onnx_constants import Constants
from tvm_ext.onnx_graph import Nodes, producers_of, readers_of
from tvm_ext.onnx_origin import inherit

_MOVES = frozenset(("DepthToSpace", "Flatten", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze"))


def move_onto_codes(nodes: Sequence[onnx.NodeProto], constants: Constants, pinned: frozenset[str]) -> Nodes:
    """Swaps movement with the QuantizeLinear it feeds, or with the DequantizeLinear it reads, where only one is."""
    return _lift(_sink(list(nodes), constants, pinned), constants)


def saturate_inputs(nodes: Sequence[onnx.NodeProto], inputs: frozenset[str], constants: Constants) -> Nodes:
    """A Relu between an input of the model and a QuantizeLinear whose codes begin at 0 goes: saturation does the same.

    Left alone it would be float, and keep what follows from being the first operator of the NPU. Behind a convolution
    it is part of that instead.
    """
    readers, absorbed = readers_of(nodes), list[onnx.NodeProto]()
    for node in nodes:
        users = readers.get(node.output[0], [])
        if node.op_type == "Relu" and node.input[0] in inputs and _saturate(users, constants):
            absorbed.append(node)
            for user in users:
                inherit(user, [node, user]).input[0] = node.input[0]
    return [node for node in nodes if node not in absorbed]


def _saturate(users: Nodes, constants: Constants) -> bool:
    """Whether all are QuantizeLinear whose lowest code stands for 0."""
    return bool(users) and all(user.op_type == "QuantizeLinear" and _begins_at_zero(user, constants) for user in users)


def _begins_at_zero(quantize: onnx.NodeProto, constants: Constants) -> bool:
    zero_point = quantize.input[2] if len(quantize.input) > 2 else ""
    if not zero_point:
        return not quantize.attribute
    if zero_point not in constants:
        return False
    codes = constants[zero_point]
    return codes.dtype.kind in "iu" and bool((codes == np.iinfo(codes.dtype).min).all())


def _sink(nodes: Nodes, constants: Constants, pinned: frozenset[str]) -> Nodes:
    """Move, QuantizeLinear becomes QuantizeLinear, move; unless the move reads a DequantizeLinear already."""
    producers, readers = producers_of(nodes), readers_of(nodes)
    for node in reversed(nodes):
        move = producers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        # A chain of moves: each step brings the quantise one move further up.
        while move is not None and move.op_type in _MOVES and len(readers[move.output[0]]) == 1:
            source = producers.get(move.input[0])
            if source is None or source.op_type == "DequantizeLinear" or not pinned.isdisjoint(move.output):
                break
            if not _per_tensor(node, constants):
                break
            node, move = _swap(node, move), source
            producers[node.output[0]] = node
    return nodes


def _swap(quantize: onnx.NodeProto, move: onnx.NodeProto) -> onnx.NodeProto:
    """Exchanges the two nodes' contents in place, so that their order in the list stays topological."""
    first, second = onnx.NodeProto(), onnx.NodeProto()
    first.CopyFrom(quantize)
    second.CopyFrom(move)
    between = move.output[0]
    first.input[0], first.output[0] = move.input[0], f"{between}.codes"
    second.input[0], second.output[0] = first.output[0], quantize.output[0]
    move.CopyFrom(first)
    quantize.CopyFrom(second)
    return move


def _lift(nodes: Nodes, constants: Constants) -> Nodes:
    """DequantizeLinear, move becomes move, DequantizeLinear; unless a QuantizeLinear follows at once."""
    readers, producers, result = readers_of(nodes), producers_of(nodes), list[onnx.NodeProto]()
    for node in nodes:
        source = producers.get(node.input[0]) if node.op_type in _MOVES else None
        following = readers.get(node.output[0], ())
        quantized = bool(following) and all(reader.op_type == "QuantizeLinear" for reader in following)
        if source is None or source.op_type != "DequantizeLinear" or quantized or not _per_tensor(source, constants):
            result.append(node)
            continue
        if source.input[0] in constants:
            result.append(node)
            continue
        moved, dequantize = onnx.NodeProto(), onnx.NodeProto()
        moved.CopyFrom(node)
        dequantize.CopyFrom(source)
        moved.input[0], moved.output[0] = source.input[0], f"{node.output[0]}.codes"
        dequantize.input[0], dequantize.output[0] = moved.output[0], node.output[0]
        dequantize.name = f"{node.name}.dequantize"
        producers[dequantize.output[0]] = dequantize
        result += [moved, dequantize]
    return result


def _per_tensor(node: onnx.NodeProto, constants: Constants) -> bool:
    return node.input[1] in constants and constants.element_count(node.input[1]) == 1
