"""An imported model indexed for matching: who reads what, and which variables hold codes of which scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from npu_backend.graph import CODES, Quantization
from tvm_ext.kernel_plans import Kernels
from tvm_ext.matching import PLAIN, Program, quantization_of_call
from tvm_ext.nodes import ENTRIES
from tvm_ext.values import Imported, Variable


def index_program(imported: Imported, *, computes_float: bool, kernels: Kernels | None = None) -> Program:
    """Indexes a model for a machine that computes float16 or does not, with what its vector processors can run."""
    readers: dict[Variable, list[Variable]] = {}
    for variable, call in imported.calls.items():
        for read in dict.fromkeys(call.reads):
            readers.setdefault(read, []).append(variable)
    program = Program(
        calls=imported.calls,
        readers={variable: tuple(users) for variable, users in readers.items()},
        outputs=imported.outputs,
        sources=imported.sources,
        named=imported.named,
        codes={},
        computes_float=computes_float,
        kernels=kernels,
    )
    return replace(program, codes={**_plain_integers(program), **_codes(program)})


def _plain_integers(program: Program) -> dict[Variable, Quantization]:
    """8-bit and 16-bit integers stand for themselves where nothing dequantises them."""
    every = {*program.calls, *(read for call in program.calls.values() for read in call.reads)}
    return {variable: PLAIN for variable in every if variable.dtype in CODES}


def _codes(program: Program) -> dict[Variable, Quantization]:
    """Forwards from quantise calls through data movement, then backwards from dequantise calls to model inputs."""
    codes: dict[Variable, Quantization] = {}
    for variable, call in program.calls.items():
        if call.is_quantize:
            found = quantization_of_call(call)
        else:
            found = _common([codes.get(read) for read in _moved(program, variable)])
        if found is not None:
            codes[variable] = found
    for variable, call in reversed(list(program.calls.items())):
        found = quantization_of_call(call) if call.is_dequantize else codes.get(variable)
        if found is not None:
            for read in call.reads if call.is_dequantize else _moved(program, variable):
                if read.dtype in CODES:
                    codes.setdefault(read, found)
    return codes


def _moved(program: Program, variable: Variable) -> Sequence[Variable]:
    """The codes that a node moves as they are to this variable; none where it computes."""
    source = program.sources.get(variable)
    entry = ENTRIES.get(source.node.op_type) if source is not None else None
    if source is None or entry is None or not entry.on_codes or program.calls[variable].is_dequantize:
        return ()
    reads = (program.named.get(name) for name in source.node.input)
    return [read for read in reads if isinstance(read, Variable) and read.dtype in CODES]


def _common(found: list[Quantization | None]) -> Quantization | None:
    return found[0] if found and all(item == found[0] for item in found) else None
