"""Draws error against rarity: the distance of a pose to the nearest pose of another subject."""

import numpy as np

from competition.common.arrays import Float64, Intp
from competition.report.blocks import Chart, Paragraph, Section, Table, skipped
from competition.report.charts import Series, points
from competition.report.evidence import Evidence

MOST_BINS, ROWS_PER_BIN = 10, 15


def quantile_bins(values: Float64, count: int) -> Intp:
    """Return the quantile bin, 0 to count - 1, of each value [n]."""
    edges = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")


def rarity(evidence: Evidence) -> Section:
    """Draw the out-of-fold error of the runs by quantiles of the pose's rarity."""
    key, title = "rarity", "Rare poses"
    if not evidence.entries:
        return skipped(key, title, evidence.why_empty)
    found = evidence.rarity
    if isinstance(found, str):
        return skipped(key, title, found)
    ids, distance_mm = found.id, found.distance_mm
    count = min(MOST_BINS, len(ids) // ROWS_PER_BIN)
    if count < 2:
        return skipped(key, title, f"There are only {len(ids)} out-of-fold images, too few to bin by rarity.")
    of_bin = quantile_bins(distance_mm, count)
    middle = [float(distance_mm[of_bin == number].mean()) for number in range(count) if (of_bin == number).any()]
    series = []
    errors_mm: list[list[float | None]] = []
    for entry in evidence.entries:
        there = np.isin(ids, entry.id)
        error_mm = np.full(len(ids), np.nan)
        error_mm[there] = entry.row_mm[np.searchsorted(entry.id, ids[there])]
        y = [_mean(error_mm[of_bin == number]) for number in range(count) if (of_bin == number).any()]
        errors_mm.append(y)
        series.append(Series(name=entry.name, x=middle, y=y))
    figure = points(
        series,
        x_title="distance to the nearest pose, mm",
        y_title="out-of-fold MPJPE, mm",
        lines=True,
        hover="%{y:.1f} mm at a distance of %{x:.1f} mm",
    )
    common, rare = _mm(errors_mm[0][0]), _mm(errors_mm[0][-1])
    sentence = f"The best run ({series[0].name}) has {common} on the most common and {rare} on the rarest poses."
    text = (
        f"{len(ids):,} out-of-fold images in {len(middle)} bins of equal size, from common to rare poses. A pose is "
        f"rare if no other subject has a similar one: the distance is the MPJPE to the nearest of {found.references:,} "
        f"labelled poses of other subjects. {sentence}"
    )
    rows = list(zip(middle, *errors_mm, strict=True))
    headings = ("distance, mm", *(one.name for one in series))
    numbers = Table(caption="MPJPE in mm by rarity", headings=headings, rows=rows, digits=1)
    alternative = f"Out-of-fold error by rarity of the pose. {sentence}"
    chart = Chart(name="rarity", figure=figure, alternative=alternative, numbers=numbers)
    return Section(key=key, title=title, blocks=[Paragraph(text), chart])


def _mean(values: Float64) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _mm(value: float | None) -> str:
    return "an unknown error" if value is None else f"{value:.1f} mm"
