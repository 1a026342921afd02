"""Figures for plotly.js; page.js applies the theme's fonts and replaces INK names by colours.

Plotly interprets some HTML in every text, so names chosen by users go through `plain`.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from competition.common.skeleton import LEFT_COLOUR, RIGHT_COLOUR

PALETTE: Final = (LEFT_COLOUR, RIGHT_COLOUR, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito 2008
SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "x", "cross")
INK: Final = ("text", "muted")  # placeholders for the theme's colours
LONGEST_NAME: Final = 28  # characters, so that legends fit on a phone

Options: TypeAlias = dict[str, object]  # of a trace or an axis, by plotly's names


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure: its traces, its height in px and its axes."""

    data: list[Options]
    height: int
    xaxis: Options
    yaxis: Options

    def to_json(self) -> Options:
        """Return the figure as plotly.js expects it."""
        return {"data": self.data, "layout": {"height": self.height, "xaxis": self.xaxis, "yaxis": self.yaxis}}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One run's points in a chart."""

    name: str
    x: Sequence[float | str | None]
    y: Sequence[float | str | None]
    text: Sequence[str] | None = None  # hover label of each point
    sizes: Sequence[int] | None = None  # of the markers, px
    style: int | None = None  # index of colour and symbol; the position in the chart when unset


def plain(name: str) -> str:
    """Shorten a name and escape what plotly would interpret as markup."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return html.escape(short, quote=False)


def points(
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    lines: bool = False,
    height: int = 360,
    hover: str = "%{x}: %{y:.2f} mm",
) -> Figure:
    """Draw each series as points, optionally joined by lines, with a legend above."""
    styles = [_style(place if one.style is None else one.style) for place, one in enumerate(series)]
    data: list[Options] = [
        {
            "type": "scatter",
            "mode": "lines+markers" if lines else "markers",
            "name": plain(one.name),
            "x": list(one.x),
            "y": list(one.y),
            "text": [plain(text) for text in one.text or ()],
            "marker": {"opacity": 1, "color": colour, "symbol": symbol, "size": list(one.sizes or ()) or 9},
            "line": {"color": colour, "width": 2},
            "hovertemplate": hover,
        }
        for one, (colour, symbol) in zip(series, styles, strict=True)
    ]
    return Figure(data=data, height=height + 24 * len(series), xaxis={"title": x_title}, yaxis={"title": y_title})


def dots(names: Sequence[str], values: Sequence[Sequence[float | None]], rows: Sequence[str], x_title: str) -> Figure:
    """Draw one line per row with one dot per name: values [names][rows]."""
    series = [Series(name=name, x=of_name, y=rows) for name, of_name in zip(names, values, strict=True)]
    height = 110 + max(24, min(52, 150 // len(rows))) * len(rows)
    figure = points(series, x_title=x_title, y_title="", height=height, hover="%{y}: %{x:.1f} mm")
    return replace(figure, yaxis={"autorange": "reversed", "type": "category", "showgrid": True, "dtick": 1})


def bars(names: Sequence[str], values: Sequence[float], x_title: str) -> Figure:
    """Draw one horizontal bar per name, the first on top."""
    data: Options = {
        "type": "bar",
        "orientation": "h",
        "x": list(values),
        "y": [plain(name) for name in names],
        "marker": {"color": PALETTE[0]},
        "showlegend": False,
        "hovertemplate": "%{y}: %{x:.0f} %<extra></extra>",
    }
    vertical: Options = {"autorange": "reversed", "type": "category", "dtick": 1}
    return Figure(data=[data], height=110 + 24 * len(names), xaxis={"title": x_title}, yaxis=vertical)


def identity(figure: Figure, low: float, high: float) -> Figure:
    """Add the line y = x and give both axes the same range."""
    line: Options = {
        "type": "scatter",
        "mode": "lines",
        "name": "equal",
        "x": [low, high],
        "y": [low, high],
        "line": {"color": "muted", "dash": "dot", "width": 1.5},
        "hoverinfo": "skip",
    }
    span: Options = {"range": [low, high]}
    return replace(figure, data=[line, *figure.data], xaxis=figure.xaxis | span, yaxis=figure.yaxis | span)


def heat(
    columns: Sequence[str], rows: Sequence[str], inner: Sequence[str], values: Sequence[Sequence[float]]
) -> Figure:
    """Draw values from 0 to 1 as a heat map: values [rows x inner][columns], with a gap between the outer rows."""
    pitch = len(inner) + 1
    z: list[list[float | None]] = []
    text: list[list[str]] = []
    for place, of_row in enumerate(values):
        row, part = divmod(place, len(inner))
        if part == 0 and row > 0:
            z.append([None] * len(columns))
            text.append([""] * len(columns))
        z.append(list(of_row))
        text.append([f"{plain(f'{rows[row]} {inner[part]}')}, {plain(column)}" for column in columns])
    # columns are numbered: names that become equal when shortened would share one column
    data: Options = {
        "type": "heatmap",
        "x": list(range(len(columns))),
        "y": list(range(len(z))),
        "z": z,
        "text": text,
        "hovertemplate": "%{text}: %{z:.3f}<extra></extra>",
        "hoverongaps": False,
        "colorscale": "Viridis",
        "zmin": 0,
        "zmax": 1,
        "xgap": 2,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "len": 0.5, "title": {"text": "weight"}},
    }
    horizontal: Options = {"tickvals": data["x"], "ticktext": [plain(column) for column in columns], "showgrid": False}
    vertical: Options = {
        "tickvals": [pitch * row + (len(inner) - 1) / 2 for row in range(len(rows))],
        "ticktext": [plain(row) for row in rows],
        "autorange": "reversed",
        "showgrid": False,
    }
    return Figure(data=[data], height=150 + 10 * len(z), xaxis=horizontal, yaxis=vertical)


def _style(number: int) -> tuple[str, str]:
    """Return a colour and a symbol; the first 36 pairs differ."""
    turn = number // len(PALETTE)
    return PALETTE[number % len(PALETTE)], SYMBOLS[(number + turn) % len(SYMBOLS)]
