"""A model run by TVM on the host, whatever the NPU would take of it."""

from __future__ import annotations

import numpy as np
import onnx
import tvm
from tvm import relax

from tests.tvm_ext.by_runtime import Feed
from tvm_ext.importer import import_onnx
from tvm_ext.onnx_cleanup import clean
from tvm_ext.outline import outline
from tvm_ext.relax_values import Values
from tvm_ext.whole import onnx_call


def calls(model: onnx.ModelProto) -> list[str]:
    """The operators of the imported model in order: a Relax name, or an ONNX type where it is kept whole."""
    main = import_onnx(clean(model)).module["main"]
    values = [binding.value for block in main.body.blocks for binding in block.bindings]
    return [onnx_call(value) or value.op.name for value in values if isinstance(value, tvm.ir.Call)]


def on_host(model: onnx.ModelProto, feed: Feed) -> list[np.ndarray]:
    """The outputs, computed by TVM."""
    cleaned = clean(model)
    imported = import_onnx(cleaned)
    module = outline(imported, Values.of(imported), [])
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    results = machine["main"](*[tvm.runtime.tensor(feed[value.name]) for value in cleaned.graph.input])
    return [item.numpy() for item in ([results] if hasattr(results, "numpy") else results)]
