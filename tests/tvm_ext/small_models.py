"""Small float models, one operator each, and their quantisation by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.quantize import quantize

OPSET = 17


@dataclass
class Model:
    """A model under construction; every method appends a node named after its operator and returns its output."""

    name: str
    opset: int = OPSET
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def input(self, *shape: int) -> str:
        """A float input, named x0, x1 and so on."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = shape
        return name

    def constant(self, value: Any, dtype: str = "float32") -> str:
        """An initializer."""
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def random(self, *shape: int) -> str:
        """An initializer of normal numbers, the same at every run."""
        generator = np.random.default_rng(len(self.weights))
        return self.constant(generator.normal(0, 0.5, shape))

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node."""
        count = sum(node.op_type == op_type for node in self.nodes)
        name = op_type.lower() + (str(count) if count else "")
        names = [f"{name}.{index}" if outputs > 1 else f"{name}.out" for index in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    def build(self, *outputs: str) -> onnx.ModelProto:
        """The checked float model with inferred shapes."""
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in self.inputs.items()]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, self.name, values, ends, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred)
        return inferred


def feeds(model: onnx.ModelProto, count: int = 1) -> list[dict[str, np.ndarray]]:
    """Normal inputs, the same at every run."""
    generator = np.random.default_rng(7)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return [{name: generator.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
            for _ in range(count)]  # fmt: skip


def quantized(model: onnx.ModelProto, **settings: Any) -> onnx.ModelProto:
    """The model quantised on its own feeds; `settings` as models.quantize takes them."""
    return quantize(model, feeds(model, 4), **settings)


def by_hand(model: onnx.ModelProto, dtype: str = "uint8", *, inside: bool = True) -> onnx.ModelProto:
    """QuantizeLinear and DequantizeLinear around every float value, for operators that the quantiser leaves alone.

    Without `inside` around the model's inputs and outputs only.
    """
    zero, steps = {"uint8": (120, 1), "int8": (-8, 1), "uint16": (30720, 256), "int16": (-2048, 256)}[dtype]
    result, renamed = onnx.ModelProto(), {}
    result.CopyFrom(model)
    del result.graph.node[:]
    floats = {value.name for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
              if value.type.tensor_type.elem_type == TensorProto.FLOAT}  # fmt: skip

    def code(name: str) -> None:
        parameters = []
        for label, value in (
            ("scale", np.float32((0.02 + 0.003 * (len(renamed) % 3)) / steps)),
            ("zero", np.array(zero, dtype)),
        ):
            result.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name}.{label}"))
            parameters.append(f"{name}.{label}")
        last = name in {value.name for value in model.graph.output}
        source, renamed[name] = (f"{name}.float", name) if last else (name, f"{name}.decoded")
        result.graph.node.extend([
            helper.make_node("QuantizeLinear", [source, *parameters], [f"{name}.codes"], name=f"{name}.quantize"),
            helper.make_node("DequantizeLinear", [f"{name}.codes", *parameters], [renamed[name]], name=f"{name}.dec"),
        ])  # fmt: skip

    for value in model.graph.input:
        code(value.name)
    ends = {value.name for value in model.graph.output}
    for node in model.graph.node:
        copy = result.graph.node.add()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        copy.output[:] = [f"{name}.float" if name in ends else name for name in node.output]
        for name in node.output:
            if name in floats and (inside or name in ends):
                code(name)
    del result.graph.value_info[:]
    if steps > 1:
        # The first to quantise to 16 bits.
        result.opset_import[0].version = max(result.opset_import[0].version, 21)
    onnx.checker.check_model(result)
    return result


# The quantiser leaves these in float where they stand alone.
BY_HAND = frozenset((
    "max_pool", "max_pool_ceil", "average_pool", "average_pool_padding", "mean", "mean_squeezed", "tanh",
    "mean_channels", "mean_last", "maximum_rows", "minimum_channels", "maximum_of_image", "global_max_pool",
    "multiply_float", "subtract", "subtract_constant", "divide", "maximum", "minimum_constant", "prelu",
    "hard_sigmoid", "resize_nearest", "resize_linear", "resize_scales", "slice", "moves",
))  # fmt: skip


def quantized_small(name: str, **settings: Any) -> onnx.ModelProto:
    """A small model of BUILDERS in int8."""
    model = BUILDERS[name]()
    if name in FUNCTIONS_OF_ONE:
        return by_hand(model, settings.get("activation_type", "uint8"), inside=False)
    return by_hand(model, settings.get("activation_type", "uint8")) if name in BY_HAND else quantized(model, **settings)


def _function(name: str, make: Callable[[Model, str], str], opset: int = OPSET) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        m = Model(name, opset)
        return m.build(make(m, m.input(1, 6, 9, 8)))

    return build


def _gelu_by_erf(m: Model, x: str) -> str:
    """As exporters write it."""
    erf = m.op("Erf", m.op("Div", x, m.constant(2**0.5)))
    return m.op("Mul", m.op("Mul", x, m.op("Add", erf, m.constant(1.0))), m.constant(0.5))


def _hard_swish_in_parts(m: Model, x: str) -> str:
    clipped = m.op("Clip", m.op("Add", x, m.constant(3.0)), m.constant(0.0), m.constant(6.0))
    return m.op("Div", m.op("Mul", x, clipped), m.constant(6.0))


# Functions of one tensor, between one pair of codes; several operators become one table.
FUNCTIONS_OF_ONE: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "silu": _function("silu", lambda m, x: m.op("Mul", x, m.op("Sigmoid", x))),
    "gelu_by_erf": _function("gelu_by_erf", _gelu_by_erf),
    "gelu": _function("gelu", lambda m, x: m.op("Gelu", x), 20),
    "gelu_tanh": _function("gelu_tanh", lambda m, x: m.op("Gelu", x, approximate="tanh"), 20),
    "hard_swish_in_parts": _function("hard_swish_in_parts", _hard_swish_in_parts),
    "mish": _function("mish", lambda m, x: m.op("Mish", x), 18),
    "mish_in_parts": _function("mish_in_parts", lambda m, x: m.op("Mul", x, m.op("Tanh", m.op("Softplus", x)))),
    "elu": _function("elu", lambda m, x: m.op("Elu", x, alpha=0.8)),
    "selu": _function("selu", lambda m, x: m.op("Selu", x)),
    "square_root": _function("square_root", lambda m, x: m.op("Sqrt", m.op("Abs", x))),
    "logarithm": _function("logarithm", lambda m, x: m.op("Log", x)),
    "exponential": _function("exponential", lambda m, x: m.op("Exp", m.op("Neg", x))),
    "reciprocal": _function("reciprocal", lambda m, x: m.op("Reciprocal", x)),
    "round": _function("round", lambda m, x: m.op("Floor", m.op("Mul", x, m.constant([2.5])))),
    "power": _function("power", lambda m, x: m.op("Pow", x, m.constant(3.0))),
    "power_of_half": _function("power_of_half", lambda m, x: m.op("Pow", x, m.constant(0.5))),
    "shift_scale": _function("shift_scale", lambda m, x: m.op("Div", m.op("Sub", x, m.constant(0.3)), m.constant(0.7))),
    "scalar": _function("scalar", lambda m, x: m.op("Max", x, m.constant([[[[-0.2]]]]))),
    "square": _function("square", lambda m, x: m.op("Mul", x, x)),
    "slope": _function("slope", lambda m, x: m.op("PRelu", x, m.constant([0.25]))),
}


def _image(name: str, op_type: str, *, opset: int = OPSET, **attributes: Any) -> onnx.ModelProto:
    m = Model(name, opset)
    return m.build(m.op(op_type, m.input(1, 6, 9, 8), **attributes))


def _convolution(name: str, weight: Sequence[int], activation: str = "", **attributes: Any) -> onnx.ModelProto:
    m = Model(name)
    y = m.op("Conv", m.input(1, 6, 9, 8), m.random(*weight), m.random(weight[0]), **attributes)
    if activation == "Clip":
        y = m.op("Clip", y, m.constant(-0.25), m.constant(0.75))
    elif activation:
        y = m.op(activation, y)
    return m.build(y)


def _conv_transpose() -> onnx.ModelProto:
    m = Model("conv_transpose")
    return m.build(m.op("ConvTranspose", m.input(1, 6, 5, 4), m.random(6, 8, 3, 3), m.random(8), strides=[2, 2],
                        pads=[1, 1, 1, 1], output_padding=[1, 1]))  # fmt: skip


def _gemm(transposed: int) -> onnx.ModelProto:
    m = Model(f"gemm_transb{transposed}")
    weight = m.random(7, 12) if transposed else m.random(12, 7)
    return m.build(m.op("Gemm", m.input(2, 12), weight, m.random(7), transB=transposed))


def _matmul() -> onnx.ModelProto:
    m = Model("matmul")
    return m.build(m.op("MatMul", m.input(2, 5, 12), m.random(12, 7)))


def _binary(op_type: str, shape: tuple[int, ...] = (1, 6, 9, 8)) -> onnx.ModelProto:
    m = Model(op_type.lower() + ("" if shape == (1, 6, 9, 8) else "_broadcast"))
    return m.build(m.op(op_type, m.input(1, 6, 9, 8), m.input(*shape)))


def _with_constant(op_type: str, shape: tuple[int, ...], *, first: bool = False) -> onnx.ModelProto:
    m = Model(f"{op_type.lower()}_constant")
    x, constant = m.input(1, 6, 9, 8), m.random(*shape)
    return m.build(m.op(op_type, *((constant, x) if first else (x, constant))))


def _concat() -> onnx.ModelProto:
    m = Model("concat")
    scaled = m.op("Sigmoid", m.input(1, 3, 9, 8))
    return m.build(m.op("Concat", m.input(1, 6, 9, 8), scaled, m.input(1, 2, 9, 8), axis=1))


def _resize(mode: str, coordinates: str) -> onnx.ModelProto:
    m = Model(f"resize_{mode}_{coordinates}")
    sizes = m.constant([1, 6, 15, 20], "int64")
    return m.build(m.op("Resize", m.input(1, 6, 9, 8), "", "", sizes, mode=mode,
                        coordinate_transformation_mode=coordinates))  # fmt: skip


def _upsample() -> onnx.ModelProto:
    m = Model("resize_scales")
    return m.build(m.op("Resize", m.input(1, 6, 9, 8), "", m.constant([1, 1, 2, 2]), mode="nearest",
                        coordinate_transformation_mode="asymmetric", nearest_mode="floor"))  # fmt: skip


def _split() -> onnx.ModelProto:
    m = Model("split")
    parts = m.op("Split", m.input(1, 6, 9, 8), m.constant([2, 4], "int64"), outputs=2, axis=1)
    return m.build(m.op("Relu", parts[0]), m.op("Sigmoid", parts[1]))


def _pad() -> onnx.ModelProto:
    m = Model("pad")
    pads = m.constant([0, 0, 1, 2, 0, 0, 3, 0], "int64")
    return m.build(m.op("Pad", m.input(1, 6, 9, 8), pads, m.constant(0.5)))


def _slice() -> onnx.ModelProto:
    m = Model("slice")
    bounds = ([1, -6], [100, -1], [1, 3], [2, 1])
    return m.build(m.op("Slice", m.input(1, 6, 9, 8), *(m.constant(bound, "int64") for bound in bounds)))


def _moves() -> onnx.ModelProto:
    m = Model("moves")
    y = m.op("Transpose", m.input(1, 6, 9, 8), perm=[0, 2, 3, 1])
    y = m.op("Reshape", y, m.constant([1, -1, 3], "int64"))
    y = m.op("Unsqueeze", y, m.constant([0], "int64"))
    y = m.op("Squeeze", y, m.constant([1], "int64"))
    return m.build(m.op("Flatten", y))


def _shared() -> onnx.ModelProto:
    """One quantised tensor read by three operators, whose DequantizeLinear the quantiser shares."""
    m = Model("shared_dequantize")
    x = m.op("Conv", m.input(1, 4, 6, 6), m.random(4, 4, 1, 1))
    left, right = m.op("Conv", x, m.random(4, 4, 1, 1)), m.op("MaxPool", x, kernel_shape=[1, 1])
    return m.build(m.op("Add", m.op("Add", left, right), x))


def _mean(keepdims: int) -> onnx.ModelProto:
    m = Model(f"mean_keepdims{keepdims}")
    return m.build(m.op("ReduceMean", m.input(1, 6, 9, 8), axes=[2, 3], keepdims=keepdims))


def _signal(name: str, weights: Sequence[tuple[int, ...]], **attributes: Any) -> Callable[[], onnx.ModelProto]:
    """Convolutions over one axis, one after the other."""

    def build() -> onnx.ModelProto:
        m = Model(name)
        y = m.input(2, 6, 31)
        for weight in weights:
            y = m.op("Conv", y, m.random(*weight), m.random(weight[0]), **attributes)
        return m.build(m.op("Relu", y))

    return build


def _reduce(op_type: str, axes: Sequence[int], keepdims: int = 1) -> Callable[[], onnx.ModelProto]:
    return lambda: _image("reduction", op_type, axes=axes, keepdims=keepdims)


def _float_middle() -> onnx.ModelProto:
    """An operator the NPU does not know between two that it does."""
    m = Model("float_middle")
    x = m.op("Conv", m.input(1, 4, 6, 6), m.random(4, 4, 1, 1))
    return m.build(m.op("Conv", m.op("Trilu", x), m.random(4, 4, 1, 1)))


BUILDERS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    **FUNCTIONS_OF_ONE,
    "conv": lambda: _convolution("conv", (8, 6, 3, 3), strides=[2, 1], pads=[1, 0, 2, 1]),
    "conv_relu": lambda: _convolution("conv_relu", (8, 6, 3, 3), "Relu", auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv_clip": lambda: _convolution("conv_clip", (8, 6, 1, 1), "Clip"),
    "conv_dilated": lambda: _convolution("conv_dilated", (8, 6, 3, 3), dilations=[2, 2]),
    "conv_grouped": lambda: _convolution("conv_grouped", (8, 3, 3, 3), group=2),
    "conv_signal": _signal("conv_signal", [(8, 6, 3), (5, 8, 1)], strides=[2], pads=[1, 2]),
    "conv_signal_depthwise": _signal("conv_signal_depthwise", [(6, 1, 5)], group=6, dilations=[2]),
    "conv_depthwise": lambda: _convolution("conv_depthwise", (6, 1, 3, 3), group=6, pads=[1, 1, 1, 1]),
    "conv_transpose": _conv_transpose,
    "gemm": lambda: _gemm(0),
    "gemm_transposed": lambda: _gemm(1),
    "matmul": _matmul,
    "add": lambda: _binary("Add"),
    "add_broadcast": lambda: _binary("Add", (6, 1, 1)),
    "multiply": lambda: _binary("Mul"),
    "add_constant": lambda: _with_constant("Add", (6, 1, 1)),
    "add_constant_first": lambda: _with_constant("Add", (6, 1, 1), first=True),
    "multiply_constant": lambda: _with_constant("Mul", (1, 6, 9, 8)),
    "multiply_float": lambda: _with_constant("Mul", (8,)),
    "subtract": lambda: _binary("Sub"),
    "subtract_constant": lambda: _with_constant("Sub", (9, 1), first=True),
    "divide": lambda: _binary("Div", (6, 1, 1)),
    "maximum": lambda: _binary("Max"),
    "minimum_constant": lambda: _with_constant("Min", (6, 9, 1)),
    "prelu": lambda: _with_constant("PRelu", (6, 1, 1)),
    "concat": _concat,
    "max_pool": lambda: _image("max_pool", "MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "max_pool_ceil": lambda: _image("max_pool_ceil", "MaxPool", kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1),
    "average_pool": lambda: _image("average_pool", "AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average_pool_padding": lambda: _image("average_pool_padding", "AveragePool", kernel_shape=[3, 3],
                                           pads=[1, 1, 1, 1], count_include_pad=1),
    "global_average_pool": lambda: _image("global_average_pool", "GlobalAveragePool"),
    "mean": lambda: _mean(1),
    "mean_squeezed": lambda: _mean(0),
    "mean_channels": _reduce("ReduceMean", [1]),
    "mean_last": _reduce("ReduceMean", [-1], keepdims=0),
    "maximum_rows": _reduce("ReduceMax", [2], keepdims=0),
    "minimum_channels": _reduce("ReduceMin", [1], keepdims=0),
    "maximum_of_image": _reduce("ReduceMax", [1, 2, 3]),
    "global_max_pool": lambda: _image("global_max_pool", "GlobalMaxPool"),
    "sigmoid": lambda: _image("sigmoid", "Sigmoid"),
    "tanh": lambda: _image("tanh", "Tanh"),
    "leaky_relu": lambda: _image("leaky_relu", "LeakyRelu", alpha=0.1),
    "hard_sigmoid": lambda: _image("hard_sigmoid", "HardSigmoid", alpha=0.25, beta=0.4),
    "hard_swish": lambda: _image("hard_swish", "HardSwish"),
    "softmax": lambda: _image("softmax", "Softmax", axis=-1),
    "softmax_channels": lambda: _image("softmax_channels", "Softmax", axis=1),
    "resize_nearest": lambda: _resize("nearest", "half_pixel"),
    "resize_linear": lambda: _resize("linear", "align_corners"),
    "resize_scales": _upsample,
    "split": _split,
    "pad": _pad,
    "slice": _slice,
    "moves": _moves,
    "shared_dequantize": _shared,
    "float_middle": _float_middle,
}  # fmt: skip
