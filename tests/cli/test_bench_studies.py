"""The studies of ``npuc bench`` on rows made up here: ratios, tables, figure and page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from npu_backend.errors import OptionError
from npu_backend.machine import load_machine
from npu_backend.report.figures import CoreFigures
from npu_backend.strategies import STRATEGIES
from tests.cli.tiny import npuc
from tvm_ext.bench import paper, sources
from tvm_ext.bench.ladder import Ladder, mean_ratio
from tvm_ext.bench.page import read_page, rewrite_page, with_sections
from tvm_ext.bench.plot import save_figure
from tvm_ext.bench.report import Provenance, document, sections
from tvm_ext.bench.rows import BenchRow, Failure, Rows, geometric_mean
from tvm_ext.bench.sensitivity import Sensitivity, variants
from tvm_ext.bench.sources import Source
from tvm_ext.bench.stem import Stem
from tvm_ext.bench.study import Choice
from tvm_ext.bench.traffic import Traffic

Capture = pytest.CaptureFixture[str]
MACHINE = load_machine("exynos2100")
LADDER = ("single", "spatial", "channel", "base", "halo", "stratum")
# Of three cores, in us; one core takes 400.
LATENCIES = {"single": 400.0, "spatial": 250.0, "channel": 320.0, "base": 200.0, "halo": 180.0, "stratum": 160.0}
STRATEGY = STRATEGIES["base"]
CHOICE = Choice((Source("one"), Source("two")), MACHINE, (1, 3), tuple(replace(STRATEGY, name=name) for name in LADDER))


def row(model: str, strategy: str, cores: int, latency_us: float, machine: str = "exynos2100") -> BenchRow:
    core = CoreFigures(
        busy_us=latency_us - 30, idle_us=10, sync_us=20, matrix_busy_us=50, vector_busy_us=5, dram_bytes=5_000_000,
        load_bytes=4_000_000, store_bytes=1_000_000, noc_bytes=0, macs=350,
    )  # fmt: skip
    return BenchRow(
        model=model, machine=machine, cores=cores, strategy=strategy, plan="base" if strategy == "halo" else strategy,
        cycles=round(latency_us * 1196), latency_us=latency_us, lower_bound_us=80.0, macs=1000, macs_executed=1050,
        dram_bytes=5_000_000 * cores, noc_bytes=0, spm_peak_bytes=1000, energy_uj=5.0, compile_seconds=0.5,
        per_core=(core,) * cores,
    )  # fmt: skip


def ladder_rows(machine: str = "exynos2100") -> tuple[BenchRow, ...]:
    """The second model is twice as slow everywhere, so means are the first one's."""
    return tuple(
        row(model, name, cores, factor * (400.0 if cores == 1 else LATENCIES[name]), machine)
        for model, factor in (("one", 1.0), ("two", 2.0)) for name in LADDER for cores in (1, 3)
    )  # fmt: skip


