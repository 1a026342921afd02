"""A study as a PNG picture: history, importance, and a slice per setting."""

import math
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from competition.common.console import printable
from competition.common.figures import png
from competition.common.skeleton import LEFT_COLOUR, RIGHT_COLOUR
from competition.runs.studies import SHOWN, Study, value_text

COLUMNS: Final = 4
GREY: Final = "#8a8f98"
OWN: Final = "#E69F00"


def study_picture(study: Study) -> bytes:
    """Draw a study; pruned trials are drawn at their last error, failed ones not at all."""
    names = list(study.importance) or sorted({name for trial in study.trials for name in trial.params})
    rows = max(1, math.ceil(len(names) / COLUMNS))
    figure = Figure(figsize=(13, 3.4 + 2.3 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=[3.2] + [2.2] * rows)
    _draw_history(figure.add_subplot(grid[0, : COLUMNS - 1]), study)
    _draw_importance(figure.add_subplot(grid[0, COLUMNS - 1]), study)
    for place, name in enumerate(names):
        _draw_slice(figure.add_subplot(grid[1 + place // COLUMNS, place % COLUMNS]), study, name)
    title = f"study {study.name}: {len(study.trials)} trials of {study.config.model}, out-of-fold MPJPE in mm"
    if (hidden := sum((one.last_mm or 0) > (study.highest_shown or math.inf) for one in study.trials)) > 0:
        title += f"; {hidden} trials above {study.highest_shown:.0f} are not shown"
    figure.suptitle(printable(title), fontsize=10, parse_math=False)
    return png(figure)


def _draw_history(axes: Axes, study: Study) -> None:
    for state, colour, label in (("pruned", GREY, "pruned, last error"), ("complete", LEFT_COLOUR, "completed")):
        found = [(one.number, one.last_mm) for one in study.trials if one.state == state and one.last_mm is not None]
        if found:
            axes.plot(*zip(*found, strict=True), "o", color=colour, markersize=5, label=label)
    if study.own is not None and study.own.mpjpe is not None:
        axes.plot([study.own.number], [study.own.mpjpe], "o", color=OWN, markersize=8, label="the recipe's own values")
    if study.best_so_far:
        axes.step(*zip(*study.best_so_far, strict=True), where="post", color=RIGHT_COLOUR, label="best so far")
        axes.legend(fontsize=7, frameon=False)
    axes.set_title("history", fontsize=9)
    _limit(axes, study)
    axes.set_xlabel("trial", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _style(axes)


def _draw_importance(axes: Axes, study: Study) -> None:
    axes.set_title("importance, %", fontsize=9)
    names = list(study.importance)[::-1]
    if not names:
        axes.text(0.5, 0.5, "too few completed trials", ha="center", va="center", fontsize=8, color=GREY)
        axes.set_axis_off()
        return
    axes.barh(range(len(names)), [100 * study.importance[name] for name in names], color=LEFT_COLOUR)
    axes.set_yticks(range(len(names)), [printable(name) for name in names], parse_math=False)
    _style(axes)


def _draw_slice(axes: Axes, study: Study, name: str) -> None:
    words = study.words(name)
    for state, colour in (("pruned", GREY), ("complete", LEFT_COLOUR)):
        found = [(value, mm) for of_trial, value, mm in study.slice(name) if of_trial == state]
        x = [value if study.is_numeric(name) else words.index(value_text(value)) for value, _ in found]
        axes.plot(np.array(x, np.float64), np.array([mm for _, mm in found]), "o", color=colour, markersize=4)
    _limit(axes, study)
    if not study.is_numeric(name):
        axes.set_xticks(range(len(words)), words, parse_math=False)
        axes.set_xlim(-0.5, len(words) - 0.5)
    elif study.is_logarithmic(name):
        axes.set_xscale("log")
    axes.set_title(printable(name), fontsize=9, parse_math=False)
    _style(axes)


def _limit(axes: Axes, study: Study) -> None:
    if study.highest_shown is not None and axes.get_ylim()[1] > study.highest_shown:
        axes.set_ylim(top=study.highest_shown)
        axes.set_ylim(bottom=0.95 * study.highest_shown / SHOWN)


def _style(axes: Axes) -> None:
    axes.tick_params(labelsize=7)
    axes.grid(color="#dfe2e5")
    axes.set_axisbelow(True)
