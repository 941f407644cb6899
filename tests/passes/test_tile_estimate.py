"""Tile estimates: how often inputs are loaded, summed by hand."""

from __future__ import annotations

import pytest

from npu_backend.cost import CostModel
from npu_backend.ops.attributes import MatMulAttributes
from npu_backend.passes.tile_estimate import Estimate, Sizes, Task
from tests.passes.networks import Network, machine, stages

LEFT_BYTES, RIGHT_BYTES = 400 * 128, 128 * 64


@pytest.mark.parametrize(
    ("rows", "columns", "reduction", "loaded_bytes"),
    [
        (400, 64, None, LEFT_BYTES + RIGHT_BYTES),
        (100, 64, None, LEFT_BYTES + RIGHT_BYTES),  # the right side stays
        (400, 16, None, LEFT_BYTES + RIGHT_BYTES),  # the left side stays
        (100, 64, 64, LEFT_BYTES + 4 * RIGHT_BYTES),  # both halves of the right side for each tile of rows
    ],
)
def test_a_side_that_every_tile_reads_is_loaded_once(
    rows: int, columns: int, reduction: int | None, loaded_bytes: int
) -> None:
    net = Network("product")
    left, right = net.source((400, 128)), net.source((128, 64), "x2")
    net.output(net.add("matmul", left, right, attributes=MatMulAttributes()), "y")
    target = machine(cores=1, spm_bytes=1 << 20)
    resident = stages(net.freeze(), target, "single")["reside"]
    task = Task(resident, CostModel(target), 0, 0, resident.partitioned.out_box(0, 0))
    assert Estimate(task, Sizes((rows, columns), reduction, False), 2).loaded_bytes == loaded_bytes
