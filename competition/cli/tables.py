"""Tables for the terminal: checks, scores, blends, the board, benchmarks."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rich import box
from rich.table import Table
from rich.text import Text

from competition.bench.measure import Row
from competition.common.console import printable
from competition.common.errors import Command
from competition.common.records import to_json
from competition.data.check import NEAR, SPLIT, Findings, FoldFacts, ImageFacts, LabelFacts, ListFacts
from competition.data.faults import Fault
from competition.data.leaks import INSTANT
from competition.leaderboard.board import BoardRow
from competition.leaderboard.score import Scores
from competition.runs.blends import Blend, MemberErrors

if TYPE_CHECKING:  # loads torch
    from competition.cli.reproduce import Reproduced

Render: TypeAlias = Callable[[Command], str]  # returns the command as the user would type it

CLEAR_ORDER = 0.2  # correlation of the positions of legs and arms
PLACES = 10  # lines, Ids or files listed per fault
BOARD_COLUMNS = {
    "name": "name",
    "kind": "kind",
    "folds": "folds",
    "epochs": "epochs",
    "best_epoch": "best\nepoch",
    "out_of_fold": "out of\nfold",
    "out_of_fold_rank": "#",
    "all": "test",
    "public": "public",
    "public_rank": "#",
    "private": "private",
    "private_rank": "#",
}
DETAILS = ("kind", "epochs", "best_epoch")  # left out on narrow terminals
WIDE = 100  # characters


def facts_table(title: str, found: Findings, render: Render) -> Table:
    """Show the facts that `check` found, by section."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for section, facts in _sections(found).items():
        for index, (name, fact) in enumerate(_describe(facts, render).items()):
            table.add_row("" if index else section, *map(Text, (name, fact)))  # names may look like markup
        table.add_section()
    return table


