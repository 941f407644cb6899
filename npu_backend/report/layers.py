"""The share of every layer in a run, from the times of its instructions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.isa import Engine
from npu_backend.program import Program
from npu_backend.report.instructions import Instructions
from npu_backend.report.waiting import waits_ns
from npu_backend.runtime import Timing

# What the compiler recorded of its choices.
_CHOICES = ("reason", "stratum", "stratum_reason", "recompute_us", "synchronization_us")
_COMPUTE = (Engine.MATRIX, Engine.VECTOR)


@dataclass(frozen=True)
class LayerFigures:
    """One layer: the ONNX node it is called by, its operators, how and why it is divided, and what it costs.

    `cycles` (of core 0's clock) is by how much the layer moves the end of the run: from the moment all layers before
    it have computed until it has. The cycles of all layers add up to those of the run. `sync_us` is how long a core
    stood still for others in it, on average over the cores, `sync_deviation_us` the standard deviation over them.
    `dram_bytes` is payload; `tiles` counts those of each core. Layers of one `stratum` follow each other without
    synchronisation; whether a layer joined that of the next was decided by `recompute_us`, what computing its halo
    more than once costs, and `synchronization_us`, what that saves, which are None where it was not a question of cost.
    """

    name: str
    op: str
    split: str
    reason: str
    stratum: int
    stratum_reason: str
    recompute_us: float | None
    synchronization_us: float | None
    cycles: int
    latency_us: float
    sync_us: float
    sync_deviation_us: float
    macs: int
    dram_bytes: int
    cores: int
    tiles: tuple[int, ...]


def layer_figures(program: Program, instructions: Instructions, timing: Timing) -> tuple[LayerFigures, ...]:
    """Figures of every layer; `timing` must have spans."""
    assert timing.spans is not None, "time the program with spans"
    rows: list[dict[str, Any]] = program.metadata["layers"]
    ends_ns = _ends(instructions, timing, len(rows))
    moved = np.zeros(len(rows), np.int64)
    np.add.at(moved, instructions.layer, instructions.dram_bytes)
    sync_us = waits_ns(instructions, timing.spans, len(rows), len(program.cores)) / 1000
    # Rounded before the differences, so that the cycles add up.
    cycles = np.diff(np.rint(ends_ns * program.cores[0]["clock_mhz"] / 1000).astype(np.int64), prepend=0)
    latency_us = np.diff(ends_ns, prepend=0.0) / 1000
    return tuple(
        LayerFigures(
            name=row["name"], op=row["op"], split=row["split"], **{key: row[key] for key in _CHOICES},
            cycles=int(cycles[index]),
            latency_us=float(latency_us[index]), sync_us=float(sync_us[index].mean()),
            sync_deviation_us=float(sync_us[index].std()), macs=row["macs"], dram_bytes=int(moved[index]),
            cores=row["cores"], tiles=tuple(row["tiles"]),
        )
        for index, row in enumerate(rows)
    )  # fmt: skip


def _ends(instructions: Instructions, timing: Timing, layers: int) -> npt.NDArray[np.float64]:
    """When each layer and all before it have computed, in ns; what follows the last compute is the last layer's."""
    assert timing.spans is not None
    ends = np.zeros(layers)
    for selected in (instructions.works, np.isin(instructions.engine, _COMPUTE) & instructions.works):
        # Layers that compute are measured by that alone: their stores run beside the next layer.
        computed = np.zeros(layers)
        np.maximum.at(computed, instructions.layer[selected], timing.spans[selected, 1])
        ends = np.where(computed > 0, computed, ends)
    if layers:
        ends[-1] = timing.total_ns
    return np.maximum.accumulate(ends)
