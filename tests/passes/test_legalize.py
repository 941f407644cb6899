"""Legalize: which transposes go, which stay, and that the function remains the same."""

from __future__ import annotations

import pytest

from npu_backend.graph import Graph
from npu_backend.ops.attributes import (
    ConcatAttributes,
    MatMulAttributes,
    PadAttributes,
    ReduceAttributes,
    ReshapeAttributes,
    SliceAttributes,
    SoftmaxAttributes,
    TransposeAttributes,
    UnaryAttributes,
)
from npu_backend.passes.legalize import legalize
from tests.passes.networks import Network, attention, same


def legal(net: Network, *outputs: str) -> Graph:
    for index, name in enumerate(outputs):
        net.output(name, f"y{index}")
    graph = net.freeze()
    result = legalize(graph)
    same(graph, result)
    return result


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def test_a_chain_of_channels_first_convolutions_keeps_no_transpose() -> None:
    net = Network("chain")
    x = net.conv_channels_first(net.source((1, 3, 9, 8)), 16)
    left, right = net.conv_channels_first(net.relu(x), 16), net.conv_channels_first(x, 16)
    graph = legal(net, net.conv_channels_first(net.sum(left, right), 5))
    assert "transpose" not in kinds(graph)
    assert graph.inputs[0].storage_axes == graph.outputs[0].storage_axes == (0, 3, 1, 2)


def test_an_input_that_is_channels_last_already_is_turned_once() -> None:
    net = Network("last")
    x = net.conv(net.source((1, 9, 8, 3)), 16)
    assert kinds(legal(net, net.conv(x, 8))) == ["transpose", "conv2d", "conv2d"]


@pytest.mark.parametrize(("height", "transposes"), [(4, 1), (1, 0)])
def test_flatten_needs_a_transpose_only_where_order_matters(height: int, transposes: int) -> None:
    net = Network("flatten")
    x = net.conv_channels_first(net.source((2, 6, height, height)), 10)
    graph = legal(net, net.dense(net.add("reshape", x, attributes=ReshapeAttributes((2, 10 * height**2))), 7))
    assert kinds(graph).count("transpose") == transposes


def test_one_transpose_serves_all_readers_of_a_tensor() -> None:
    net = Network("shared")
    x = net.conv_channels_first(net.source((1, 6, 4, 4)), 10)
    flat = [net.add("reshape", x, attributes=ReshapeAttributes(shape)) for shape in ((1, 160), (10, 16))]
    assert kinds(legal(net, *flat)).count("transpose") == 1


def test_attention_keeps_no_transpose() -> None:
    """Its products read heads where they lie, and write where the next layer wants them."""
    graph = attention()
    result = legalize(graph)
    assert "transpose" not in kinds(result)
    same(graph, result)


def test_a_product_that_others_read_keeps_its_order() -> None:
    net = Network("shared")
    left, right = net.source((1, 2, 5, 7)), net.source((1, 2, 7, 9), "x2")
    product = net.add("matmul", left, right, attributes=MatMulAttributes())
    turned = net.add("transpose", product, attributes=TransposeAttributes((0, 2, 1, 3)))
    graph = legal(net, net.relu(product), net.add("reshape", turned, attributes=ReshapeAttributes((5, 18))))
    assert kinds(graph) == ["matmul", "unary", "transpose", "reshape"]


MOVED = {
    "concat": (ConcatAttributes(1), ConcatAttributes(3)),
    "pad": (PadAttributes((0, 1, 2, 3), (0, 0, 5, 4), 7), PadAttributes((0, 2, 3, 1), (0, 5, 4, 0), 7)),
    "slice": (SliceAttributes((0, 1, 2, 3), (1, 6, 7, 8), (1, 2, 3, 1)),
              SliceAttributes((0, 2, 3, 1), (1, 7, 8, 6), (1, 3, 1, 2))),
    "softmax": (SoftmaxAttributes(1), SoftmaxAttributes(3)),
}  # fmt: skip


@pytest.mark.parametrize("kind", MOVED)
def test_axes_follow_the_storage_order(kind: str) -> None:
    net = Network(kind)
    x = net.conv_channels_first(net.source((1, 3, 9, 8)), 6)
    inputs = (x, net.relu(x)) if kind == "concat" else (x,)
    before, after = MOVED[kind]
    graph = legal(net, net.add(kind, *inputs, attributes=before))
    assert "transpose" not in kinds(graph)
    assert graph.ops[-1].attributes == after


def test_sums_keep_their_order_in_any_layout() -> None:
    net = Network("sums")
    x = net.conv_channels_first(net.source((1, 3, 5, 8)), 6)
    graph = legal(net, net.add("reduce", x, attributes=ReduceAttributes("sum", (1, 2, 3))))
    assert kinds(graph) == ["conv2d", "reduce"]
    assert graph.ops[-1].attributes.axes == (3, 1, 2)


def test_operands_stored_differently_are_brought_into_one_order() -> None:
    net = Network("mixed")
    first = net.conv_channels_first(net.source((1, 4, 5, 4)), 5)
    turned = net.add("transpose", first, attributes=TransposeAttributes((0, 1, 3, 2)))
    other = net.conv_channels_first(net.source((1, 4, 4, 5), "z"), 5)
    assert kinds(legal(net, net.sum(turned, other))).count("transpose") == 2


def test_what_does_nothing_and_what_nobody_reads_goes() -> None:
    net = Network("nothing")
    x = net.conv_channels_first(net.source((1, 4, 5, 4)), 5)
    net.dense(net.add("reshape", x, attributes=ReshapeAttributes((1, 100))), 3)
    same_shape = net.add("reshape", x, attributes=ReshapeAttributes((1, 5, 5, 4)))
    graph = legal(net, net.add("unary", same_shape, attributes=UnaryAttributes("identity")))
    assert kinds(graph) == ["conv2d"]
    assert len(graph.constants) == 3


def test_a_graph_of_transposes_only_is_left_to_the_host() -> None:
    net = Network("turned")
    graph = legal(net, net.add("transpose", net.source((2, 3, 4)), attributes=TransposeAttributes((2, 0, 1))))
    assert not graph.ops
    assert graph.outputs[0].storage_axes == (2, 0, 1)