def faults_table(found: Findings, root: Path, render: Render) -> Table:
    """Show problems and warnings: what, where under `root` (the first places of each), and what to do."""
    table = Table(show_lines=True, expand=True)
    for heading, ratio in (("", None), ("what", 3), ("where", 5), ("what to do", 3)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    for kind, faults in (("problem", found.problems), ("warning", found.warnings)):
        for fault in faults:
            where = _where(fault).removeprefix(f"{root}/")
            table.add_row(kind, *map(Text, (fault.what, where, _fix(fault, render))))
    return table


def findings_json(found: Findings, render: Render) -> dict[str, object]:
    """Return the findings of `check` as a JSON object."""
    problems, warnings = (
        [{"what": fault.what, "where": _where(fault), "fix": _fix(fault, render)} for fault in faults]
        for faults in (found.problems, found.warnings)
    )
    facts = {section: _finite(to_json(of_section)) for section, of_section in _sections(found).items()}
    return {"problems": problems, "warnings": warnings, "facts": facts}


def _finite(value: object) -> object:
    """Replace numbers that JSON doesn't have by None, also inside of dicts."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


Facts: TypeAlias = ListFacts | LabelFacts | FoldFacts | ImageFacts


def _sections(found: Findings) -> dict[str, Facts]:
    sections: dict[str, Facts | None] = {
        "training": found.training, "test": found.test, "labels": found.labels, "folds": found.folds,
        "images": found.images,
    }  # fmt: skip
    return {name: facts for name, facts in sections.items() if facts is not None}


def _describe(facts: Facts, render: Render) -> dict[str, str]:
    """Return the text of each fact of a section."""
    match facts:
        case ListFacts():
            groups = {"subjects": facts.subjects, "actions": facts.actions, "cameras": facts.cameras}
            texts = {name: _counts(counts) or "not in the names" for name, counts in groups.items()}
            sequences = f"{facts.sequences:,}, counted once for all cameras"
            return {"images": f"{facts.images:,}", **texts, "sequences": sequences}
        case LabelFacts():
            return _describe_labels(facts)
        case FoldFacts(missing=str()):
            return {facts.folder: f"{facts.missing}; run {render(Command('folds'))}"}
        case FoldFacts():
            held_out = f"strategy {facts.strategy}; held-out images by fold: {_counts(facts.held_out)}"
            leaks = {
                "split sequences": f"{facts.split_sequences:,} {SPLIT}",
                "split instants": f"{facts.split_instants:,} {INSTANT}",
                "near copies": f"{facts.near_copies:,} {NEAR}",
            }
            return {facts.folder: held_out, **leaks}
        case ImageFacts():
            all_ = f"; all: {render(Command('check', {'all': ''}))}" if facts.sampled else ""
            decoded, duplicates = f"{facts.decoded:,} of {facts.listed:,}{all_}", f"{facts.duplicates:,}"
            return {"decoded": decoded, "same bytes as another": duplicates, "not in any list": f"{facts.unlisted:,}"}


def _describe_labels(facts: LabelFacts) -> dict[str, str]:
    mean, least, most = (
        f"{mm:.4g}" for mm in (facts.mean_distance_mm, facts.least_distance_mm, facts.most_distance_mm)
    )
    outside = f"{facts.joints_outside:,} of {facts.joints:,}, in {facts.images_with_joints_outside:,} images"
    x, y = f"{facts.correlation_x:+.2f} in x (right)", f"{facts.correlation_y:+.2f} in y (down)"
    texts = {
        "units": f"joints are {mean} from the root on average ({least} to {most}); expected mm",
        "root": f"at most {facts.root_offset_mm:.2g} mm off (0, 0, 0)",
        "axes": f"correlation of pose2d and pose3d: {x}, {y}",
    }
    if facts.leg_order is not None:
        harmless = "; this is harmless" * (facts.leg_order > CLEAR_ORDER)
        left = f"joints 1-3 are the left leg, as in the real competition{harmless}"
        order = "as named" if facts.leg_order < 0 else left
        texts["leg order"] = f"{order} (correlation {facts.leg_order:+.2f})"
    by = f"{facts.instants:,} instants seen by several cameras, {facts.neighbours:,} pairs of neighbouring frames"
    by += "; a reversed list, or cameras exchanged in all images, may not show"
    unknown = "can't be verified: names have no cameras of one instant or neighbouring frames, or see the problem above"
    texts |= {
        "order of the list": f"compared by {by}" if facts.instants or facts.neighbours else unknown,
        "joints outside the crop": outside,
        "duplicate poses": f"{facts.duplicate_poses:,}",
        "MPJPE of the mean pose": f"{facts.mean_pose_mpjpe_mm:.1f} mm, the baseline to beat",
        "bone lengths, mm": ", ".join(f"{joint} {mm:.0f}" for joint, mm in facts.bones_mm.items()),
    }
    if facts.bone_changes_mm:
        changes = (f"{subject} {mm:.2f} mm" for subject, mm in facts.bone_changes_mm.items())
        texts["bone lengths change by"] = ", ".join(changes)
    return texts


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _where(fault: Fault) -> str:
    """Return the file, and the number of affected places and the first PLACES of them."""
    more = f" and {len(fault.places) - PLACES:,} more" if len(fault.places) > PLACES else ""
    places = f", {len(fault.places):,}: {', '.join(fault.places[:PLACES])}{more}" if fault.places else ""
    return f"{fault.where}{places}"


def _fix(fault: Fault, render: Render) -> str:
    return f"{fault.fix}; run {render(fault.command)}" if fault.command else fault.fix


def score_table(title: str, scores: Scores) -> Table:
    """Show MPJPE in mm by joint and action, and the mean absolute error by axis."""
    table = Table(title=f"{title}, mm", title_justify="left")
    for heading in ("joint", "action", "axis (mean |error|)"):
        table.add_column(heading)
        table.add_column("mm", justify="right")
    columns = [list(values.items()) for values in (scores.joint, scores.action, scores.axis)]
    for index in range(max(map(len, columns))):
        cells = [pairs[index] if index < len(pairs) else ("", None) for pairs in columns]
        table.add_row(*(text for name, value in cells for text in (name, _mm(value))))
    return table


def blend_table(blend: Blend) -> Table:
    """Compare the methods of a blend: MPJPE in mm on the out-of-fold rows that the weights were fitted on."""
    gap = "" if blend.gap_percent is None else f"\nthe search ended {blend.gap_percent:.3f} % above the exact optimum"
    table = Table(
        title=f"methods, {blend.n_rows:,} common out-of-fold rows, MPJPE in mm", title_justify="left",
        caption="nested: on groups not used for fitting the weights, corrected for fitting on fewer groups\n"
        f"std. error: of the nested gain over the mean{gap}",
        caption_justify="left",
    )  # fmt: skip
    table.add_column("method")
    for heading in ("in sample", "nested", "std. error", "seconds"):
        table.add_column(heading, justify="right")
    for row in blend.table:
        table.add_row(row.method, *map(_mm, (row.mpjpe_in_sample, row.mpjpe_nested, row.gain_nested_se, row.seconds)))
    return table


def members_table(members: Sequence[MemberErrors]) -> Table:
    """Show the members of a blend alone: MPJPE in mm on their own out-of-fold rows."""
    table = Table(title="members, out of fold", title_justify="left")
    table.add_column("member")
    for heading in ("MPJPE", "rows"):
        table.add_column(heading, justify="right")
    for member in members:
        table.add_row(Text(printable(member.name)), _mm(member.mpjpe), f"{member.rows:,}")
    return table


def board_table(rows: Sequence[BoardRow], links: Mapping[str, str], width: int = WIDE) -> Table:
    """Show runs and blends, MPJPE in mm; terminals narrower than WIDE show fewer columns.

    `links` are the addresses of rows in the report, by name.
    """
    hidden = f"\nterminals of at least {WIDE} columns also show kind and epochs; so does --json" * (width < WIDE)
    caption = (
        "out of fold: a run at its best epoch; a blend nested if possible, otherwise without a rank and on the rows "
        "that its weights were fitted on\n"
        "# is the rank; equal scores share a rank (Kaggle puts the earlier submission first)"
    ) + hidden
    table = Table(
        title="MPJPE in mm", title_justify="left", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    columns = {key: heading for key, heading in BOARD_COLUMNS.items() if width >= WIDE or key not in DETAILS}
    for key, heading in columns.items():
        if key in ("name", "kind"):  # these wrap on narrow terminals; scores are never cut
            table.add_column(heading, overflow="fold", vertical="bottom")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_board_cell(key, row), _board_style(key, row, links)) for key in columns))
    return table


def board_json(rows: Sequence[BoardRow], links: Mapping[str, str]) -> list[dict[str, object]]:
    """Return the board as JSON objects, each with its address in the report."""
    return [to_json(row) | {"link": links.get(row.name)} for row in rows]


def _board_cell(key: str, row: BoardRow) -> str:
    if key == "folds" and not row.is_complete:
        return f"{row.folds} of {row.of_folds}"
    value = getattr(row, key)
    return _mm(value) if isinstance(value, float) else _text(value)


def _board_style(key: str, row: BoardRow, links: Mapping[str, str]) -> str:
    """Mark the lowest score of a column, runs with missing folds, and names with a link into the report."""
    if key == "name":
        return f"link {links[row.name]}" if row.name in links else ""
    if key == "folds":
        return "" if row.is_complete else "yellow"
    return "bold green" if getattr(row, f"{key.removesuffix('_rank')}_rank", None) == 1 else ""


def poster_table(rows: "Sequence[Reproduced]", data: str) -> Table:
    """Show the poster's table beside this reproduction: errors in mm, and ratios to the best single model."""
    caption = f"the poster was measured on Human3.6M, this reproduction on {data}: compare ratios, not mm"
    table = Table(
        title="the poster and its reproduction", title_justify="left", caption=caption, caption_justify="left"
    )
    for heading in ("model", "setting"):
        table.add_column(heading)
    for heading in ("poster mm", "poster ratio", "out of fold", "test", "ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        errors = _mm(row.poster), _ratio(row.poster_ratio), _mm(row.out_of_fold), _mm(row.test), _ratio(row.ratio)
        table.add_row(row.name, row.setting, *errors)
    return table


def bench_table(rows: Sequence[Row]) -> Table:
    """Show benchmark results; a ratio above 1 means that this implementation is better."""
    title = "this implementation compared with baselines; ratio above 1: this implementation is better"
    table = Table(title=title, title_justify="left")
    for heading in ("benchmark", "this", "baseline", "unit", "ratio", "note"):
        table.add_column(heading, justify="left" if heading in ("benchmark", "unit", "note") else "right")
    for row in rows:
        table.add_row(row.name, f"{row.ours:.4g}", f"{row.reference:.4g}", row.unit, f"{row.ratio:.2f}", row.note)
    return table


def _mm(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _text(value: object) -> str:
    return "" if value is None else printable(str(value))
