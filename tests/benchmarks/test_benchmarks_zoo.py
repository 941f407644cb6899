"""The bench of others' models: its table, its profile, its mistakes, and one model measured. No speed is a test."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks import zoo
from benchmarks.profile import profile_table, shares
from benchmarks.zoo_measure import ZooRow
from models.real import MissingModelError
from models.zoo import zoo_model

PERF = """
    40.00%  libnpu_emulator.so  [.] conv_tile
    10.00%  libnpu_emulator.so  [.] copy_rows
    30.00%  python3.11          [.] _PyEval_EvalFrameDefault
    20.00%  [kernel.kallsyms]   [k] page_fault
"""


def test_profile_counts_the_emulator_alone():
    assert shares(PERF) == {"conv_tile": pytest.approx(0.8), "copy_rows": pytest.approx(0.2)}
    assert [*profile_table("m", shares(PERF)).columns[1].cells] == ["80.0%", "20.0%"]


def test_slowest_first_and_errors_below(capsys):
    rows = [
        ZooRow("fast", "int8", elements=4, ratio=0.5),
        ZooRow("broken", "float16", error="ModelError: no"),
        ZooRow("slow", "float16", elements=4, mismatches=1, cosine=0.99995, ratio=7.0),
    ]
    zoo._show(rows)
    text = capsys.readouterr().out
    assert text.index("slow") < text.index("fast") < text.index("broken in float16: ModelError: no")
    assert "75.0%" in text


def test_json_has_every_row():
    document = json.loads(zoo._to_json([ZooRow("a", "int8", ratio=2.0)]))
    assert ZooRow(**document["rows"][0]) == ZooRow("a", "int8", ratio=2.0)


def test_forms_that_make_no_sense_are_left_out(monkeypatch):
    measured = []
    monkeypatch.setattr(zoo, "_measure", lambda name, form, **_: measured.append((name, form)) or ZooRow(name, form))
    assert [*zoo._rows(["light_vgg19", "rapidocr_det"], ["int8", "float16"], profile=False)]
    assert measured == [("light_vgg19", "float16"), ("rapidocr_det", "int8"), ("rapidocr_det", "float16")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "lenet"], "no model 'lenet'; choose from rapidocr_det"),
        (["--form", "int4"], "int4"),
        (["--models", "rapidocr_cls", "--json", "no/such/folder/bench.json"], "no/such/folder"),
    ],
)
def test_mistakes_end_with_one_message(options, message):
    done = CliRunner().invoke(zoo.main, options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_command_measures_a_small_model(tmp_path, monkeypatch):
    try:
        zoo_model("rapidocr_cls").load()
    except MissingModelError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(zoo, "SECONDS", 0.1)
    path = tmp_path / "zoo.json"
    done = CliRunner().invoke(zoo.main, ["--models", "rapidocr_cls", "--form", "int8", "--json", str(path)])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(path.read_text())["rows"]
    assert (row["error"], row["host_ops"], row["programs"], row["mismatches"]) == (None, 0, 1, 0)
    assert row["rounds"] >= 3
    assert row["cosine"] == pytest.approx(1)
