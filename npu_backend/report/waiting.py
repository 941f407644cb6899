"""How long each core waits for the others, layer by layer, from the times of its instructions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from npu_backend.report.instructions import Instructions

Floats = npt.NDArray[np.float64]


def waits_ns(instructions: Instructions, spans: Floats, layers: int, cores: int) -> Floats:
    """[layer][core] in ns: no engine of the core works, and one waits for another core.

    It waits for a signal, or for the other to come to a load of both. Where several engines wait, the time is the
    earliest layer's: that one keeps the others waiting. The sum over the layers is a core's `sync_ns` of the emulator's
    clock.
    """
    waits, works = instructions.waits_abroad | instructions.are("LOAD_MULTICAST"), instructions.works
    waiting = _before_meeting(instructions, spans)
    found = np.zeros((layers, cores))
    for core in range(cores):
        own = instructions.core == core
        found[:, core] = _stalls(spans[own & works], waiting[own & waits], instructions.layer[own & waits], layers)
    return found


def _before_meeting(instructions: Instructions, spans: Floats) -> Floats:
    """The spans, but of a LOAD_MULTICAST the time from when its engine came to it until it started."""
    found = spans.copy()
    meets = np.flatnonzero(instructions.are("LOAD_MULTICAST"))
    before = np.maximum(meets - 1, 0)
    follows = (meets > 0) & (instructions.core[before] == instructions.core[meets])
    follows &= instructions.engine[before] == instructions.engine[meets]
    found[meets] = np.stack([np.where(follows, spans[before, 1], 0), spans[meets, 0]], axis=1)
    return found


def _stalls(working: Floats, waiting: Floats, layer_of: npt.NDArray[np.int64], layers: int) -> Floats:
    """ns per layer in which a core waits and does not work; `layer_of` belongs to the rows of `waiting`."""
    times = np.unique(np.concatenate([working, waiting]))
    if not len(waiting):
        return np.zeros(layers)
    changes = np.zeros(len(times), np.int64)
    for column, step in ((0, 1), (1, -1)):
        np.add.at(changes, np.searchsorted(times, working[:, column]), step)
    # Between two times that follow each other: the layer waited for; the earliest is written last.
    blamed = np.full(len(times) - 1, -1, np.int64)
    bounds = np.searchsorted(times, waiting)
    for row in np.argsort(-layer_of, kind="stable"):
        blamed[bounds[row, 0] : bounds[row, 1]] = layer_of[row]
    stalled = (np.cumsum(changes)[:-1] == 0) & (blamed >= 0)
    found = np.zeros(layers)
    np.add.at(found, blamed[stalled], np.diff(times)[stalled])
    return found
