"""Draws error against rarity: the distance of a pose to the nearest pose of another subject."""

from typing import Final

import numpy as np
import numpy.typing as npt

from competition.common.arrays import Float32, Float64, Intp
from competition.common.seeds import generator
from competition.report.blocks import Chart, Paragraph, Section, Table, skipped
from competition.report.charts import Series, points
from competition.report.evidence import Evidence

MOST_ROWS: Final = 2000
MOST_REFERENCES: Final = 5000
MOST_BINS, ROWS_PER_BIN = 10, 15


def nearest_of_others(
    pose_mm: Float32,
    subject: npt.NDArray[np.str_],
    reference_mm: Float32,
    reference_subject: npt.NDArray[np.str_],
) -> Float64:
    """Return each pose's MPJPE in mm to the nearest reference pose of another subject, infinity without one: [n].

    pose_mm [n, 17, 3] and subject [n]; reference_mm [m, 17, 3] and reference_subject [m].
    """
    by_axis = np.ascontiguousarray(
        reference_mm.transpose(2, 1, 0), np.float32
    )  # [3, 17, m]: sums over long rows are fastest
    nearest = np.full(len(pose_mm), np.inf)
    for row, pose in enumerate(pose_mm.transpose(0, 2, 1).astype(np.float32)):  # [3, 17]
        squared = np.square(by_axis - pose[:, :, None]).sum(axis=0)
        distance = np.sqrt(squared).mean(axis=0)[reference_subject != subject[row]]
        if len(distance):
            nearest[row] = distance.min()
    return nearest


def quantile_bins(values: Float64, count: int) -> Intp:
    """Return the quantile bin, 0 to count - 1, of each value [n]."""
    edges = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")


def rarity(evidence: Evidence) -> Section:
    """Draw the out-of-fold error of the runs by quantiles of the pose's rarity."""
    key, title = "rarity", "Rare poses"
    if not evidence.entries or evidence.labels is None:
        return skipped(key, title, evidence.why_empty)
    if evidence.names is None:
        return skipped(key, title, "The image names don't contain the subjects.")
    subject = np.array([name.subject for name in evidence.names])
    if len(np.unique(subject)) < 2:
        return skipped(key, title, "There is only one subject, and rarity compares different subjects.")
    draw = generator(evidence.workspace.seed, "report", "rarity")
    ids = evidence.entries[0].id
    ids = np.sort(draw.permutation(ids)[:MOST_ROWS])
    references = np.sort(draw.permutation(len(subject))[:MOST_REFERENCES])
    pose_mm = evidence.labels.pose_mm
    distance_mm = nearest_of_others(pose_mm[ids - 1], subject[ids - 1], pose_mm[references], subject[references])
    count = min(MOST_BINS, len(ids) // ROWS_PER_BIN)
    if count < 2 or not np.isfinite(distance_mm).all():
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
        f"rare if no other subject has a similar one: the distance is the MPJPE to the nearest of {len(references):,} "
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
