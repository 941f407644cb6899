"""ONNX Runtime as the reference of whole models: its integer kernels, alike on every processor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from tvm_ext.float_resizes import with_float_resizes

Arrays = Mapping[str, np.ndarray]


def session(model: onnx.ModelProto, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    """One thread, all optimisations; `optimized` is where the graph it makes of the model is written."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # int8 activations run in float halfway without the first option, and have no kernels under the second; with uint8
    # activations, kernels of processors without VNNI saturate unless it is set.
    option = "session.qdqisint8allowed" if int8_activations(model) else "session.x64quantprecision"
    options.add_session_config_entry(option, "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def outputs_of(model: onnx.ModelProto, feeds: Iterable[Arrays]) -> list[dict[str, np.ndarray]]:
    """The outputs for each of `feeds`, by name."""
    names = [value.name for value in model.graph.output]
    running = session(with_float_resizes(model, onnxruntime.__version__) or model)
    return [dict(zip(names, running.run(names, dict(feed)), strict=True)) for feed in feeds]


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """The model with the values `names` among its outputs."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    present = {value.name for value in exposed.graph.output}
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return exposed


def int8_activations(model: onnx.ModelProto) -> bool:
    """Whether every QuantizeLinear of the model makes int8."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    zero_points = [node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return all(types[name] == onnx.TensorProto.INT8 for name in zero_points)
