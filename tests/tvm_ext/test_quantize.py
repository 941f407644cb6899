"""What the quantiser takes beyond its own choice."""

from __future__ import annotations

from tests.tvm_ext.small_models import Model, quantized
from tvm_ext.onnx_cleanup import clean
from tvm_ext.relax import partition


def test_elementwise_operators_do_not_break_the_network() -> None:
    """By itself ONNX Runtime's quantiser leaves Sub and Div in float, and so the MaxPool behind them."""
    b = Model("elementwise", opset=17)
    x = b.op("Conv", b.input(1, 3, 8, 8), b.random(4, 3, 3, 3))
    y = b.op("Div", b.op("Sub", x, b.constant([0.5])), b.constant([2.0]))
    model = quantized(b.build(b.op("MaxPool", y, kernel_shape=[2, 2])))
    assert partition(clean(model)).host_ops == ()
