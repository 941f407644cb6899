"""The page of a run: what it embeds, that it is whole, and that nothing in it can be loaded or escape."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from npu_backend.isa import FORMAT_BY_NAME
from npu_backend.machine import load_machine
from npu_backend.report.document import HostOperator, NetworkReport, Run, run_document
from npu_backend.report.figures import TimedProgram, figures
from npu_backend.report.page import page_data, report_page
from tests.report.test_figures import compiled

HOSTILE = "</script><img src=x onerror=alert(1)>&'\"$title ${data}\u2028"


@pytest.fixture(scope="module")
def timed() -> TimedProgram:
    return compiled(load_machine("exynos2100").take(2), "channel")


def run_of(programs: list[TimedProgram], name: str = "small") -> Run:
    return Run(
        model=name, machine="exynos2100", cores=2, strategy="channel", plan="channel", figures=figures(programs, 2),
        npu_ops=4, vector_ops=0, host_ops=[HostOperator(name, "Sin", name)], compile_seconds=1.0, emulate_seconds=None,
        verify=None,
        network=NetworkReport.of(programs),
    )  # fmt: skip


def embedded(page: bytes) -> Any:
    found = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page.decode(), re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def column(lane: dict[str, Any], name: str, kind: str = "<u4") -> np.ndarray:
    return np.frombuffer(b64decode(lane[name]), kind).astype(np.int64)


def test_embeds_the_run_and_every_layer(timed: TimedProgram) -> None:
    run = run_of([timed])
    data = embedded(report_page(run, [timed]))
    assert data["run"] == json.loads(json.dumps(run_document(run)))
    names = [layer["name"] for layer in timed.program.metadata["layers"]]
    assert [layer["name"] for layer in data["run"]["layers"]] == names
    assert all(layer["reason"] for layer in data["run"]["layers"])
    origins = {origin for lane in data["timeline"]["lanes"] for origin in column(lane, "origin").tolist()}
    assert {data["timeline"]["origin_layers"][origin] for origin in origins} == set(range(len(names)))


def test_lanes_hold_every_span_once(timed: TimedProgram) -> None:
    found, wait = page_data(run_of([timed]), [timed])["timeline"], FORMAT_BY_NAME["WAIT"].code
    assert found["wait"] == wait
    assert {lane["core"] for lane in found["lanes"]} == {0, 1}
    moved = 0
    for lane in found["lanes"]:
        start, duration = column(lane, "start"), column(lane, "duration")
        assert (start[1:] >= (start + duration)[:-1]).all()
        assert (start + duration <= np.ceil(found["total_ns"])).all()
        moved += int(column(lane, "bytes").sum()) if lane["engine"] in ("load", "store") else 0
    assert moved == sum(core.dram_bytes for core in timed.timing.cores)
    codes = np.concatenate([column(lane, "opcode", "u1") for lane in found["lanes"]])
    assert FORMAT_BY_NAME["SIGNAL"].code not in codes
    assert wait in codes


def test_path_is_that_of_the_run(timed: TimedProgram) -> None:
    """All pieces one after the other, rounded to ns, and each of the longest among them."""
    data = page_data(run_of([timed]), [timed])
    path, told = data["path"], data["run"]["critical_path"]
    start, duration = column(path, "start"), column(path, "duration")
    assert (start[1:] == (start + duration)[:-1]).all()
    assert (start[0], start[-1] + duration[-1]) == (0, round(told["total_us"] * 1000))
    layers, kinds = column(path, "layer"), column(path, "kind", "u1")
    by_layer = np.bincount(layers, duration, len(timed.layers)) / 1000
    assert by_layer == pytest.approx(told["by_layer"], abs=0.001 * len(start))
    pieces = {(path["kinds"][kind], round(at)) for kind, at in zip(kinds, start.tolist(), strict=True)}
    assert {(row["kind"], round(row["start_us"] * 1000)) for row in told["segments"]} <= pieces
    assert {path["engines"][engine] for engine in column(path, "engine", "u1")} <= {
        lane["engine"] for lane in data["timeline"]["lanes"]}  # fmt: skip


def test_shape_of_the_network(timed: TimedProgram) -> None:
    mesh = compiled(load_machine("mesh16").take(4), "halo")
    network = embedded(report_page(run_of([mesh]), [mesh]))["network"]
    assert (network["topology"], network["rows"], network["columns"]) == ("mesh", 4, 4)
    assert page_data(run_of([timed]), [timed])["network"]["topology"] == "crossbar"
    old = replace(timed, program=replace(timed.program, metadata={
        key: value for key, value in timed.program.metadata.items() if key != "network"}))  # fmt: skip
    assert page_data(run_of([old]), [old])["network"] is None


def test_programs_follow_each_other(timed: TimedProgram) -> None:
    one, two = (page_data(run_of([timed] * count), [timed] * count)["timeline"] for count in (1, 2))
    assert two["total_ns"] == pytest.approx(2 * one["total_ns"])
    layers = len(timed.layers)
    assert two["origin_layers"] == one["origin_layers"] + [layer + layers for layer in one["origin_layers"]]
    for first, both in zip(one["lanes"], two["lanes"], strict=True):
        count = len(column(first, "start"))
        assert column(both, "start")[:count].tolist() == column(first, "start").tolist()
        assert column(both, "origin")[count:].min() >= len(one["origins"])


def test_text_is_escaped(timed: TimedProgram) -> None:
    rows = [{**row, "name": HOSTILE} for row in timed.program.metadata["layers"]]
    hostile = replace(timed, program=replace(timed.program, metadata={**timed.program.metadata, "layers": rows}))
    page = report_page(run_of([hostile], HOSTILE), [hostile])
    assert b"<img" not in page
    assert page.count(b"</script>") == 2
    assert "\u2028" not in page.decode().partition("<body>")[2]
    data = embedded(page)
    assert data["run"]["model"] == HOSTILE
    assert {layer["name"] for layer in data["run"]["layers"]} == {HOSTILE}
    assert b"<title>&lt;/script&gt;&lt;img" in page


def test_loads_nothing(timed: TimedProgram) -> None:
    text = report_page(run_of([timed]), [timed]).decode()
    assert re.findall(r"(?:src|href)\s*=\s*\"([^\"]*)\"", text) == ["data:,"]
    for loader in ("://", "url(", "@import", "import(", "fetch(", "XMLHttpRequest", "WebSocket", "innerHTML", "eval("):
        assert loader not in text, loader
    assert "default-src 'none'" in text


def test_model_without_programs() -> None:
    data = embedded(report_page(run_of([]), []))
    assert (data["timeline"]["lanes"], data["run"]["layers"]) == ([], [])
