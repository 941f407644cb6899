"""Subgraphs that exporters write for one operator, against ONNX Runtime, which runs them as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from tests.tvm_ext.by_runtime import assert_close, by_onnx_runtime
from tests.tvm_ext.on_host import calls, on_host
from tests.tvm_ext.small_models import Model, feeds
from tvm_ext.onnx_cleanup import clean
from tvm_ext.onnx_origin import origins
from tvm_ext.relax import partition

Build = Callable[[Model, str], str]


def statistics(m: Model, x: str, power: str = "Pow", **axes: object) -> tuple[str, str]:
    """x without its mean, and the standard deviation."""
    centred = m.op("Sub", x, m.op("ReduceMean", x, **axes))
    square = m.op("Pow", centred, m.constant(2)) if power == "Pow" else m.op("Mul", centred, centred)
    return centred, m.op("Sqrt", m.op("Add", m.op("ReduceMean", square, **axes), m.constant(1e-5)))


def torch_layer_norm(m: Model, x: str) -> str:
    centred, deviation = statistics(m, x, axes=[-1])
    return m.op("Add", m.op("Mul", m.op("Div", centred, deviation), m.random(8)), m.random(8))


def other_layer_norm(m: Model, x: str) -> str:
    """Operands the other way round, a product for the square, a reciprocal for the division."""
    centred, deviation = statistics(m, x, "Mul", axes=[2])
    normal = m.op("Mul", m.op("Reciprocal", deviation), centred)
    return m.op("Add", m.random(8), m.op("Mul", m.random(8), normal))


def difference_twice(m: Model, x: str) -> str:
    """As torch wrote it before version 1.5: the difference computed twice."""
    mean = m.op("ReduceMean", x, axes=[-1])
    square = m.op("Pow", m.op("Cast", m.op("Sub", x, mean), to=1), m.constant(2))
    deviation = m.op("Sqrt", m.op("Add", m.op("ReduceMean", square, axes=[-1]), m.constant(1e-5)))
    return m.op("Mul", m.op("Div", m.op("Sub", x, mean), deviation), m.constant(np.full((1, 1, 1), 3)))


def two_axes(m: Model, x: str) -> str:
    centred, deviation = statistics(m, x, axes=[-2, -1])
    return m.op("Div", centred, deviation)


def root_mean_square(m: Model, x: str) -> str:
    square = m.op("ReduceMean", m.op("Pow", x, m.constant(2)), axes=[-1])
    inverse = m.op("Div", m.constant(1), m.op("Sqrt", m.op("Add", square, m.constant(1e-6))))
    return m.op("Mul", m.random(8), m.op("Mul", x, inverse))


def of_a_difference(m: Model, x: str) -> str:
    """What is normalised is itself a difference, but not one from its mean."""
    return root_mean_square(m, m.op("Sub", x, m.random(8)))


def torch_gelu(m: Model, x: str) -> str:
    curve = m.op("Add", m.op("Erf", m.op("Div", x, m.constant(1.4142135381698608))), m.constant(1))
    return m.op("Mul", m.op("Mul", x, curve), m.constant(0.5))


def halved_first(m: Model, x: str) -> str:
    curve = m.op("Add", m.constant(1), m.op("Erf", m.op("Mul", x, m.constant(np.sqrt(0.5)))))
    return m.op("Mul", m.op("Mul", m.constant(0.5), x), curve)


def behind_a_bias(m: Model, x: str) -> str:
    return torch_gelu(m, m.op("Add", x, m.random(8)))


def of_a_sum(m: Model, x: str) -> str:
    return torch_gelu(m, m.op("Add", x, m.op("Exp", x)))


def tanh_gelu(m: Model, x: str) -> str:
    cubic = m.op("Add", x, m.op("Mul", m.constant(0.044715), m.op("Pow", x, m.constant(3))))
    curve = m.op("Tanh", m.op("Mul", m.constant(0.7978845608), cubic))
    return m.op("Mul", m.op("Mul", m.constant(0.5), x), m.op("Add", m.constant(1), curve))


def tanh_gelu_of_products(m: Model, x: str) -> str:
    """As TensorFlow's converters write it: the square as a product, x taken out."""
    square = m.op("Mul", m.op("Mul", x, x), m.constant(0.044715))
    inner = m.op("Mul", m.op("Mul", x, m.constant(0.7978845608)), m.op("Add", square, m.constant(1)))
    return m.op("Mul", x, m.op("Mul", m.op("Add", m.op("Tanh", inner), m.constant(1)), m.constant(0.5)))


