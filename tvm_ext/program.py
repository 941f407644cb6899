"""An imported module indexed for matching: who reads what, and which variables hold codes of which scale."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from onnx import numpy_helper
from tvm import relax

from npu_backend.graph import Quantization
from tvm_ext.importer import Imported
from tvm_ext.matching import Program, dtype_of, is_call, quantization_of_call, variables_in

# Operators whose output holds the codes of their (first) input.
_KEEPS_CODES = (
    "relax.reshape", "relax.permute_dims", "relax.strided_slice", "relax.squeeze", "relax.expand_dims",
    "relax.flatten", "relax.nn.pad", "relax.nn.max_pool2d", "relax.image.resize2d", "relax.concat",
)  # fmt: skip
_LARGEST_PARAMETER = 64


def index_program(imported: Imported, model: onnx.ModelProto) -> Program:
    """Indexes ``main``; `model` is the ONNX model it came from."""
    main = imported.module["main"]
    values = {binding.var: binding.value for block in main.body.blocks for binding in block.bindings}
    readers: dict[relax.Var, list[relax.Var]] = {}
    for variable, value in values.items():
        for read in dict.fromkeys(variables_in(value)):
            readers.setdefault(read, []).append(variable)
    program = Program(
        order=tuple(values),
        values=relax.analysis.get_var2val(main),
        readers={variable: tuple(users) for variable, users in readers.items()},
        outputs=frozenset(variables_in(main.body.body)),
        sources=imported.sources,
        codes={},
        constants=_small_constants(model),
        host_forms=imported.host_forms,
    )
    return Program(**{**vars(program), "codes": _codes(program, values)})


def _small_constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Constants that can be an operator's parameters rather than data."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
            if prod(tensor.dims) == 1 or (len(tensor.dims) == 1 and tensor.dims[0] <= _LARGEST_PARAMETER)}  # fmt: skip


def _codes(program: Program, values: dict[relax.Var, relax.Expr]) -> dict[relax.Var, Quantization]:
    """Forwards from quantise calls through data movement, then backwards from dequantise calls to model inputs."""
    codes: dict[relax.Var, Quantization] = {}
    for variable, value in values.items():
        found = quantization_of_call(program, value) if is_call(value, "relax.quantize") else None
        if found is None and is_call(value, *_KEEPS_CODES):
            found = _common([codes.get(read) for read in variables_in(value)])
        if found is not None:
            codes[variable] = found
    for variable, value in reversed(values.items()):
        found = quantization_of_call(program, value) if is_call(value, "relax.dequantize") else codes.get(variable)
        if found is not None and is_call(value, "relax.dequantize", *_KEEPS_CODES):
            for read in variables_in(value):
                if dtype_of(read) in ("int8", "uint8"):
                    codes.setdefault(read, found)
    return codes


def _common(found: list[Quantization | None]) -> Quantization | None:
    return found[0] if found and all(item == found[0] for item in found) else None
