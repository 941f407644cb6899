"""The input regions that operators name by hand against those that TIR finds, for every kind of the registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

from npu_backend.box import Box
from npu_backend.graph import Graph, Op
from npu_backend.ops import registered_ops, spec_of
from tests.ops.case import Case, build, operator
from tests.ops.cases import CASES
from tests.tir.expressions import EXPRESSIONS, expression
from tests.tir.regions import tir_boxes

BOXES = 12
# Graph, operator, output box, the input's region by hand and by TIR: whether they may differ like this.
Exception_ = Callable[[Graph, Op, Box, Box, Box], bool]
# Regions depend on no data type: of every kind and label one case.
DIFFERENT = tuple({(case.kind, case.label.split("-to-")[0]): case for case in reversed(CASES)}.values())[::-1]


def random_boxes(graph: Graph, op: Op, rng: np.random.Generator) -> Iterator[Box]:
    """The whole output and boxes that divide the axes which the operator allows."""
    whole, allowed = graph.tensor(op.output).box, spec_of(op).split_axes(graph, op)
    yield whole
    for _ in range(BOXES):
        box = whole
        for axis, multiple in allowed.items():
            cuts = [*range(0, whole.stops[axis], multiple), whole.stops[axis]]
            low, high = sorted(rng.choice(len(cuts), 2, replace=False)) if len(cuts) > 1 else (0, 0)
            box = box.with_interval(axis, cuts[low], cuts[high]) if high > low else box
        yield box


def kept_pixel(graph: Graph, op: Op, out_box: Box, hand: Box, tir: Box) -> bool:
    """A window wholly in the padding needs an address to be relative to: one pixel at the nearer end."""
    return tir.is_empty and any(low + 1 == high and (low == 0 or high == extent) for low, high, extent in zip(
        hand.starts, hand.stops, graph.tensor(op.inputs[0]).shape))  # fmt: skip


def met_positions(graph: Graph, op: Op, out_box: Box, hand: Box, tir: Box) -> bool:
    """TIR takes no part in which taps of a transposed convolution meet a position: by hand is less, and enough."""
    met, a, kernel = hand, op.attributes, graph.constants[op.inputs[1]].shape[2:]
    for axis in (0, 1):
        places = np.arange(*out_box.interval(1 + axis))[:, None] + a.pads[axis]
        taps = places - np.arange(kernel[axis])[None] * a.dilations[axis]
        used = taps[taps % a.strides[axis] == 0] // a.strides[axis]
        used = used[(used >= 0) & (used < graph.tensor(op.inputs[0]).shape[1 + axis])]
        met = met.with_interval(1 + axis, int(used.min()), int(used.max()) + 1) if used.size else met
    return (tir.is_empty or tir.contains(hand)) and hand.contains(met)


def float_positions(graph: Graph, op: Op, out_box: Box, hand: Box, tir: Box) -> bool:
    """TIR's integer sets know nothing of positions computed in float: it takes all rows and columns."""
    return tir.contains(hand)


EXCEPTIONS: Mapping[str, Exception_] = {
    "conv2d": kept_pixel, "conv_transpose2d": met_positions, "resize2d": float_positions,
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT, ids=str)
def test_by_hand_is_what_tir_finds(case: Case) -> None:
    """Or differs as the exception of its kind says."""
    graph = build(case)
    op = operator(graph)
    out_boxes = [*random_boxes(graph, op, np.random.default_rng(case.seed))]
    for out_box, found in zip(out_boxes, tir_boxes(*expression(graph, op), out_boxes), strict=True):
        by_hand = spec_of(op).input_boxes(graph, op, out_box)
        for number, (hand, tir) in enumerate(zip(by_hand, found, strict=True)):
            if hand == tir or (hand.is_empty and tir.is_empty):
                continue
            excepted = EXCEPTIONS.get(op.kind)
            allowed = excepted is not None and excepted(graph, op, out_box, hand, tir)
            assert allowed, f"input {number} of {out_box}: {hand} by hand, {tir} by TIR"


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_exceptions_occur(kind: str) -> None:
    """An exception that no case needs any more is to go."""
    for case in (case for case in DIFFERENT if case.kind == kind):
        graph = build(case)
        op = operator(graph)
        out_boxes = [*random_boxes(graph, op, np.random.default_rng(case.seed))]
        if any(spec_of(op).input_boxes(graph, op, box) != found
               for box, found in zip(out_boxes, tir_boxes(*expression(graph, op), out_boxes))):  # fmt: skip
            return
    pytest.fail(f"every case of {kind} is what TIR finds")


def test_every_kind_is_compared() -> None:
    """Kernels have no regions but TIR's."""
    assert {case.kind for case in DIFFERENT} == EXPRESSIONS.keys() == registered_ops().keys() - {"kernel"}
