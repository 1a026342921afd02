"""Writes the report: gathers the evidence, builds every section and composes the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from competition.common.errors import UserError
from competition.common.files import write_text
from competition.common.workspace import Workspace
from competition.report.breakdown import breakdown
from competition.report.evidence import Evidence, gather
from competition.report.gallery import gallery
from competition.report.markup import Section, escape, page
from competition.report.mixture import mixture
from competition.report.rarity import rarity
from competition.report.standings import board, calibration, curves, poster

SECTIONS: Final[tuple[Callable[[Evidence], Section], ...]] = (
    board,
    curves,
    poster,
    breakdown,
    rarity,
    calibration,
    mixture,
    gallery,
)


def write_report(workspace: Workspace, out: Path, advance: Callable[[int, str], None] | None = None) -> Path:
    """Write the report of all runs and blends as one HTML file and return its path; raise UserError without any.

    `advance` is called after each of the SECTIONS. Scores come from scores.csv; DATA/solution is never read.
    """
    evidence = gather(workspace)
    if not evidence.board:
        raise UserError(f"no runs under {workspace.submissions}: train one with `make train MODEL=3dhg-small`")
    sections = []
    for build in SECTIONS:
        sections.append(build(evidence))
        if advance is not None:
            advance(1, sections[-1].title)
    write_text(out, page("Competition report", _introduction(evidence), sections))
    return out


def _introduction(evidence: Evidence) -> str:
    runs = sum(row["kind"] == "run" for row in evidence.board)
    counts = [(runs, "run"), (len(evidence.board) - runs, "blend")]
    counted = " and ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
    images = "" if evidence.labels is None else f", {len(evidence.labels.id):,} labelled images"
    where = f"{counted} in {evidence.workspace.submissions}{images} in {evidence.workspace.data}."
    if not images:
        where = f"{counted} in {evidence.workspace.submissions}."
    text = f"<p>{escape(where)} Errors are MPJPE in mm; lower is better.</p>"
    if evidence.synthetic:
        text += '<p class="notice">The images are synthetic: no number here is a Human3.6M score.</p>'
    return text + "".join(f'<p class="aside">{escape(note)}</p>' for note in evidence.notes)
