"""The last resort: a model that the front end refuses, taken whole by TVM for the host as it stands.

TVM's importer takes some models as they were written that are refused here: extents that are known only when the model
runs, sequences of tensors.
"""

from __future__ import annotations

import contextlib
import io
import warnings

import onnx

from npu_backend.errors import NpuError
from tvm_ext.generation import RELAX, generation
from tvm_ext.onnx_graph import name_nodes
from tvm_ext.package import HostOp
from tvm_ext.parts import Partitioned


def on_host(model: onnx.ModelProto, refusal: NpuError) -> Partitioned | None:
    """The model with every operator on the host and `refusal` as the reason; None where TVM takes it no more."""
    if generation() != RELAX:
        return None
    from tvm import relax  # noqa: PLC0415
    from tvm.relax.frontend.onnx import from_onnx  # noqa: PLC0415

    from tvm_ext.relax_values import described  # noqa: PLC0415

    try:
        # The importer prints before it raises.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            module = relax.transform.DecomposeOpsForInference()(from_onnx(model, keep_params_in_input=False))
    # What its converters raise for a form they do not know can be anything; the refusal says more.
    except Exception:  # noqa: BLE001
        return None
    nodes = name_nodes(model.graph.node)
    host_ops = tuple(HostOp(node.name, node.op_type, str(refusal)) for node in nodes)
    result = module["main"].ret_ty
    types = [result] if len(model.graph.output) == 1 else result.fields
    return Partitioned(module, {}, (), host_ops, tuple(map(described, types)))
