"""Tensors of ranks 0 to 6 in every data type through chains of movements, on random machines and scratchpads."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npu_backend.graph import Graph, GraphBuilder, Tensor
from npu_backend.isa import DATA_TYPES
from npu_backend.machine import load_machine
from npu_backend.ops import append_op
from npu_backend.ops.attributes import (
    ConcatAttributes,
    ExpandAttributes,
    PadAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TileAttributes,
    TransposeAttributes,
)
from npu_backend.pipeline import compile_graph
from npu_backend.reference import evaluate
from npu_backend.runtime import Emulator
from npu_backend.strategies import STRATEGIES
from tests.ops.case import code, draw_inputs

MACHINES = (("exynos2100", 1), ("exynos2100", 3), ("mesh16", 5))
MOST_ELEMENTS = 3000

extents = st.sampled_from((1, 1, 2, 3, 5, 7, 13))
shapes = st.lists(extents, max_size=6).map(tuple).filter(lambda shape: prod(shape) <= MOST_ELEMENTS)


def reshape(data: st.DataObject, shape: tuple[int, ...]) -> ReshapeAttributes:
    """Neighbours joined, axes of 1 put in or taken out."""
    axes = [extent for extent in shape if extent > 1 or data.draw(st.booleans())]
    if len(axes) > 1 and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(axes) - 2))
        axes[at : at + 2] = [axes[at] * axes[at + 1]]
    return ReshapeAttributes((*axes, *([1] if len(axes) < 6 and data.draw(st.booleans()) else [])))


def transpose(data: st.DataObject, shape: tuple[int, ...]) -> TransposeAttributes:
    return TransposeAttributes(tuple(data.draw(st.permutations(range(len(shape))))))


def slicing(data: st.DataObject, shape: tuple[int, ...]) -> SliceAttributes:
    bounds = []
    for extent in shape:
        low = data.draw(st.integers(0, extent - 1))
        high, step = data.draw(st.integers(low + 1, extent)), data.draw(st.sampled_from((1, 1, 2, -1, -2)))
        bounds.append((low, high, step) if step > 0 else (high - 1, low - 1, step))
    return SliceAttributes(*(tuple(side) for side in zip(*bounds, strict=True)) if bounds else ((), (), ()))


def padding(data: st.DataObject, shape: tuple[int, ...]) -> PadAttributes:
    mode = data.draw(
        st.sampled_from(("constant", "edge", "wrap", "reflect") if 1 not in shape else ("constant", "edge"))
    )
    before, after = (tuple(data.draw(st.integers(0, min(2, extent))) for extent in shape) for _ in range(2))
    return PadAttributes(before, after, 1, mode)


def expansion(data: st.DataObject, shape: tuple[int, ...]) -> ExpandAttributes:
    wanted = tuple(data.draw(st.sampled_from((1, 3))) if extent == 1 else extent for extent in shape)
    return ExpandAttributes((2, *wanted) if len(shape) < 6 and data.draw(st.booleans()) else wanted)


def repetition(data: st.DataObject, shape: tuple[int, ...]) -> TileAttributes:
    return TileAttributes(tuple(data.draw(st.sampled_from((1, 1, 2, 3))) for _ in shape))


PARTS: dict[str, Any] = {"reshape": reshape, "transpose": transpose, "slice": slicing, "pad": padding,
                         "expand": expansion, "tile": repetition}  # fmt: skip


def draw_graph(data: st.DataObject) -> Graph:
    """A chain of up to four movements; at its end sometimes a concatenation of the result with itself."""
    dtype = data.draw(st.sampled_from(sorted(DATA_TYPES)))
    builder, codes = GraphBuilder("shapes"), code(0.02, 120, dtype)
    name = builder.input(Tensor("x", data.draw(shapes), dtype, codes), "x")
    for index in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(sorted(PARTS)))
        attributes = PARTS[kind](data, builder.tensors[name].shape)
        made = append_op(builder, kind, (name,), attributes, name=f"{kind}{index}", dtype=dtype, quantization=codes)
        name = made if prod(builder.tensors[made].shape) <= MOST_ELEMENTS else name
    rank = len(builder.tensors[name].shape)
    if rank and data.draw(st.booleans()):
        axis = ConcatAttributes(data.draw(st.integers(0, rank - 1)))
        name = append_op(builder, "concat", (name, name), axis, name="both", dtype=dtype, quantization=codes)
    builder.output(name, "y")
    return builder.freeze()


def check(data: st.DataObject) -> None:
    graph = draw_graph(data)
    name, cores = data.draw(st.sampled_from(MACHINES))
    machine = load_machine(name).take(cores).with_spm_bytes(data.draw(st.sampled_from((1 << 17, 1 << 20))))
    strategy = STRATEGIES[data.draw(st.sampled_from(("spatial", "channel")))]
    inputs = draw_inputs(graph, 0)
    program = compile_graph(graph, machine, strategy, check=True)
    with Emulator(program.to_bytes()) as emulator:
        actual = emulator.run(inputs, check=True)["y"]
    np.testing.assert_array_equal(actual, evaluate(graph, inputs)["y"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_movements_of_any_rank(data: st.DataObject) -> None:
    check(data)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.data())
def test_more_movements_of_any_rank(data: st.DataObject) -> None:
    check(data)
