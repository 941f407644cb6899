"""A run as one HTML file that needs nothing else: head, cores, path, network, timeline, layers and their choices.

The page's script draws everything from the JSON that the file carries, and sets all text as text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

import numpy as np

from npu_backend.isa import Engine
from npu_backend.report.critical_path import KINDS, CriticalPath
from npu_backend.report.document import Run, run_document
from npu_backend.report.figures import TimedProgram
from npu_backend.report.timeline import base64_column, timeline

_STYLES, _SCRIPTS = ("page.css",), ("report.js", "path.js", "network.js", "timeline.js")
# Inside a script element only these could end it or begin a comment.
_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def report_page(run: Run, programs: Sequence[TimedProgram]) -> bytes:
    """The file's content; `programs` are those that `run` reports, timed with spans."""
    return Template(_text("page.html")).substitute(
        title=escape(f"{run.model} on {run.machine}"),
        style="\n".join(map(_text, _STYLES)),
        script="\n".join(map(_text, _SCRIPTS)),
        data=_embedded(page_data(run, programs)),
    ).encode()  # fmt: skip


def page_data(run: Run, programs: Sequence[TimedProgram]) -> dict[str, Any]:
    """What the page draws: the run's JSON, the timeline, the critical path on it, the network's shape if it is known.

    `peak_macs_per_us` is the rate that `used` is a share of.
    """
    assert run.network is not None, "the page tells of the network"
    return {
        "run": run_document(run),
        "peak_macs_per_us": run.figures.peak_macs_per_us,
        "network": programs[0].program.metadata.get("network") if programs else None,
        "path": _path(run.network.path),
        "timeline": timeline(programs),
    }


def _path(path: CriticalPath) -> dict[str, Any]:
    """Columns in base64 as the timeline's, of all pieces in order of time; `kinds` are the names of `kind`."""
    start, stop = np.rint(path.start_ns), np.rint(path.end_ns)
    columns = {"start": start, "duration": stop - start, "core": path.core, "layer": path.layer, "origin": path.origin}
    return {
        "kinds": KINDS,
        "engines": [engine.name.lower() for engine in Engine],
        **{name: base64_column(column, "<u4") for name, column in columns.items()},
        "engine": base64_column(path.engine, "u1"),
        "kind": base64_column(path.kind, "u1"),
    }


def _embedded(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False).translate(_ESCAPES)


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")
