"""Data movement that stands among float operators, moved onto the codes beyond the nearest quantise or dequantise.

Both are exact: moving elements commutes with quantising each by the same scale. ONNX Runtime's quantiser leaves such
operators in float (ReduceMean, Reshape, QuantizeLinear), where they would keep their neighbours from matching.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from tvm_ext.onnx_constants import Constants

_MOVES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"))

Nodes = list[onnx.NodeProto]


def move_onto_codes(nodes: Sequence[onnx.NodeProto], constants: Constants, pinned: frozenset[str]) -> Nodes:
    """Swaps movement with the QuantizeLinear it feeds, or with the DequantizeLinear it reads, where only one is."""
    return _lift(_sink(list(nodes), constants, pinned), constants)


def _sink(nodes: Nodes, constants: Constants, pinned: frozenset[str]) -> Nodes:
    """Move, QuantizeLinear becomes QuantizeLinear, move; unless the move reads a DequantizeLinear already."""
    producers, uses = _producers(nodes), _uses(nodes)
    for node in reversed(nodes):
        move = producers.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        # A chain of moves: each step brings the quantise one move further up.
        while move is not None and move.op_type in _MOVES and uses[move.output[0]] == 1:
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
    readers: dict[str, Nodes] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    producers, result = _producers(nodes), []
    for node in nodes:
        source = producers.get(node.input[0]) if node.op_type in _MOVES else None
        quantized = all(reader.op_type == "QuantizeLinear" for reader in readers.get(node.output[0], ()))
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


def _producers(nodes: Nodes) -> dict[str, onnx.NodeProto]:
    return {name: node for node in nodes for name in node.output}


def _uses(nodes: Nodes) -> dict[str, int]:
    uses: dict[str, int] = {}
    for node in nodes:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    return uses
