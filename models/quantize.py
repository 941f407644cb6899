"""Static quantisation by ONNX Runtime's own quantiser, with photographs for calibration and a cache on disk."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from models import build
from models.builder import IR_VERSION
from models.cache import cache_directory, write_atomically
from models.count import count
from models.photographs import calibration_images
from npu_backend.errors import ModelError, OptionError

Feed = Mapping[str, NDArray[Any]]

TYPES = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
FORMS = {"qdq": QuantFormat.QDQ, "qoperator": QuantFormat.QOperator}
# QuantizeLinear and DequantizeLinear know a channel axis from opset 13 on.
MINIMUM_OPSET = 13
# UNet at 572 takes 239 GMAC for one image: two of them are calibrated in 20 s.
CALIBRATION_MACS = 100_000_000_000
# Part of the cache key: raise it when this file changes what it produces.
CACHE_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """How to quantise; `symmetric` puts the activations' zero point at 0, which keeps Relu and Clip as nodes."""

    activation_type: str = "uint8"
    weight_type: str = "int8"
    per_channel: bool = True
    form: str = "qdq"
    symmetric: bool = False


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration feeds to ONNX Runtime one by one."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def quantize(
    model: onnx.ModelProto,
    calibration: Sequence[Feed],
    activation_type: str = "uint8",
    weight_type: str = "int8",
    per_channel: bool = True,
    form: str = "qdq",
    symmetric: bool = False,
) -> onnx.ModelProto:
    """Quantise a float model: MinMax ranges over `calibration`, opset 13 or later, shapes inferred.

    The result is cached per user by model, feeds, settings and versions. Raises OptionError for an unknown setting and
    ModelError when the feeds do not run through the model.
    """
    settings = Settings(activation_type, weight_type, per_channel, form, symmetric)
    _check(settings, calibration)
    cached = cache_directory() / f"{model.graph.name}-{_key(model, calibration, settings)}.onnx"
    if cached.is_file():
        return onnx.load(cached)
    quantized = _quantize(model, calibration, settings)
    write_atomically(cached, quantized.SerializeToString(deterministic=True))
    return quantized


def calibration_feeds(model: onnx.ModelProto, images: int = 8) -> list[Feed]:
    """Photographs cropped and resized to the model's only input, float32[1, 1 or 3, height, width] in [-1, 1]."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise ModelError(f"{model.graph.name}: photographs need one image input, it has {len(inputs)} ({names})")
    shape = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
    if len(shape) != 4 or min(shape) < 1:
        raise ModelError(f"input {inputs[0].name!r} has shape {shape}; photographs need a static NCHW shape")
    _, channels, height, width = shape
    return [{inputs[0].name: image} for image in calibration_images(height, width, channels, images)]


def build_quantized(
    name: str, input_size: int | None = None, seed: int = 0, images: int | None = None, **settings: Any
) -> onnx.ModelProto:
    """The network `name` of models.NETWORKS, quantised on `images` photographs; `settings` as quantize() takes them.

    By default 8 photographs, or as many (at least two) as CALIBRATION_MACS allows.
    """
    model = build(name, input_size, seed)
    affordable = max(2, min(8, CALIBRATION_MACS // count(model).macs))
    return quantize(model, calibration_feeds(model, affordable if images is None else images), **settings)


def float_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of a QDQ model that no DequantizeLinear and QuantizeLinear wrap on every side: they stay in float."""
    inside: set[str] = {tensor.name for tensor in model.graph.initializer} | {""}
    to_integer: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            inside.add(node.output[0])
        if node.op_type == "QuantizeLinear":
            to_integer.add(node.input[0])
    return [
        node
        for node in model.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
        and not (inside.issuperset(node.input) and to_integer.issuperset(node.output))
    ]


def _check(settings: Settings, calibration: Sequence[Feed]) -> None:
    choices = (
        ("activation_type", settings.activation_type, TYPES),
        ("weight_type", settings.weight_type, TYPES),
        ("form", settings.form, FORMS),
    )
    for name, value, known in choices:
        if value not in known:
            raise OptionError(f"{name} {value!r} is unknown; choose one of {', '.join(known)}")
    if settings.symmetric and settings.activation_type == "uint8":
        raise OptionError("symmetric activations need activation_type 'int8', not 'uint8'")
    if not calibration:
        raise OptionError("quantising needs at least one calibration image, got none")


def _key(model: onnx.ModelProto, calibration: Sequence[Feed], settings: Settings) -> str:
    digest = hashlib.sha256()
    versions = (CACHE_VERSION, onnx.__version__, onnxruntime.__version__, np.__version__)
    digest.update(repr((sorted(asdict(settings).items()), versions)).encode())
    digest.update(model.SerializeToString(deterministic=True))
    for feed in calibration:
        for name, value in sorted(feed.items()):
            digest.update(repr((name, value.dtype.str, value.shape)).encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:32]


def _quantize(model: onnx.ModelProto, calibration: Sequence[Feed], settings: Settings) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="npu_quantize.") as folder:
        prepared, output = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        try:
            onnx.save(_folded(_raise_opset(model), Path(folder)), prepared)
            quantize_static(
                prepared,
                output,
                _Reader(calibration),
                quant_format=FORMS[settings.form],
                per_channel=settings.per_channel,
                activation_type=TYPES[settings.activation_type],
                weight_type=TYPES[settings.weight_type],
                extra_options={"ActivationSymmetric": settings.symmetric},
            )
        except (ValueError, RuntimeError, onnx.checker.ValidationError) as error:
            raise ModelError(f"{model.graph.name}: ONNX Runtime's quantiser failed: {error}") from error
        return _tidy(onnx.load(output), model, settings)


def _raise_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return model if opset >= MINIMUM_OPSET else onnx.version_converter.convert_version(model, MINIMUM_OPSET)


def _folded(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Constants, batch normalisations and biases folded by ONNX Runtime, as its guide asks before quantising."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "folded.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # A model written back is tied to the machine only above this level, of which ONNX Runtime warns regardless.
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(folder / "folded.onnx")
    _flatten_biases(folded.graph)
    _hide_weights(folded)
    add_pre_process_metadata(folded)
    return folded


def _flatten_biases(graph: onnx.GraphProto) -> None:
    """Gemm biases of shape [1, n], which a MatMul and an Add fold into, to [n]: the quantiser expects a vector."""
    biases = {node.input[2] for node in graph.node if node.op_type == "Gemm" and len(node.input) == 3}
    for tensor in graph.initializer:
        if tensor.name in biases and list(tensor.dims[:-1]) == [1]:
            del tensor.dims[0]


def _hide_weights(model: onnx.ModelProto) -> None:
    """Weights are no longer declared as graph inputs, as IR versions before 4 demanded."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for declared in (model.graph.value_info, model.graph.input):
        kept = [value for value in declared if value.name not in weights]
        del declared[:]
        declared.extend(kept)
    model.ir_version = max(model.ir_version, IR_VERSION)


def _tidy(quantized: onnx.ModelProto, model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
    """Drop the operator domains ONNX Runtime imports without using them, and infer the shapes of what it inserted."""
    used = {node.domain for node in quantized.graph.node}
    imports = [entry for entry in quantized.opset_import if entry.domain in used]
    del quantized.opset_import[:]
    quantized.opset_import.extend(imports)
    quantized.graph.name = model.graph.name
    inferred = onnx.shape_inference.infer_shapes(quantized, strict_mode=settings.form == "qdq", data_prop=True)
    onnx.checker.check_model(inferred)
    return inferred
