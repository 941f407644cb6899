"""Float models quantised by ONNX Runtime's own quantiser, with a cache per user, and the error that it makes."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from npu_backend.errors import ModelError, OptionError, OutputError
from npu_backend.files import write_atomically
from npu_backend.toolchain import cache_directory
from tvm_ext.batch_norm import fold_batch_norms
from tvm_ext.calibration import Feed, check_feeds
from tvm_ext.onnx_opset import opset_of
from tvm_ext.onnx_runtime import import_onnx_runtime, refusals

LOG = logging.getLogger("npuc.quantize")
WEIGHT_TYPES = ("uint8", "int8")
ACTIVATION_TYPES = (*WEIGHT_TYPES, "uint16", "int16")
SIGNED = ("int8", "int16")
FORMS = ("qdq", "qoperator")
# QuantizeLinear and DequantizeLinear know a channel axis from opset 13 on.
MINIMUM_OPSET = 13
# And 16-bit codes from 21 on; before, ONNX Runtime's own domain has them.
MINIMUM_WIDE_OPSET = 21
# Weights are graph inputs too before version 4, which is over here; 8 goes with opset 13 and later.
MINIMUM_IR_VERSION = 8
# On the NPU these are exact between codes; in float they would break a network into many partitions.
ELEMENTWISE = ("Abs", "Div", "HardSigmoid", "HardSwish", "Max", "Min", "Neg", "PRelu", "Sub")
LARGEST_MODEL_BYTES = (1 << 31) - 1
# Part of the cache key: raise it when this file changes what it produces.
CACHE_VERSION = 6
PURPOSE = "quantising"
_CODING = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_INTEGER_PREFIXES = ("QLinear", "QGemm", "QAttention", "MatMulInteger", "ConvInteger", "DynamicQuantize")


@dataclass(frozen=True)
class Settings:
    """How to quantise; `symmetric` puts the activations' zero point at 0, which keeps Relu and Clip as nodes."""

    activation_type: str = "uint8"
    weight_type: str = "int8"
    per_channel: bool = True
    form: str = "qdq"
    symmetric: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether activations have 16 bits."""
        return self.activation_type.endswith("16")


# What the name given to --quantize stands for.
PRESETS = {"int8": Settings(), "int16": Settings(activation_type="uint16")}


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

    The result is cached per user by model, feeds, settings and versions. Raises OptionError for an unknown setting,
    InputError for feeds that do not fit the inputs and ModelError for a model that the quantiser refuses.
    """
    settings = Settings(activation_type, weight_type, per_channel, form, symmetric)
    _check_settings(settings, calibration)
    check_model(model)
    check_feeds(model, calibration)
    cached = cache_directory() / "quantized" / f"{_key(model, calibration, settings)}.onnx"
    if cached.is_file():
        return onnx.load(cached)
    quantized = _quantize(model, calibration, settings)
    _keep(cached, quantized.SerializeToString(deterministic=True))
    return quantized


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether the model holds quantised operators already, in any form."""
    return any(node.op_type in _CODING or node.op_type.startswith(_INTEGER_PREFIXES) for node in model.graph.node)


def check_model(model: onnx.ModelProto) -> None:
    """Raises ModelError for a model that is quantised already, or too large for the quantiser."""
    if is_quantized(model):
        raise ModelError(f"{model.graph.name}: the model is quantised already; leave out --quantize")
    if model.ByteSize() > LARGEST_MODEL_BYTES:
        raise ModelError(f"{model.graph.name}: {model.ByteSize()} bytes with its weights; ONNX Runtime's quantiser"
                         f" takes {LARGEST_MODEL_BYTES} at most, so quantise it in parts")  # fmt: skip


def _check_settings(settings: Settings, calibration: Sequence[Feed]) -> None:
    choices = (
        ("activation_type", settings.activation_type, ACTIVATION_TYPES),
        ("weight_type", settings.weight_type, WEIGHT_TYPES),
        ("form", settings.form, FORMS),
    )
    for name, value, known in choices:
        if value not in known:
            raise OptionError(f"{name} {value!r} is unknown; choose one of {', '.join(known)}")
    if settings.symmetric and settings.activation_type not in SIGNED:
        raise OptionError(f"symmetric activations need a signed activation_type ({', '.join(SIGNED)}), not"
                          f" {settings.activation_type!r}")  # fmt: skip
    if settings.is_wide and settings.form != "qdq":
        raise OptionError(f"{settings.activation_type} activations come in form 'qdq' only, not {settings.form!r}")
    if not calibration:
        raise OptionError("quantising needs at least one calibration sample, got none")


def _key(model: onnx.ModelProto, calibration: Sequence[Feed], settings: Settings) -> str:
    onnxruntime = import_onnx_runtime(PURPOSE)
    digest = hashlib.sha256()
    versions = (CACHE_VERSION, onnx.__version__, onnxruntime.__version__, np.__version__)
    digest.update(repr((sorted(asdict(settings).items()), versions)).encode())
    digest.update(model.SerializeToString(deterministic=True))
    for feed in calibration:
        for name, value in sorted(feed.items()):
            digest.update(repr((name, value.dtype.str, value.shape)).encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:32]


def _keep(path: Path, content: bytes) -> None:
    """A cache that cannot be written costs time, no more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except (OSError, OutputError):
        return