def mean_over_others(m: Model, x: str) -> str:
    """The root-mean-square of a difference, though not of one from its own mean."""
    centred = m.op("Sub", x, m.op("ReduceMean", x, axes=[1]))
    variance = m.op("ReduceMean", m.op("Mul", centred, centred), axes=[2])
    return m.op("Div", centred, m.op("Sqrt", m.op("Add", variance, m.constant(1e-5))))


NORMALIZATION = "relax.nn.layer_norm"
FUSED: dict[str, tuple[Build, list[str]]] = {
    "torch": (torch_layer_norm, [NORMALIZATION]),
    "other": (other_layer_norm, [NORMALIZATION]),
    "twice": (difference_twice, [NORMALIZATION]),
    "two_axes": (two_axes, [NORMALIZATION]),
    "root_mean_square": (root_mean_square, ["relax.nn.rms_norm"]),
    "of_a_difference": (of_a_difference, ["relax.subtract", "relax.nn.rms_norm"]),
    "mean_over_others": (mean_over_others, ["relax.mean", "relax.subtract", "relax.nn.rms_norm"]),
    "torch_gelu": (torch_gelu, ["relax.nn.gelu"]),
    "halved_first": (halved_first, ["relax.nn.gelu"]),
    "behind_a_bias": (behind_a_bias, ["relax.add", "relax.nn.gelu"]),
    "of_a_sum": (of_a_sum, ["relax.exp", "relax.add", "relax.nn.gelu"]),
    "tanh": (tanh_gelu, ["relax.nn.gelu_tanh"]),
    "tanh_of_products": (tanh_gelu_of_products, ["relax.nn.gelu_tanh"]),
}


def built(build: Build, opset: int = 17) -> onnx.ModelProto:
    m = Model("fusion", opset)
    return m.build(build(m, m.input(2, 3, 8)))


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("opset", [13, 17])
def test_fused(name: str, opset: int) -> None:
    build, expected = FUSED[name]
    model = built(build, opset)
    assert calls(model) == expected
    (feed,) = feeds(model)
    wanted = by_onnx_runtime(model, feed)
    assert_close(by_onnx_runtime(clean(model), feed), wanted)
    assert_close(on_host(model, feed), wanted)


def test_reports_name_every_node() -> None:
    model = built(torch_layer_norm)
    (node,) = clean(model).graph.node
    assert node.name == model.graph.node[-1].name
    assert [name for name, _ in origins(node)] == [original.name for original in model.graph.node]
    assert origins(node)[0] == ("reducemean", "ReduceMean")


def test_an_operator_of_the_host_is_told_by_its_original_nodes() -> None:
    model = built(torch_layer_norm)
    told = partition(clean(model)).host_ops
    assert [(op.name, op.op) for op in told] == [(node.name, node.op_type) for node in model.graph.node]
    assert len({op.reason for op in told}) == 1


def wrong_epsilon_place(m: Model, x: str) -> str:
    centred, _ = statistics(m, x, axes=[-1])
    variance = m.op("ReduceMean", m.op("Mul", centred, centred), axes=[-1])
    return m.op("Div", centred, m.op("Add", m.op("Sqrt", variance), m.constant(1e-5)))


def wrong_axes(m: Model, x: str) -> str:
    centred, deviation = statistics(m, x, axes=[1])
    return m.op("Div", centred, deviation)


def deviation_is_read(m: Model, x: str) -> str:
    centred, deviation = statistics(m, x, axes=[-1])
    return m.op("Add", m.op("Div", centred, deviation), m.op("Relu", deviation))


def wrong_root(m: Model, x: str) -> str:
    curve = m.op("Add", m.op("Erf", m.op("Div", x, m.constant(1.5))), m.constant(1))
    return m.op("Mul", m.op("Mul", x, curve), m.constant(0.5))


def wrong_factor(m: Model, x: str) -> str:
    curve = m.op("Add", m.op("Erf", m.op("Div", x, m.constant(np.sqrt(2)))), m.constant(1))
    return m.op("Mul", m.op("Mul", x, curve), m.constant(0.25))


def of_another(m: Model, x: str) -> str:
    curve = m.op("Add", m.op("Erf", m.op("Div", x, m.constant(np.sqrt(2)))), m.constant(1))
    return m.op("Mul", m.op("Mul", m.op("Abs", x), curve), m.constant(0.5))


@pytest.mark.parametrize(
    "build",
    [wrong_epsilon_place, wrong_axes, deviation_is_read, wrong_root, wrong_factor, of_another],
)
def test_not_fused(build: Build) -> None:
    model = built(build)
    kinds = [node.op_type for node in clean(model).graph.node]
    assert kinds == [node.op_type for node in model.graph.node if node.output[0]]
