"""Breaks out-of-fold errors down by joint, axis, action and camera."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from competition.common.skeleton import JOINTS
from competition.report.blocks import Block, Chart, Pairs, Paragraph, Section, Table, skipped
from competition.report.charts import dots
from competition.report.evidence import Entry, Evidence

AXIS_WORDS = ("x (right)", "y (down)", "z (away)")


def by_group(entry: Entry, groups: npt.NDArray[np.str_], names: Sequence[str]) -> list[float | None]:
    """Return an entry's MPJPE in mm for each group in `names`, None without rows; `groups` [N] covers all labels."""
    of_row = groups[entry.id - 1]
    chosen = [entry.row_mm[of_row == name] for name in names]
    return [float(rows.mean()) if len(rows) else None for rows in chosen]


def breakdown(evidence: Evidence) -> Section:
    """Draw the out-of-fold errors of each run's best epoch by joint, axis, action and camera."""
    key, title = "breakdown", "Errors by joint, action, axis and camera"
    entries = evidence.entries
    if not entries:
        return skipped(key, title, evidence.why_empty)
    joint = [entry.error_mm.mean(axis=0).tolist() for entry in entries]
    axis = [entry.axis_mm.mean(axis=0).tolist() for entry in entries]
    charts = [_draw("joint", "By joint", entries, JOINTS, joint)]
    if evidence.names is not None:
        action, camera = (np.array([getattr(name, part) for name in evidence.names]) for part in ("action", "camera"))
        charts.append(_draw("action", "By action", entries, *_by_groups(entries, action)))
    charts.append(_draw("axis", "By axis of the camera", entries, AXIS_WORDS, axis, "mean |error|, mm"))
    if evidence.names is not None:
        charts.append(_draw("camera", "By camera", entries, *_by_groups(entries, camera)))
    blocks: list[Block] = [
        Paragraph("Out-of-fold errors of each run at its best epoch, over all its held-out images."),
        Pairs(charts=charts),
    ]
    if evidence.names is None:
        blocks.append(Paragraph("Charts by action and camera are left out, as the image names don't contain them."))
    return Section(key=key, title=title, blocks=blocks)


def _by_groups(entries: Sequence[Entry], groups: npt.NDArray[np.str_]) -> tuple[list[str], list[list[float | None]]]:
    names = np.unique(groups).tolist()
    return names, [by_group(entry, groups, names) for entry in entries]


def _draw(
    part: str,
    heading: str,
    entries: Sequence[Entry],
    names: Sequence[str],
    values: Sequence[Sequence[float | None]],
    unit: str = "MPJPE, mm",
) -> tuple[str, Chart]:
    """Draw values [entries][names]; return the chart and the heading above it."""
    labels = [entry.name for entry in entries]
    of_best = [(value, name) for name, value in zip(names, values[0], strict=True) if value is not None]
    (low, lowest), (high, highest) = min(of_best), max(of_best)
    alternative = f"Out-of-fold error {heading.lower()}. {labels[0]}: lowest {lowest} at {low:.1f} mm, "
    alternative += f"highest {highest} at {high:.1f} mm."
    rows = list(zip(names, *values, strict=True))
    numbers = Table(caption=f"{unit}, {heading.lower()}", headings=(part, *labels), rows=rows, digits=1)
    chart = Chart(name=part, figure=dots(labels, values, names, unit), alternative=alternative, numbers=numbers)
    return heading, chart