class _Reader:
    """Hands the calibration feeds to ONNX Runtime one by one."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def _quantize(model: onnx.ModelProto, calibration: Sequence[Feed], settings: Settings) -> onnx.ModelProto:
    onnxruntime = import_onnx_runtime(PURPOSE)
    with tempfile.TemporaryDirectory(prefix="npu_quantize.") as folder:
        try:
            prepared = _folded(onnxruntime, _raise_opset(model, settings), Path(folder))
            quantized = _tidy(_quantize_static(prepared, calibration, settings, Path(folder)), model)
        except _quantiser_errors(onnxruntime) as error:
            raise ModelError(f"{model.graph.name}: ONNX Runtime's quantiser failed: {error}") from error
    if settings.form == "qdq" and not is_quantized(quantized):
        kinds = ", ".join(dict.fromkeys(node.op_type for node in model.graph.node))
        raise ModelError(f"{model.graph.name}: ONNX Runtime's quantiser takes none of its operators ({kinds}), nor what"
                         " is inside an If or Loop; leave out --quantize")  # fmt: skip
    return quantized


def _quantiser_errors(onnxruntime: Any) -> tuple[type[Exception], ...]:
    """What its preparation and the quantiser raise for a model that is not theirs."""
    return *refusals(onnxruntime), onnx.checker.ValidationError, onnx.shape_inference.InferenceError


def _quantize_static(
    prepared: onnx.ModelProto, calibration: Sequence[Feed], settings: Settings, folder: Path
) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    types = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8, "uint16": QuantType.QUInt16, "int16": QuantType.QInt16}
    source, target = folder / "prepared.onnx", folder / "quantized.onnx"
    onnx.save(prepared, source)
    with _root_log_as_info():
        quantize_static(
            source,
            target,
            _Reader(calibration),
            op_types_to_quantize=_operators(settings.form),
            quant_format={"qdq": QuantFormat.QDQ, "qoperator": QuantFormat.QOperator}[settings.form],
            per_channel=settings.per_channel,
            activation_type=types[settings.activation_type],
            weight_type=types[settings.weight_type],
            extra_options={"ActivationSymmetric": settings.symmetric},
        )
    return onnx.load(target)


def _operators(form: str) -> list[str]:
    """What the quantiser is to take: in QDQ form also element-wise operators that it leaves in float by itself."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry  # noqa: PLC0415

    return [*dict.fromkeys((*QDQRegistry, *QLinearOpsRegistry, *(ELEMENTWISE if form == "qdq" else ())))]


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def _root_log_as_info() -> Iterator[None]:
    """The quantiser warns of weights it leaves alone, through the root logger and straight to the user."""
    root, collector = logging.getLogger(), _Collector()
    before, root.handlers = root.handlers, [collector]
    try:
        yield
    finally:
        root.handlers = before
        for message in collector.messages:
            LOG.info("%s", message)


def _raise_opset(model: onnx.ModelProto, settings: Settings) -> onnx.ModelProto:
    least = MINIMUM_WIDE_OPSET if settings.is_wide else MINIMUM_OPSET
    if opset_of(model) >= least:
        return model
    raised = onnx.ModelProto()
    raised.CopyFrom(model)
    # What is declared as an input is no constant to ONNX Runtime, and would not fold.
    _hide_weights(raised)
    return onnx.version_converter.convert_version(raised, least)


def _folded(onnxruntime: Any, model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Constants, batch normalisations and biases folded by ONNX Runtime, as its guide asks before quantising."""
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata  # noqa: PLC0415

    folded = _optimized(onnxruntime, model, folder)
    if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer):
        # The first pass puts a cast to float32 behind every half-precision weight, the second folds them.
        folded = _optimized(onnxruntime, folded, folder)
    # Only now, for ONNX Runtime has put into convolutions what it can.
    fold_batch_norms(folded)
    _flatten_biases(folded.graph)
    _hide_weights(folded)
    add_pre_process_metadata(folded)
    return folded


def _optimized(onnxruntime: Any, model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "folded.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # A model written back is tied to the machine only above this level, of which ONNX Runtime warns regardless.
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "folded.onnx")


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
    model.ir_version = max(model.ir_version, MINIMUM_IR_VERSION)


def _tidy(quantized: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the operator domains ONNX Runtime imports without using them, and infer the shapes of what it inserted."""
    used = {node.domain for node in quantized.graph.node}
    imports = [entry for entry in quantized.opset_import if entry.domain in used]
    del quantized.opset_import[:]
    quantized.opset_import.extend(imports)
    quantized.graph.name = model.graph.name
    inferred = onnx.shape_inference.infer_shapes(quantized, data_prop=True)
    onnx.checker.check_model(inferred)
    return inferred