def test_geometric_mean() -> None:
    assert geometric_mean([2.0, None, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([None]) is None


def test_ratios_of_the_paper() -> None:
    rows = Rows(ladder_rows())
    found = {ratio.name: mean_ratio(CHOICE, rows, ratio) for ratio in paper.RATIOS}
    assert found == {
        "halo over base": pytest.approx(200 / 180),
        "stratum over base": pytest.approx(1.25),
        "stratum over one core": pytest.approx(2.5),
        "halo over one core": pytest.approx(400 / 180),
        "base over one core": pytest.approx(2.0),
    }


def test_papers_figures_agree_with_one_another() -> None:
    ratios = {(ratio.strategy, ratio.over): ratio.paper for ratio in paper.RATIOS}
    one_core = {name: ratios[name, paper.ONE_CORE] for name in ("base", "halo", "stratum")}
    assert one_core["base"] * ratios["stratum", "base"] == pytest.approx(one_core["stratum"], abs=0.01)
    assert one_core["base"] * ratios["halo", "base"] == pytest.approx(one_core["halo"], abs=0.01)
    totals = {name: (round(one.megabytes, 1), one.mean_idle_us) for name, one in paper.TRAFFIC.items()}
    assert totals["base"] == (69.9, pytest.approx(277, abs=1))
    assert totals["spatial"][1] > totals["channel"][1] > totals["base"][1]


def test_ladder_tables() -> None:
    latencies, ratios = Ladder().sheets(CHOICE, Rows(ladder_rows()))
    text = latencies.markdown()
    assert "| one | 3 | 400 1.00x | 250 1.60x | 320 1.25x | 200 2.00x | 180 2.22x* | 160 2.50x | 80 | 50% |" in text
    assert "| geometric mean | 3 | 1.00x | 1.60x | 1.25x | 2.00x | 2.22x | 2.50x |  |  |" in text
    assert "| halo over one core | 2.22 | 2.22 | 2.22 | 1.83 (derived) |" in ratios.markdown()
    assert "| stratum over base | 1.25 | 1.25 | 1.25 | 1.23 |" in ratios.markdown()


def test_missing_rows_are_dashes() -> None:
    few = Rows(tuple(one for one in ladder_rows() if one.strategy in ("single", "base")))
    latencies, ratios = Ladder().sheets(CHOICE, few)
    assert "| one | 3 | 400 1.00x | - | - | 200 2.00x | - | - |" in latencies.markdown()
    assert "| halo over base | - | - | - | 1.07 |" in ratios.markdown()
    assert Ladder().values(CHOICE, few)["ratios"]["halo_over_base"] == {"value": None, "paper": 1.07}


def test_stem_beside_the_paper() -> None:
    rows = Rows((row(sources.STEM, "halo", 3, 400.0),))
    (sheet,) = Stem().sheets(CHOICE, rows)
    text = sheet.markdown()
    assert "| halo | 400.0 | 387 | +3.4% | 0.0000 | 5.00% | 0.00% | 20.0 (0.0) | 21.2 (9.1) |" in text
    assert "| stratum-only | - | 386 | - | - | - | 3.70% | - | 17.5 (9.2) |" in text


def test_stem_measures_the_strategies_there_are() -> None:
    names = [case.strategy.name for case in Stem().cases(CHOICE)]
    assert names[-1] == "base"
    assert ("stratum-only" in names) == ("stratum" in STRATEGIES)
    assert {"halo", "stratum"} & STRATEGIES.keys() == {"halo", "stratum"} & set(names)


def test_traffic_beside_the_paper() -> None:
    (sheet,) = Traffic().sheets(CHOICE, Rows((row("inception_v3", "base", 3, 400.0),)))
    lines = sheet.markdown().splitlines()
    assert "| base | ours | 5000 / 5000 / 5000 | 15.0 | 30 / 30 / 30 | 30 |" in lines
    assert "| base | paper | 32177 / 15462 / 22224 | 69.9 | 206 / 427 / 199 | 277 |" in lines


def test_variants_scale_one_resource_each() -> None:
    made = variants(MACHINE)
    assert len(made) == 9
    assert len({machine.name for machine in made.values()}) == 9
    first, core = made["as it is"], MACHINE.cores[0]
    assert first == MACHINE
    assert made["DRAM bandwidth x 2"].dram.bandwidth_gb_per_s == 2 * MACHINE.dram.bandwidth_gb_per_s
    assert made["DRAM bandwidth x 2"].cores[0].memory_gb_per_s == 2 * core.memory_gb_per_s
    halved = made["synchronisation cost x 0.5"].synchronization
    assert halved.cross_signal_ns == MACHINE.synchronization.cross_signal_ns / 2
    assert made["scratchpad x 0.5"].cores[2].spm_bytes == core.spm_bytes // 2
    assert made["MACs x 2"].cores[1].mac_array.macs_per_cycle == 2 * core.mac_array.macs_per_cycle


def test_sensitivity_says_of_how_many_models() -> None:
    scratchpad = "exynos2100, scratchpad x 0.5"
    partial = tuple(one for one in ladder_rows(scratchpad) if one.model == "one")
    (sheet,) = Sensitivity().sheets(CHOICE, Rows((*ladder_rows(), *partial)))
    lines = sheet.markdown().splitlines()
    assert "| as it is | 1.11 | 1.25 | 2.50 | 2.22 | 2.00 |" in lines
    assert (
        "| scratchpad x 0.5 | 1.11 (1 of 2) | 1.25 (1 of 2) | 2.50 (1 of 2) | 2.22 (1 of 2) | 2.00 (1 of 2) |" in lines
    )
    assert "| MACs x 2 | - | - | - | - | - |" in lines


def test_figure(tmp_path: Path) -> None:
    paths = [tmp_path / "bars.png", tmp_path / "bars.svg"]
    save_figure(CHOICE, Rows(ladder_rows()), paths)
    first = [path.read_bytes() for path in paths]
    assert first[0].startswith(b"\x89PNG")
    assert b"</svg>" in first[1]
    save_figure(CHOICE, Rows(ladder_rows()), paths)
    assert [path.read_bytes() for path in paths] == first, "the same rows must give the same files"


def test_row_and_json() -> None:
    rows = Rows(ladder_rows(), (Failure("three", "exynos2100", "base", 3, "too large"),))
    values = document(CHOICE, [Ladder()], rows, Provenance("abc", changed=True))
    assert [BenchRow.from_document(one) for one in values["rows"]] == list(rows.rows)
    assert (values["commit"], values["changed"], len(values["failures"])) == ("abc", True, 1)
    assert values["studies"]["ladder"]["speed_up_over_one_core"]["stratum_3_cores"] == pytest.approx(2.5)


PAGE = """# Title
<!-- begin ratios -->
old
<!-- end ratios -->
prose
<!-- begin stem -->
<!-- end stem -->
"""


def test_sections_are_rewritten_in_place(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    written = sections(CHOICE, [Ladder()], Rows(ladder_rows()), Provenance("abc"))
    assert set(written) == {"latencies", "ratios"}
    rewrite_page(path, written)
    text = path.read_text()
    assert "old" not in text
    assert "`npuc bench`, machine `exynos2100`, commit abc:" in text
    assert "| stratum over base |" in text
    assert text.startswith("# Title\n<!-- begin ratios -->\n")
    assert text.endswith("<!-- end ratios -->\nprose\n<!-- begin stem -->\n<!-- end stem -->\n")
    rewrite_page(path, written)
    assert path.read_text() == text


@pytest.mark.parametrize("page", ["no marks", PAGE.replace("end stem", "end ratios"), PAGE[:40]])
def test_page_without_pairs_of_marks(tmp_path: Path, page: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(page)
    with pytest.raises(OptionError, match="sections stand between"):
        read_page(path)


def test_unknown_sections_stay() -> None:
    assert with_sections(PAGE, {"other": "text"}) == PAGE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stem", "--networks", "unet"], "choose what --ladder and --sensitivity measure"),
        (["--traffic", "--strategies", "base"], "go with --ladder"),
        (["--plot", "bars.pdf"], "ends in .png or .svg"),
        (["--markdown", "absent.md"], "cannot read it"),
    ],
)
def test_options_that_do_not_go_together(capsys: Capture, arguments: list[str], message: str) -> None:
    result = npuc(capsys, "bench", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_the_shipped_page_has_every_section() -> None:
    page = Path(__file__).parents[2] / "docs" / "paper.md"
    studies = [Ladder(), Stem(), Traffic(), Sensitivity()]
    expected = {sheet.name for study in studies for sheet in study.sheets(CHOICE, Rows(()))}
    text = read_page(page)
    assert all(f"<!-- begin {name} -->" in text for name in expected)
