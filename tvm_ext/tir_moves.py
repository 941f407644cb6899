"""Stages that only move elements, done at once where what they move is known: transposed weights, reshaped biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tvm_ext import tir_api as api
from tvm_ext.tir_stages import Stage

_INDEX_FUNCTIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "FloorDiv": np.floor_divide, "FloorMod": np.mod,
    "Min": np.minimum, "Max": np.maximum,
}  # fmt: skip


def moved(stage: Stage, inputs: Sequence[np.ndarray]) -> np.ndarray | None:
    """The output of a stage whose every element is one of its only input, by arithmetic of the position; else None."""
    if stage.init is not None or len(inputs) != 1 or api.kind_of(stage.value) != "BufferLoad":
        return None
    grids = np.ix_(*(np.arange(extent) for extent in stage.shape))
    try:
        places = [_evaluated(index, stage, grids) for index in stage.value.indices]
    except KeyError:
        return None
    return np.ascontiguousarray(np.broadcast_to(inputs[0][tuple(places)], stage.shape))


def _evaluated(index: Any, stage: Stage, grids: Sequence[np.ndarray]) -> Any:
    """The index at every position of the output; raises KeyError for anything but arithmetic."""
    kind = api.kind_of(index)
    if kind == "Var":
        return next(grid for variable, grid in zip(stage.spatial, grids, strict=True) if variable.same_as(index))
    if kind == "IntImm":
        return api.constant(index)
    function = _INDEX_FUNCTIONS[kind]
    return function(*(_evaluated(part, stage, grids) for part in api.children(index)))
