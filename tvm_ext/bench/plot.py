"""The speed-up bars of the paper's figure 11: every network and strategy over one core, the geometric mean last."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from npu_backend.files import write_atomically
from tvm_ext.bench.ladder import MEAN, mean_speed_up, speed_up_over_one_core
from tvm_ext.bench.paper import ONE_CORE, RATIOS
from tvm_ext.bench.rows import Rows
from tvm_ext.bench.study import Choice

WIDTH_INCHES, HEIGHT_INCHES, DPI = 11, 4.4, 160
GROUP_WIDTH = 0.86
# Greys for those that divide every layer alike, then darker with every step of the paper's ladder.
COLOURS = {"spatial": "#c9ced6", "channel": "#9aa3b0", "base": "#a9cbe6", "halo": "#5b9bd0", "stratum": "#1f5c99"}
OTHER_COLOURS = ("#e0a458", "#7a9e5c", "#8c6bb1", "#c0605a")
# No dates and no random names, so that equal figures are equal files.
SETTINGS = {"svg.hashsalt": "npuc bench", "svg.fonttype": "path", "font.size": 9, "axes.axisbelow": True}
PAPER = "the paper's average"
METADATA = {".svg": {"Date": None}, ".png": {"Software": None}}


def save_figure(choice: Choice, rows: Rows, paths: Sequence[Path]) -> None:
    """Draws the bars into files, PNG or SVG by their suffix. Raises OutputError."""
    with mpl.rc_context(SETTINGS):
        figure = draw(choice, rows)
        for path in paths:
            drawn = io.BytesIO()
            figure.savefig(drawn, format=path.suffix[1:].lower(), dpi=DPI, metadata=METADATA[path.suffix.lower()])
            write_atomically(path, drawn.getvalue())


def draw(choice: Choice, rows: Rows) -> Figure:
    """The figure, on the most cores that were chosen."""
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
    axes = figure.add_subplot()
    models = [source.name for source in choice.sources]
    names = [strategy.name for strategy in choice.strategies if strategy.name != ONE_CORE] or [ONE_CORE]
    step = GROUP_WIDTH / len(names)
    for index, name in enumerate(names):
        gains = [speed_up_over_one_core(choice, rows, model, name, choice.most_cores) for model in models]
        places = [group + (index - (len(names) - 1) / 2) * step for group in range(len(models) + 1)]
        heights = [gain or 0.0 for gain in (*gains, mean_speed_up(choice, rows, name, choice.most_cores))]
        _bars(axes, places, heights, step, name, index)
        _papers_average(axes, name, places[-1], step)
    _frame(axes, choice, models, len(names))
    return figure


def _bars(axes: Axes, places: Sequence[float], heights: Sequence[float], step: float, name: str, index: int) -> None:
    colour = COLOURS.get(name, OTHER_COLOURS[index % len(OTHER_COLOURS)])
    bars = axes.bar(places, heights, width=step * 0.94, color=colour, label=name)
    labels = [f"{height:.2f}" if height else "" for height in heights]
    # A ground of white, where a line of the grid would cross the digits.
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    axes.bar_label(bars, labels, rotation=90, fontsize=7, padding=3, color="#333333", bbox=ground)


def _papers_average(axes: Axes, name: str, place: float, step: float) -> None:
    """A mark across the bar of the mean where the paper prints one."""
    for ratio in RATIOS:
        if (ratio.strategy, ratio.over) == (name, ONE_CORE):
            axes.hlines(ratio.paper, place - step / 2, place + step / 2, color="#d1495b", linewidth=2.2, zorder=3,
                        label=PAPER)  # fmt: skip


def _frame(axes: Axes, choice: Choice, models: Sequence[str], bars: int) -> None:
    axes.axhline(1, color="#555555", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.axvline(len(models) - 0.5, color="#bbbbbb", linewidth=0.9)
    axes.set_xticks(range(len(models) + 1), [model.replace("_", " ") for model in (*models, MEAN)])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.55, len(models) + 0.55)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    axes.set_ylabel(f"performance over one core\n({choice.machine.name}, {choice.most_cores} cores)")
    axes.yaxis.grid(visible=True, color="#e6e6e6", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.get_xticklabels()[-1].set_fontweight("bold")
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    # The bars first, then the marks.
    labels = sorted(handles, key=PAPER.__eq__)
    axes.legend(
        [handles[label] for label in labels],
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=bars + 1,
        frameon=False,
        handlelength=1.2,
    )
