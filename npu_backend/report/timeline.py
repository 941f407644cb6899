"""What every engine does when, compact enough to be embedded: columns of numbers in base64, one lane per engine."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from npu_backend.isa import FORMAT_BY_NAME, FORMATS, Engine
from npu_backend.report.figures import TimedProgram
from npu_backend.report.instructions import Integers

_LONGEST_NS = float(np.iinfo(np.uint32).max)


@dataclass(frozen=True)
class _Spans:
    """Columns of equal length: what occupies an engine, and waits for other cores; ns, whole in the lanes."""

    core: Integers
    engine: Integers
    opcode: Integers
    origin: Integers
    moved_bytes: Integers
    start_ns: npt.NDArray[np.float64]
    stop_ns: npt.NDArray[np.float64]


def timeline(programs: Sequence[TimedProgram]) -> dict[str, Any]:
    """Lanes by core and engine, of all programs one after the other.

    Each lane has columns in base64, little-endian: `start` and `duration` (uint32, ns), `origin` (uint32, index of
    `origins` and `origin_layers`), `bytes` (uint32, moved payload), `opcode` (uint8, key of `opcodes`; that of `wait`
    is a wait for another core). Durations follow from rounded starts and stops, so that no two spans overlap.
    """
    parts: list[_Spans] = []
    origins: list[str] = []
    layers: list[int] = []
    first_layer, begin_ns = 0, 0.0
    for timed in programs:
        parts.append(_spans(timed, len(origins), begin_ns))
        layers += [first_layer + layer for layer in timed.program.metadata["origin_layers"]]
        origins += timed.program.origins
        first_layer += len(timed.layers)
        begin_ns += timed.timing.total_ns
    assert begin_ns <= _LONGEST_NS, f"{begin_ns} ns do not fit the lanes"
    return {
        "total_ns": begin_ns,
        "wait": FORMAT_BY_NAME["WAIT"].code,
        "opcodes": {str(entry.code): entry.name for entry in FORMATS},
        "origins": origins,
        "origin_layers": layers,
        "lanes": _lanes(parts),
    }


def _spans(timed: TimedProgram, first_origin: int, begin_ns: float) -> _Spans:
    assert timed.timing.spans is not None, "time the program with spans"
    columns, spans = timed.instructions, timed.timing.spans
    shown = (columns.works & ~columns.repeats) | (columns.waits_abroad & (spans[:, 1] > spans[:, 0]))
    return _Spans(
        columns.core[shown], columns.engine[shown], columns.opcode[shown], columns.origin[shown] + first_origin,
        columns.moved_bytes[shown], spans[shown, 0] + begin_ns, spans[shown, 1] + begin_ns,
    )  # fmt: skip


def _lanes(parts: Sequence[_Spans]) -> list[dict[str, Any]]:
    if not parts:
        return []
    spans = _Spans(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Spans.__dataclass_fields__))
    keys = sorted(set(zip(spans.core.tolist(), spans.engine.tolist())))
    return [_lane(spans, core, engine) for core, engine in keys]


def _lane(spans: _Spans, core: int, engine: int) -> dict[str, Any]:
    own = (spans.core == core) & (spans.engine == engine)
    start, stop = np.rint(spans.start_ns[own]), np.rint(spans.stop_ns[own])
    return {
        "core": core,
        "engine": Engine(engine).name.lower(),
        "start": base64_column(start, "<u4"),
        "duration": base64_column(stop - start, "<u4"),
        "origin": base64_column(spans.origin[own], "<u4"),
        "bytes": base64_column(spans.moved_bytes[own], "<u4"),
        "opcode": base64_column(spans.opcode[own], "u1"),
    }


def base64_column(values: npt.NDArray[Any], kind: str) -> str:
    """Numbers as the page's scripts read them; `kind` is NumPy's name of their type, little-endian."""
    return b64encode(values.astype(kind).tobytes()).decode()
