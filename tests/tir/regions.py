"""What TIR says of a function's regions: its stages' boxes, composed from the output back to the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import te

from npu_backend.box import Box
from tvm_ext import tir_api as api
from tvm_ext.tir_stages import Stage, stages_of


def stages(inputs: Sequence[Any], output: Any) -> tuple[Stage, ...]:
    """The stages of a TE expression."""
    return stages_of(te.create_prim_func([*inputs, output]), "te")


def tir_boxes(inputs: Sequence[Any], output: Any, out_boxes: Sequence[Box]) -> list[tuple[Box, ...]]:
    """For every output box the region of each input, empty where nothing of it is needed."""
    function = te.create_prim_func([*inputs, output])
    found = stages_of(function, "te")
    *parameters, result = api.parameters_of(function)
    return [_back(found, parameters, result, box) for box in out_boxes]


def _back(found: Sequence[Stage], parameters: Sequence[Any], result: Any, out_box: Box) -> tuple[Box, ...]:
    needed: list[tuple[Any, Box]] = [(result, out_box)]
    for stage in reversed(found):
        box = _hull(needed, stage.output)
        if not box.is_empty:
            needed += zip(stage.inputs, stage.input_boxes(box), strict=True)
    return tuple(_hull(needed, parameter) for parameter in parameters)


def _hull(needed: Sequence[tuple[Any, Box]], buffer: Any) -> Box:
    rank = len(api.shape_of(buffer))
    boxes = [box for each, box in needed if each.same_as(buffer)]
    if not boxes:
        return Box((0,) * max(rank, 1), (0,) * max(rank, 1))
    hull = boxes[0]
    for box in boxes[1:]:
        hull = hull.hull(box)
    return hull
