"""Draws the weights of the blends as heat maps."""

from typing import Final

import numpy as np

from competition.common.skeleton import AXES, JOINTS, ROOT
from competition.report.charts import heat
from competition.report.evidence import Evidence
from competition.report.markup import Section, chart, escape, paragraph, skipped, table
from competition.runs.blends import read_weights

MOST_BLENDS: Final = 3


def mixture(evidence: Evidence) -> Section:
    """Draw the weights of each blend other than plain means."""
    key, title = "weights", "Weights of the blends"
    blends = [row["name"] for row in evidence.board if row["kind"] != "run"]
    paths = [evidence.workspace.submissions / name / "weights.csv" for name in blends]
    read = [(path.parent.name, *read_weights(path)) for path in paths if path.exists()]
    uneven = [(name, names, values) for name, names, values in read if np.ptp(values[ROOT + 1 :]) > 0]
    if not uneven:
        if not read:
            return skipped(key, title, "There is no blend with weights: run make blend.")
        return skipped(key, title, "Every blend is a plain mean with equal weights.")
    uneven.sort(key=lambda one: (one[0] != "blend", one[0]))  # the shipped blend first
    body = paragraph("Each joint has three rows: x, y and z. The weights in a row sum to 1.")
    figures, cells = {}, []
    for number, (name, names, values) in enumerate(uneven[:MOST_BLENDS]):
        shown = values[ROOT + 1 :]  # the root is always the origin
        rows = [f"{joint} {axis}" for joint in JOINTS[ROOT + 1 :] for axis in AXES]
        of_rows = shown.reshape(len(rows), len(names)).tolist()
        figure = heat(names, JOINTS[ROOT + 1 :], AXES, of_rows)
        figures[f"weights{number}"] = figure
        share = shown.mean(axis=(0, 1))
        most = int(share.argmax())
        alternative = f"Weights of {name}: {names[most]} has the largest, {100 * share[most]:.0f} % on average."
        numbers = table(
            f"Weights of {name}",
            ("coordinate", *names),
            [(row, *weights) for row, weights in zip(rows, of_rows, strict=True)],
            digits=3,
        )
        cells.append(f"<div><h3>{escape(name)}</h3>{chart(f'weights{number}', figure, alternative, numbers)}</div>")
    rest = len(uneven) - len(cells)
    after = paragraph(f"{rest} more {'blend is' if rest == 1 else 'blends are'} not shown.") if rest > 0 else ""
    return Section(
        key=key, title=title, body=body + f'<div class="pairs">{"".join(cells)}</div>{after}', figures=figures
    )
