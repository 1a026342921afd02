"""Writes the report: gathers the evidence, builds every section and composes the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from competition.common.console import bar
from competition.common.files import write_text
from competition.common.workspace import Workspace
from competition.report.blocks import Paragraph, Section
from competition.report.breakdown import breakdown
from competition.report.evidence import Evidence, gather
from competition.report.gains import gains
from competition.report.gallery import gallery
from competition.report.markup import page
from competition.report.methods import methods
from competition.report.mixture import mixture
from competition.report.rarity import rarity
from competition.report.standings import board, calibration, curves, poster
from competition.report.studies import studies

SECTIONS: Final[tuple[Callable[[Evidence], Section], ...]] = (
    board,
    curves,
    poster,
    breakdown,
    gains,
    rarity,
    calibration,
    methods,
    mixture,
    studies,
    gallery,
)


def write_report(workspace: Workspace, out: Path) -> Path:
    """Write the report of all runs and blends as one HTML file and return its path; raise RunError without any.

    Scores come from scores.csv; DATA/solution is never read.
    """
    evidence = gather(workspace)
    if not evidence.board:
        raise workspace.no_runs()
    sections = []
    with bar("report", len(SECTIONS)) as advance:
        for build in SECTIONS:
            sections.append(build(evidence))
            advance(1, sections[-1].title)
    write_text(out, page("Competition report", _introduction(evidence), sections))
    return out


def _introduction(evidence: Evidence) -> list[Paragraph]:
    runs = sum(row.is_run for row in evidence.board)
    counts = [(runs, "run"), (len(evidence.board) - runs, "blend")]
    counted = " and ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
    where = f"{counted} in {evidence.workspace.submissions}"
    if evidence.labels is not None:
        where += f", {len(evidence.labels.id):,} labelled images in {evidence.workspace.data}"
    text = [Paragraph(f"{where}. Errors are MPJPE in mm; lower is better.")]
    if evidence.synthetic:
        text.append(Paragraph("The images are synthetic: no number here is a Human3.6M score.", style="notice"))
    return text + [Paragraph(note, style="aside") for note in evidence.notes]
