"""A run as one HTML file that needs nothing else: head, cores, the timeline of all engines, layers and their choices.

The page's script draws everything from the JSON that the file carries, and sets all text as text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

from npu_backend.report.document import Run, run_document
from npu_backend.report.figures import TimedProgram
from npu_backend.report.timeline import timeline

_STYLES, _SCRIPTS = ("page.css",), ("report.js", "timeline.js")
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
    """What the page draws: the JSON of the run, the timeline, and the peak rate that `used` is a share of."""
    return {
        "run": run_document(run),
        "peak_macs_per_us": run.figures.peak_macs_per_us,
        "timeline": timeline(programs),
    }


def _embedded(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False).translate(_ESCAPES)


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")
