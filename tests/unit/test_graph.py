"""The graph, its builder and its printer."""

from __future__ import annotations

import numpy as np

from npu_backend.graph import Graph, GraphBuilder, Quantization, Tensor
from npu_backend.ops import append_op
from npu_backend.ops.attributes import BinaryAttributes, DenseAttributes, UnaryAttributes
from npu_backend.reference import evaluate

CODE = Quantization(0.5, 10)


def small() -> Graph:
    """A matrix, its relu, and the sum of both; one constant is never read."""
    builder = GraphBuilder("small")
    builder.constant("unused", np.zeros(3, np.float32))
    x = builder.input(Tensor("x", (2, 3), "uint8", CODE), "host_x")
    weight = builder.constant("weight", np.ones((3, 4), np.int8))
    scale = builder.constant("scale", np.array([0.5], np.float32))
    made = {"dtype": "uint8", "quantization": CODE}
    d = append_op(builder, "dense", (x, weight, scale), DenseAttributes(), name="dense", **made)
    r = append_op(builder, "unary", (d,), UnaryAttributes("relu"), name="relu", **made)
    builder.output(append_op(builder, "binary", (d, r), BinaryAttributes("add"), name="sum", **made), "host_y", (1, 0))
    return builder.freeze()


def test_constants_that_nothing_reads_are_dropped() -> None:
    assert set(small().constants) == {"weight", "scale"}


def test_producers_and_consumers() -> None:
    graph = small()
    assert {name: op.name for name, op in graph.producers.items()} == {"dense": "dense", "relu": "relu", "sum": "sum"}
    readers = {name: [op.name for op in ops] for name, ops in graph.consumers.items()}
    assert readers == {"x": ["dense"], "dense": ["relu", "sum"], "relu": ["sum"], "sum": []}
    assert graph.output_names == {"sum"}
    assert graph.activations(graph.ops[0]) == ("x",)


def test_names_are_made_unique() -> None:
    builder = GraphBuilder("names")
    names = [builder.constant("w", np.zeros(1, np.float32)) for _ in range(3)]
    assert names == ["w", "w.1", "w.2"]


def test_sizes() -> None:
    tensor = Tensor("t", (2, 3, 4), "float32")
    assert (tensor.itemsize, tensor.size_bytes, tensor.box.size) == (4, 96, 24)


def test_host_shape_follows_the_storage_axes() -> None:
    graph = small()
    assert graph.outputs[0].host_shape(graph.tensor("sum")) == (4, 2)


def test_reference_turns_inputs_and_outputs() -> None:
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    result = evaluate(small(), {"host_x": x})["host_y"]
    # The rows of x - 10 sum to -27 and -18; times 0.5 * 0.5 / 0.5 that is 10 - 14, clamped to 0, and 10 - 9.
    # Both are negative, relu makes them real zeros, and the sum is the product itself.
    assert result.shape == (4, 2)
    assert result[0].tolist() == [0, 1]


def test_text_names_tensors_codes_and_ports() -> None:
    assert str(small()).splitlines() == [
        "graph small",
        "  input x: uint8[2, 3] scale=0.5 zero=10 as host_x axes=[0, 1]",
        "  dense: uint8[2, 4] scale=0.5 zero=10 = dense(x, weight, scale) DenseAttributes(clamp=None)  # dense",
        "  relu: uint8[2, 4] scale=0.5 zero=10 = unary(dense) UnaryAttributes(function='relu', parameters=())  # relu",
        "  sum: uint8[2, 4] scale=0.5 zero=10 = binary(dense, relu) BinaryAttributes(function='add')  # sum",
        "  output sum: uint8[2, 4] scale=0.5 zero=10 as host_y axes=[1, 0]",
    ]
