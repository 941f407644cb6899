"""When a plan's layers compute, on the emulator's clock."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from npu_backend.isa import Engine
from npu_backend.passes.emit import emit
from npu_backend.passes.synchronize import Synchronized
from npu_backend.runtime import Emulator
from npu_backend.strategies import Strategy

_COMPUTE = (Engine.MATRIX, Engine.VECTOR)


@dataclass(frozen=True)
class PlanTimes:
    """Times of a plan, found when first asked for; the strategy is for the program's metadata only."""

    synchronized: Synchronized
    strategy: Strategy

    @property
    def total_ns(self) -> float:
        """How long the plan takes."""
        return self._times[0]

    @property
    def computes_ns(self) -> npt.NDArray[np.float64]:
        """float64 [layer][core][start, stop]: when a core's first computation of a layer starts and its last ends.

        Not a number where a core computes nothing of a layer.
        """
        return self._times[1]

    @cached_property
    def _times(self) -> tuple[float, npt.NDArray[np.float64]]:
        scheduled = self.synchronized.placed.scheduled
        divided = scheduled.tiled.resident.partitioned
        with Emulator(
            emit(self.synchronized, divided.machine, self.strategy, self.strategy, "").to_bytes()
        ) as emulator:
            timing = emulator.time(spans=True)
        assert timing.spans is not None
        found = np.full((len(divided.splits), len(divided.machine.cores), 2), np.nan)
        for step, (first, last) in zip(scheduled.steps, self._instructions()):
            if step.engine in _COMPUTE:
                layer, core = step.layer, step.core
                found[layer, core, 0] = np.fmin(found[layer, core, 0], timing.spans[first, 0])
                found[layer, core, 1] = np.fmax(found[layer, core, 1], timing.spans[last, 1])
        return timing.total_ns, found

    def _instructions(self) -> list[tuple[int, int]]:
        """The first and last instruction of every step that work, as numbered in the file."""
        made, steps = self.synchronized, self.synchronized.placed.scheduled.steps
        streams: dict[tuple[int, Engine], list[int]] = {}
        for index, step in enumerate(steps):
            streams.setdefault((step.core, step.engine), []).append(index)
        numbers, position = [(0, 0)] * len(steps), 0
        for _, indices in sorted(streams.items()):
            for index in indices:
                position += len(made.waits[index])
                count = len(steps[index].instructions)
                numbers[index] = position, position + count - 1
                position += count + len(made.signals[index])
        return numbers
