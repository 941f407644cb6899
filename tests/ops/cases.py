"""Cases of every kind of operator: the one table that the loop over machines, splits and scratchpads runs through.

A family's cases stand in a file of its own, ``cases_<family>.py``, with a tuple CASES; here they come together.
"""

from __future__ import annotations

from dataclasses import replace

from tests.ops import (
    cases_elementwise,
    cases_matmul,
    cases_matrix,
    cases_movement,
    cases_pooling,
    cases_reduction,
    cases_resize,
)
from tests.ops.case import Case, in_forms

# As they lie, with the axes of the graph's inputs stored in another order.
_TURNED = {
    ("binary", "add"), ("binary", "add-constant-channels"), ("binary", "multiply-constant-rows"),
}  # fmt: skip
TURNED = tuple(
    replace(case, label=f"{case.label}-turned", channels_last=False)
    for case in cases_elementwise.CODED
    if (case.kind, case.label) in _TURNED
)

CASES: tuple[Case, ...] = (
    *in_forms(TURNED),
    *cases_elementwise.CASES,
    *cases_matmul.CASES,
    *cases_matrix.CASES,
    *cases_movement.CASES,
    *cases_pooling.CASES,
    *cases_reduction.CASES,
    *cases_resize.CASES,
)
