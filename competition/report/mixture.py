"""Draws the weights of the blends as heat maps."""

from typing import Final

import numpy as np

from competition.common.skeleton import AXES, JOINTS, ROOT
from competition.report.blocks import Block, Chart, Pairs, Paragraph, Section, Table, skipped
from competition.report.charts import heat
from competition.report.evidence import Evidence
from competition.runs.blends import read_weights

MOST_BLENDS: Final = 3


def mixture(evidence: Evidence) -> Section:
    """Draw the weights of each blend other than plain means."""
    key, title = "weights", "Weights of the blends"
    blends = [row.name for row in evidence.board if row.kind != "run"]
    paths = [evidence.workspace.submissions / name / "weights.csv" for name in blends]
    read = [(path.parent.name, *read_weights(path)) for path in paths if path.exists()]
    uneven = [(name, names, values) for name, names, values in read if np.ptp(values[ROOT + 1 :]) > 0]
    if not uneven:
        if not read:
            return skipped(key, title, "There is no blend with weights.")
        return skipped(key, title, "Every blend is a plain mean with equal weights.")
    uneven.sort(key=lambda one: (one[0] != "blend", one[0]))  # the shipped blend first
    charts = []
    for number, (name, names, values) in enumerate(uneven[:MOST_BLENDS]):
        shown = values[ROOT + 1 :]  # the root is always the origin
        rows = [f"{joint} {axis}" for joint in JOINTS[ROOT + 1 :] for axis in AXES]
        of_rows = shown.reshape(len(rows), len(names)).tolist()
        share = shown.mean(axis=(0, 1))
        most = int(share.argmax())
        chart = Chart(
            name=f"weights{number}",
            figure=heat(names, JOINTS[ROOT + 1 :], AXES, of_rows),
            alternative=f"Weights of {name}: {names[most]} has the largest, {100 * share[most]:.0f} % on average.",
            numbers=Table(
                caption=f"Weights of {name}",
                headings=("coordinate", *names),
                rows=[(row, *weights) for row, weights in zip(rows, of_rows, strict=True)],
                digits=3,
            ),
        )
        charts.append((name, chart))
    text = "Each joint has three rows: x, y and z. The weights in a row sum to 1."
    blocks: list[Block] = [Paragraph(text), Pairs(charts=charts)]
    if (rest := len(uneven) - len(charts)) > 0:
        blocks.append(Paragraph(f"{rest} more {'blend is' if rest == 1 else 'blends are'} not shown."))
    return Section(key=key, title=title, blocks=blocks)
