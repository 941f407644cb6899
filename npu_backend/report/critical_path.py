"""What the run's time is made of: a chain of instructions from the end back to the start, none of which could be later.

The chain begins at the instruction that ends last. Before each stands what released it last: the instruction before it
on its engine, the SIGNAL that a WAIT stood for, or the last core that came to a multicast. Its pieces follow each other
without a gap, so that they add up to the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from npu_backend.isa import Engine
from npu_backend.report.figures import TimedProgram
from npu_backend.report.instructions import Booleans, Integers
from npu_backend.report.releases import released_by, transfer_delays_ns

Floats = npt.NDArray[np.float64]

# An engine's own kind has its name. `latency`: set-up of the DMA and the way of the first byte; `signal`: a signal on
# its way; `idle`: nothing that an instruction tells.
KINDS = ("load", "store", "network", "matrix", "vector", "latency", "signal", "idle")
_LATENCY, _SIGNAL, _IDLE = (KINDS.index(name) for name in ("latency", "signal", "idle"))
assert KINDS[: len(Engine)] == tuple(engine.name.lower() for engine in Engine)


@dataclass(frozen=True)
class Segment:
    """A piece of the path: core and engine, the layer (its index) and the ONNX node, what happens and when."""

    core: int
    engine: str
    layer: int
    node: str
    kind: str
    start_us: float
    end_us: float


@dataclass(frozen=True)
class CriticalPath:
    """The path over all programs of a model, one after the other: columns of equal length, in order of time, in ns.

    `kind` is an index of `KINDS`, `origin` one of `nodes`. Each piece starts when the one before it ends; the first
    starts at 0 and the last ends with the run. A signal's core, engine and layer are those that wait for it.
    """

    core: Integers
    engine: Integers
    layer: Integers
    origin: Integers
    kind: Integers
    start_ns: Floats
    end_ns: Floats
    nodes: tuple[str, ...]
    layers: int

    @property
    def total_us(self) -> float:
        """The run's latency."""
        return float(self.end_ns[-1]) / 1000 if len(self.end_ns) else 0.0

    @property
    def by_kind(self) -> dict[str, float]:
        """us of every kind."""
        return dict(zip(KINDS, self._sums(self.kind, len(KINDS))))

    @property
    def by_layer(self) -> tuple[float, ...]:
        """us of every layer."""
        return tuple(self._sums(self.layer, self.layers))

    def of_kind(self, kind: str) -> tuple[float, ...]:
        """us of every layer that are of a kind."""
        own = self.kind == KINDS.index(kind)
        return tuple((np.bincount(self.layer[own], (self.end_ns - self.start_ns)[own], self.layers) / 1000).tolist())

    def longest(self, count: int) -> tuple[Segment, ...]:
        """The `count` longest pieces, longest first."""
        order = np.argsort(self.start_ns - self.end_ns, kind="stable")[:count]
        return tuple(self._segment(int(index)) for index in order)

    def _sums(self, column: Integers, count: int) -> list[float]:
        sums: list[float] = (np.bincount(column, self.end_ns - self.start_ns, count) / 1000).tolist()
        return sums

    def _segment(self, index: int) -> Segment:
        return Segment(
            int(self.core[index]), Engine(int(self.engine[index])).name.lower(), int(self.layer[index]),
            self.nodes[int(self.origin[index])], KINDS[int(self.kind[index])], float(self.start_ns[index]) / 1000,
            float(self.end_ns[index]) / 1000,
        )  # fmt: skip


def critical_path(programs: Sequence[TimedProgram]) -> CriticalPath:
    """The critical path of programs that run one after the other, timed with spans."""
    nothing, never = np.zeros(0, np.int64), np.zeros(0)
    path = CriticalPath(nothing, nothing, nothing, nothing, nothing, never, never, (), 0)
    begin_ns = 0.0
    for timed in programs:
        path = _followed(path, _path(timed), begin_ns)
        begin_ns += timed.timing.total_ns
    return path


def _followed(first: CriticalPath, second: CriticalPath, begin_ns: float) -> CriticalPath:
    """Both; `second` starts at `begin_ns`."""
    return CriticalPath(
        np.concatenate([first.core, second.core]),
        np.concatenate([first.engine, second.engine]),
        np.concatenate([first.layer, second.layer + first.layers]),
        np.concatenate([first.origin, second.origin + len(first.nodes)]),
        np.concatenate([first.kind, second.kind]),
        np.concatenate([first.start_ns, second.start_ns + begin_ns]),
        np.concatenate([first.end_ns, second.end_ns + begin_ns]),
        first.nodes + second.nodes,
        first.layers + second.layers,
    )


def _path(timed: TimedProgram) -> CriticalPath:
    instructions, spans = timed.instructions, timed.timing.spans
    assert spans is not None, "time the program with spans"
    before, signals = released_by(timed.program, instructions, spans)
    chain = _chain(before, int(spans[:, 1].argmax())) if len(spans) else np.zeros(0, np.int64)
    bounds, kinds = _bounds(timed, chain, spans, signals)
    pieces = np.repeat(chain, kinds.shape[1])
    columns = np.stack([instructions.core[pieces], instructions.engine[pieces], instructions.layer[pieces],
                        instructions.origin[pieces], kinds.reshape(-1)])  # fmt: skip
    columns, start_ns, end_ns = _joined(columns, bounds[:, :-1].reshape(-1), bounds[:, 1:].reshape(-1))
    core, engine, layer, origin, kind = columns
    layers = len(timed.program.metadata["layers"])
    return CriticalPath(core, engine, layer, origin, kind, start_ns, end_ns, timed.program.origins, layers)


def _chain(before: Integers, last: int) -> Integers:
    """Instructions from the first to the `last`, each released by the one before it."""
    follow, chain, at = before.tolist(), [], last
    while at >= 0:
        chain.append(at)
        assert len(chain) <= len(follow), f"instruction {at} was released by itself"
        at = follow[at]
    return np.array(chain[::-1], np.int64)


def _bounds(timed: TimedProgram, chain: Integers, spans: Floats, signals: Booleans) -> tuple[Floats, Integers]:
    """[instruction][4] times and [instruction][3] kinds between them: nothing, latency, the engine's or a signal's.

    An instruction has all the time since the end of the one before it; most of the three are empty.
    """
    instructions = timed.instructions
    works, end = instructions.works[chain], spans[chain, 1]
    start = np.concatenate([np.zeros(min(1, len(chain))), end[:-1]])
    begin = np.where(works, np.clip(spans[chain, 0], start, end), start)
    first_byte = np.minimum(begin + transfer_delays_ns(timed.program, instructions)[chain], end)
    kind = np.where(works, instructions.engine[chain], np.where(signals[chain], _SIGNAL, _IDLE))
    kinds = np.stack([np.full(len(chain), _IDLE), np.full(len(chain), _LATENCY), kind], axis=1)
    return np.stack([start, begin, first_byte, end], axis=1), kinds


def _joined(columns: Integers, start_ns: Floats, end_ns: Floats) -> tuple[Integers, Floats, Floats]:
    """Without empty pieces, and neighbours that differ in nothing as one."""
    taken = end_ns > start_ns
    columns, start_ns = columns[:, taken], start_ns[taken]
    fresh = np.concatenate([np.ones(min(1, len(start_ns)), np.bool_), (columns[:, 1:] != columns[:, :-1]).any(axis=0)])
    begins = np.flatnonzero(fresh)
    ends = np.concatenate([begins[1:], [len(start_ns)]])[: len(begins)] - 1
    return columns[:, begins], start_ns[begins], end_ns[taken][ends]
