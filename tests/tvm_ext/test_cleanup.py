"""Loading and cleaning ONNX files: what is refused and with which message, and what is rewritten."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from npu_backend.errors import ModelError, UnsupportedError
from tests.tvm_ext.small_models import BUILDERS, Model, feeds, quantized_small
from tvm_ext.importer import import_onnx
from tvm_ext.onnx_cleanup import clean
from tvm_ext.onnx_load import fix_shapes, load_model
from tvm_ext.onnx_origin import origins


@pytest.fixture
def conv_file(tmp_path):
    path = tmp_path / "conv.onnx"
    onnx.save(BUILDERS["conv"](), path)
    return path


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    results: list[np.ndarray] = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, inputs)
    return results


def message_of(path, shapes=None) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(path, shapes)
    return str(caught.value)


def test_missing_file(tmp_path):
    assert message_of(tmp_path / "none.onnx").endswith("none.onnx: no such file")


def test_folder(tmp_path):
    assert "cannot be read: Is a directory" in message_of(tmp_path)


@pytest.mark.parametrize("part", [0.01, 0.3, 0.5, 0.9, 0.99])
def test_truncated_file(conv_file, part):
    data = conv_file.read_bytes()
    conv_file.write_bytes(data[: int(len(data) * part)])
    message = message_of(conv_file)
    assert str(conv_file) in message
    assert "truncated" in message or "not a valid ONNX model" in message


@pytest.mark.parametrize("data", [b"", b"hello, world", b"PK\x03\x04" + bytes(100), bytes(range(256))])
def test_not_onnx(tmp_path, data):
    path = tmp_path / "text.onnx"
    path.write_bytes(data)
    assert "no ONNX model" in message_of(path)


def test_invalid_model(tmp_path):
    model = BUILDERS["conv"]()
    model.graph.node[0].input[0] = "nowhere"
    path = tmp_path / "invalid.onnx"
    onnx.save(model, path)
    assert "not a valid ONNX model" in message_of(path)


def test_missing_external_data(tmp_path):
    path = tmp_path / "external.onnx"
    onnx.save(BUILDERS["conv"](), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    load_model(path)
    (tmp_path / "weights.bin").unlink()
    assert "weights are in weights.bin, which must lie beside it and does not exist" in message_of(path)


def dynamic_model() -> onnx.ModelProto:
    model = BUILDERS["conv"]()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return model


def test_dynamic_shape_names_input_and_lever():
    with pytest.raises(ModelError, match=r"'x0' has dynamic extents \(batch, height\).*--shapes x0:\[1,6,N,8\]"):
        fix_shapes(dynamic_model(), {})


def test_dynamic_shape_is_fixed():
    fixed = fix_shapes(dynamic_model(), {"x0": [2, 6, 11, 8]})
    assert [dim.dim_value for dim in fixed.graph.input[0].type.tensor_type.shape.dim] == [2, 6, 11, 8]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x9": [1]}, "'x9', which is no input of the model; its inputs: x0"),
        ({"x0": [1, 7, 9, 8]}, r"\[1, 7, 9, 8\], but the model says \[batch, 6, height, 8\]"),
        ({"x0": [1, 6, 9]}, r"\[1, 6, 9\], but the model says"),
        ({"x0": [1, 6, -1, 8]}, "every extent must be 0 or more"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ModelError, match=message):
        fix_shapes(dynamic_model(), shapes)


def test_unknown_operator_is_named():
    node = helper.make_node("Mystery", ["x"], ["y"], name="riddle", domain="acme")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)])
    with pytest.raises(UnsupportedError, match=r"Mystery 'riddle': TVM's importer refuses it"):
        import_onnx(clean(model))


def test_every_node_gets_a_name_of_its_own():
    model = BUILDERS["moves"]()
    for node in model.graph.node:
        node.name = "same" if node.op_type in ("Reshape", "Flatten") else ""
    names = [node.name for node in clean(model).graph.node]
    assert len(set(names)) == len(names)
    assert "same" in names
    assert all(names)


def test_cleaning_leaves_the_model_alone():
    model = quantized_small("shared_dequantize")
    before = model.SerializeToString(deterministic=True)
    clean(model)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", sorted(BUILDERS))
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_cleaned_model_computes_the_same(name, form):
    model = quantized_small(name, form=form)
    cleaned = clean(model)
    onnx.checker.check_model(cleaned)
    assert not any(node.op_type.startswith(("QLinear", "QGemm")) for node in cleaned.graph.node)
    (inputs,) = feeds(model)
    for expected, actual in zip(run(model, inputs), run(cleaned, inputs), strict=True):
        if form == "qdq":
            np.testing.assert_array_equal(actual, expected)
        else:  # integer kernels against float between codes: a few steps of the 8-bit range
            assert np.abs(actual - expected).max() <= 0.02 * np.ptp(expected)


def test_quantised_clip_bounds_become_numbers():
    model = quantized_small("conv_clip", activation_type="int8", symmetric=True)
    (clip,) = (node for node in model.graph.node if node.op_type == "Clip")
    producers = {node.output[0]: node.op_type for node in model.graph.node}
    if producers.get(clip.input[1]) != "DequantizeLinear":
        tensors = [numpy_helper.from_array(np.array(-10, np.int8), "low"),
                   numpy_helper.from_array(np.float32(0.025), "low_scale")]  # fmt: skip
        model.graph.initializer.extend(tensors)
        model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["low", "low_scale"], ["low_value"]))
        clip.input[1] = "low_value"
    cleaned = clean(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in cleaned.graph.initializer}
    (clip,) = (node for node in cleaned.graph.node if node.op_type == "Clip")
    assert constants[clip.input[1]] == np.float32(-0.25)


@pytest.mark.parametrize(("zero_point", "kept"), [(np.uint8(0), 0), (np.int8(-128), 0), (np.uint8(3), 1)])
def test_relu_of_an_input_is_saturation(zero_point, kept):
    m = Model("relu_first")
    scale = m.constant(0.1)
    codes = m.op("QuantizeLinear", m.op("Relu", m.input(1, 6)), scale, m.constant(zero_point, zero_point.dtype.name))
    model = m.build(m.op("DequantizeLinear", codes, scale, m.constant(zero_point, zero_point.dtype.name)))
    cleaned = clean(model)
    assert [node.op_type for node in cleaned.graph.node].count("Relu") == kept
    named = {name for node in cleaned.graph.node for name, _ in origins(node)}
    assert {"relu", "quantizelinear"} <= named
    (inputs,) = feeds(model)
    np.testing.assert_array_equal(run(cleaned, inputs)[0], run(model, inputs)[0])


def test_constants_fold():
    """Weights as light model zoos write them, and a shape computed from the input's."""
    m = Model("folded")
    x = m.input(1, 6, 4, 4)
    value = numpy_helper.from_array(np.array([0.5], np.float32))
    weight = m.op("ConstantOfShape", m.constant([8, 6, 1, 1], "int64"), value=value)
    y = m.op("Dropout", m.op("Identity", m.op("Conv", x, weight)))
    batch = m.op("Gather", m.op("Shape", x), m.constant(0, "int64"), axis=0)
    shape = m.op("Concat", m.op("Unsqueeze", batch, m.constant([0], "int64")), m.constant([-1], "int64"), axis=0)
    model = m.build(m.op("Reshape", y, shape))
    cleaned = clean(model)
    assert [node.op_type for node in cleaned.graph.node] == ["Conv", "Reshape"]
    (inputs,) = feeds(model)
    np.testing.assert_array_equal(run(cleaned, inputs)[0], run(model, inputs)[0])


