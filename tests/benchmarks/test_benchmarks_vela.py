"""The bench beside Vela: its tables, JSON and mistakes, models that take codes, one network measured."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks import vela
from benchmarks.vela_measure import AS_IT_IS, VARIANTS, VELA, LayerTraffic, VelaRow, load
from models import ALL_NETWORKS
from npu_backend import load_machine

ROW = VelaRow(
    model="mobilenet_v2",
    strategy="single",
    plan="single",
    variant="as it is",
    latency_us=827.0,
    lower_bound_us=170.0,
    dram_bytes=15_600_000,
    constant_bytes=3_500_000,
    utilization=0.2,
    layers=(
        LayerTraffic("stem/conv", "conv2d", 400_000, 30.0),
        LayerTraffic("block2/expand/conv", "conv2d", 1_400_000, 50.0),
    ),
)


def test_ratios():
    assert ROW.latency_ratio == pytest.approx(0.5)
    assert ROW.dram_ratio == pytest.approx(2.0)


def test_tables():
    faster = VelaRow(**{**vars(ROW), "strategy": "base", "latency_us": 700.0})
    larger = VelaRow(**{**vars(ROW), "variant": "1 MiB of scratchpad", "dram_bytes": 7_800_000})
    comparison, variants, layers = vela.tables([ROW, faster, larger])
    assert [line[1] for line in comparison.lines] == ["single", "fastest: base", "least traffic: single", "Vela"]
    assert comparison.lines[0][2:6] == ("0.827", "0.50x", "15.6", "2.00x")
    assert [(line[1], line[5]) for line in variants.lines] == [("as it is", "2.00x"), ("1 MiB of scratchpad", "1.00x")]
    assert [line[0] for line in layers.lines] == ["block2/expand/conv", "stem/conv"]


def test_json_has_ratios_and_velas_figures():
    document = json.loads(vela.to_json([ROW]))
    assert document["vela"]["resnet50"] == {"latency_ms": 5.858, "dram_mb": 57.1}
    assert document["rows"][0]["dram_ratio"] == pytest.approx(2.0)
    assert document["rows"][0]["layers"][0]["name"] == "stem/conv"


def test_variants_change_the_machine():
    machine = load_machine(vela.MACHINE)
    changed = {name: change(machine) for name, change in VARIANTS.items()}
    assert changed.pop(AS_IT_IS) == machine
    assert all(one != machine for one in changed.values())
    assert changed["array of 2 x 2 x 64 outputs"].cores[0].mac_array.macs_per_cycle == 2048


def test_every_network_of_velas_is_built_here():
    assert {*VELA} <= {*ALL_NETWORKS}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--networks", "unet"], "unet"),
        (["--json", "no/such/folder/vela.json"], "no/such/folder"),
        (["--markdown", "no/such/page.md"], "cannot read it"),
    ],
)
def test_mistakes_end_with_one_message(options, message):
    done = CliRunner().invoke(vela.main, options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_networks_take_their_image_as_codes():
    imported = load("mobilenet_v2")
    (graph,) = imported.graphs
    (port,) = graph.inputs
    assert graph.tensors[port.tensor].itemsize == 1
    assert imported.io_bytes < 200_000


@pytest.mark.slow
def test_command_measures_a_network_and_rewrites_a_page(tmp_path):
    figures, page = tmp_path / "vela.json", tmp_path / "vela.md"
    page.write_text("before\n<!-- begin comparison -->\n<!-- end comparison -->\nafter\n")
    options = ["--networks", "mobilenet_v2", "--json", str(figures), "--markdown", str(page)]
    done = CliRunner().invoke(vela.main, options)
    assert done.exit_code == 0, done.output
    single = json.loads(figures.read_text())["rows"][0]
    assert single["latency_ratio"] < 1.0
    assert page.read_text().startswith("before\n<!-- begin comparison -->\n| network |")
