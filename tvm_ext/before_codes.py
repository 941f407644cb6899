"""Float operators that end in codes, between quantised ones or in front of them.

What they compute is rounded to codes in the end, where half precision would show in single steps: it is kept in
float32, as ONNX Runtime has it. The vector engine of every machine computes so; where the MAC array multiplies no
floats, those that begin at codes too need not leave the NPU.
"""

from __future__ import annotations

from collections.abc import Mapping

from npu_backend.graph import CODES, FLOATS
from tvm_ext.candidates import Candidate
from tvm_ext.convert_matrix import conv, conv_transpose, product
from tvm_ext.matching import Program, constant_codes
from tvm_ext.values import Variable


def multiplies_floats(candidate: Candidate) -> bool:
    """Whether the operator is a product that is not one of codes."""
    if candidate.entry.converter not in (conv, conv_transpose, product):
        return False
    factors = (operand for operand in candidate.match.operands[:2] if operand is not None)
    return any(each.dequantize is None if each.is_computed else constant_codes(each) is None for each in factors)


def before_codes(
    program: Program, candidates: Mapping[Variable, Candidate], taken: frozenset[Variable]
) -> dict[Variable, Candidate]:
    """Those of the candidates (by root) whose floats end in codes on the NPU and, unless the machine computes in float,
    all come from codes there.

    `taken`: variables of operators that the NPU runs already.
    """
    kept = {root: candidate for root, candidate in candidates.items() if not multiplies_floats(candidate)}
    while True:
        inside = {variable for candidate in kept.values() for variable in candidate.match.inside}
        here = kept.keys() | inside | taken
        closed = {root: candidate for root, candidate in kept.items()
                  if _ends_here(program, candidate, here)
                  and (program.computes_float or _begins_here(candidate, here))}  # fmt: skip
        if len(closed) == len(kept):
            return closed
        kept = closed


def _begins_here(candidate: Candidate, here: set[Variable] | frozenset[Variable]) -> bool:
    """Whether every float it reads is computed on the NPU, or dequantised for it."""
    reads = (operand for operand in candidate.match.operands if operand is not None and operand.is_computed)
    return all(read.dequantize is not None or read.dtype not in FLOATS or read.value in here for read in reads)


def _ends_here(program: Program, candidate: Candidate, here: set[Variable] | frozenset[Variable]) -> bool:
    """Whether every number it leaves is read on the NPU, or quantised by it."""
    root = candidate.match.root
    if root.dtype in CODES:
        return True
    readers = program.readers.get(root, ())
    return root not in program.outputs and all(reader in here or program.is_quantize(reader) for reader in readers)