def test_shapes_behind_computed_shapes_fold():
    """The second Reshape asks for the shape of what the first one made, whose own target had to fold before."""
    m = Model("two_reshapes")
    x = m.input(2, 3, 4)

    def flat(value):
        rows = m.op("Slice", m.op("Shape", value), m.constant([0], "int64"), m.constant([1], "int64"))
        return m.op("Reshape", value, m.op("Concat", rows, m.constant([-1], "int64"), axis=0))

    model = m.build(flat(m.op("Neg", flat(m.op("Abs", x)))))
    del model.graph.value_info[:]
    cleaned = clean(model)
    assert [node.op_type for node in cleaned.graph.node] == ["Abs", "Reshape", "Neg", "Reshape"]
    (inputs,) = feeds(model)
    np.testing.assert_array_equal(run(cleaned, inputs)[0], run(model, inputs)[0])


def test_old_unsqueeze_folds():
    m = Model("old_unsqueeze", opset=11)
    row = m.op("Unsqueeze", m.constant([1, 2, 3]), axes=[0, -1])
    model = m.build(m.op("Add", m.input(2, 3, 1), row))
    cleaned = clean(model)
    assert [node.op_type for node in cleaned.graph.node] == ["Add"]
    (inputs,) = feeds(model)
    np.testing.assert_array_equal(run(cleaned, inputs)[0], run(model, inputs)[0])


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_auto_pad_becomes_pads(mode, op_type):
    m = Model("auto_pad")
    model = m.build(m.op(op_type, m.input(1, 3, 9, 8), kernel_shape=[2, 3], strides=[2, 2], auto_pad=mode))
    cleaned = clean(model)
    assert "auto_pad" not in {attribute.name for attribute in cleaned.graph.node[0].attribute}
    (inputs,) = feeds(model)
    np.testing.assert_array_equal(run(cleaned, inputs)[0], run(model, inputs)[0])


def test_old_opset_is_raised():
    m = Model("old", opset=9)
    model = m.build(m.op("Conv", m.input(1, 6, 4, 4), m.random(8, 6, 1, 1)))
    assert clean(model).opset_import[0].version == 13


@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("extents", [(10, 13), (9, 12), (11, 15)])
def test_output_shape_becomes_pads(mode, extents):
    m = Model("output_shape")
    x = m.input(1, 3, 5, 5)
    model = m.build(m.op("ConvTranspose", x, m.random(3, 2, 3, 2), strides=[2, 3], output_shape=extents, auto_pad=mode))
    cleaned = clean(model)
    names = {attribute.name for attribute in cleaned.graph.node[0].attribute}
    assert names.isdisjoint({"output_shape", "auto_pad"})
    (inputs,) = feeds(model)
    np.testing.assert_array_equal(run(cleaned, inputs)[0], run(model, inputs)[0])


@pytest.mark.parametrize("ir_version", [3, 8])
def test_automatic_padding_becomes_explicit_behind_another_window(ir_version):
    """Before IR version 4 initializers told their shapes as inputs, which the clean-up takes away."""
    builder = Model("same")
    x = builder.input(1, 1, 8, 8)
    for channels in ((2, 1), (3, 2)):
        x = builder.op("Conv", x, builder.random(*channels, 3, 3), auto_pad="SAME_UPPER")
    model = builder.build(x)
    del model.graph.value_info[:]
    model.ir_version = ir_version
    convolutions = [node for node in clean(model).graph.node if node.op_type == "Conv"]
    assert [helper.get_node_attr_value(node, "pads") for node in convolutions] == [[1, 1, 1, 1]] * 2
