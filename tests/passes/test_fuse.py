"""Fuse: who joins whose layer."""

from __future__ import annotations

from npu_backend.passes.fuse import fuse
from npu_backend.stages import Fused
from tests.passes.networks import Network

SHAPE = (1, 6, 5, 16)


def layers(net: Network, *outputs: str) -> list[str]:
    return ["+".join(op.kind for op in layer.ops) for layer in fused(net, *outputs).layers]


def fused(net: Network, *outputs: str) -> Fused:
    for index, name in enumerate(outputs):
        net.output(name, f"y{index}")
    return fuse(net.freeze())


def test_activation_and_residual_add_join_the_convolution() -> None:
    net = Network("residual")
    x = net.source(SHAPE)
    assert layers(net, net.sum(net.relu(net.conv(x, 16)), x)) == ["conv2d+unary+binary"]


def test_an_add_joins_the_operand_computed_last() -> None:
    net = Network("two")
    x = net.source(SHAPE)
    first, second = net.conv(x, 16), net.conv(x, 16)
    result = fused(net, net.sum(first, second))
    assert [len(layer.ops) for layer in result.layers] == [1, 2]
    assert result.layers[1].anchor.output == second
    assert result.inputs(result.layers[1]) == (x, first)


def test_what_others_read_stays_outside() -> None:
    net = Network("shared")
    conv = net.conv(net.source(SHAPE), 16)
    assert layers(net, net.relu(conv), net.conv(conv, 8)) == ["conv2d", "unary", "conv2d"]


def test_a_graph_output_stays_outside() -> None:
    net = Network("output")
    conv = net.conv(net.source(SHAPE), 16)
    assert layers(net, conv, net.relu(conv)) == ["conv2d", "unary"]


def test_a_gate_joins_the_image_not_the_broadcast_vector() -> None:
    net = Network("gate")
    conv = net.conv(net.source(SHAPE), 16)
    vector = net.relu(net.source((1, 1, 1, 16), "v"))
    assert layers(net, net.sum(vector, conv)) == ["unary", "conv2d+binary"]
    net = Network("vector")
    vector = net.relu(net.source((1, 1, 1, 16), "v"))
    assert layers(net, net.sum(vector, net.source(SHAPE))) == ["unary", "binary"]


def test_a_tensor_added_to_itself_is_no_follower() -> None:
    net = Network("twice")
    conv = net.conv(net.source(SHAPE), 16)
    assert layers(net, net.sum(conv, conv)) == ["conv2d", "binary"]


def test_layers_stay_in_an_order_in_which_they_can_run() -> None:
    net = Network("order")
    x = net.source(SHAPE)
    early = net.conv(x, 16)
    late = net.relu(net.conv(net.conv(x, 16), 16))
    result = fused(net, net.sum(early, late))
    known = {x}
    for layer in result.layers:
        assert set(result.inputs(layer)) <= known
        known.add(layer.output)
