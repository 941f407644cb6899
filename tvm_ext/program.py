"""An imported module indexed for matching: who reads what, and which variables hold codes of which scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tvm import relax

from npu_backend.graph import CODES, Quantization
from tvm_ext.importer import Imported
from tvm_ext.matching import PLAIN, Program, dtype_of, is_call, quantization_of_call, variables_in
from tvm_ext.nodes import ENTRIES


def index_program(imported: Imported, *, computes_float: bool) -> Program:
    """Indexes ``main`` for a machine that computes float16 or does not."""
    main = imported.module["main"]
    values = {binding.var: binding.value for block in main.body.blocks for binding in block.bindings}
    readers: dict[relax.Var, list[relax.Var]] = {}
    for variable, value in values.items():
        for read in dict.fromkeys(variables_in(value)):
            readers.setdefault(read, []).append(variable)
    program = Program(
        order=tuple(values),
        values=values,
        readers={variable: tuple(users) for variable, users in readers.items()},
        outputs=frozenset(variables_in(main.body.body)),
        sources=imported.sources,
        named=imported.named,
        codes={},
        host_forms=imported.host_forms,
        computes_float=computes_float,
    )
    return replace(program, codes={**_plain_integers(program), **_codes(program)})


def _plain_integers(program: Program) -> dict[relax.Var, Quantization]:
    """8-bit and 16-bit integers stand for themselves where nothing dequantises them."""
    every = {*program.order, *(read for value in program.values.values() for read in variables_in(value))}
    tensors = (variable for variable in every if isinstance(variable.ty, relax.TensorType))
    return {variable: PLAIN for variable in tensors if dtype_of(variable) in CODES}


def _codes(program: Program) -> dict[relax.Var, Quantization]:
    """Forwards from quantise calls through data movement, then backwards from dequantise calls to model inputs."""
    codes: dict[relax.Var, Quantization] = {}
    for variable, value in program.values.items():
        if is_call(value, "relax.quantize"):
            found = quantization_of_call(program, value)
        else:
            found = _common([codes.get(read) for read in _moved(program, variable)])
        if found is not None:
            codes[variable] = found
    for variable, value in reversed(list(program.values.items())):
        dequantize = is_call(value, "relax.dequantize")
        found = quantization_of_call(program, value) if dequantize else codes.get(variable)
        if found is not None:
            for read in variables_in(value) if dequantize else _moved(program, variable):
                if dtype_of(read) in CODES:
                    codes.setdefault(read, found)
    return codes


def _moved(program: Program, variable: relax.Var) -> Sequence[relax.Var]:
    """The codes that a node moves as they are to this variable; none where it computes."""
    source = program.sources.get(variable)
    entry = ENTRIES.get(source.node.op_type) if source is not None else None
    if source is None or entry is None or not entry.on_codes or is_call(program.values[variable], "relax.dequantize"):
        return ()
    reads = (program.named.get(name) for name in source.node.input)
    return [read for read in reads if isinstance(read, relax.Var) and dtype_of(read) in CODES]


def _common(found: list[Quantization | None]) -> Quantization | None:
    return found[0] if found and all(item == found[0] for item in found) else None
