"""The commands on results: `blend`, `score`, `board`, `report`, `submit`, `verify`, `reproduce` and `bench`.

Slow imports are inside the functions, so that --help answers at once.
"""

import logging
from collections import defaultdict

from competition.blending.options import check_blend
from competition.cli.hints import next_line, render
from competition.cli.options import (
    BenchOptions,
    BlendOptions,
    BoardOptions,
    ReportOptions,
    ReproduceOptions,
    ScoreOptions,
    SubmitOptions,
    VerifyOptions,
)
from competition.common.console import active
from competition.common.errors import USER_ERROR, Command, UserError
from competition.common.workspace import Workspace

log = logging.getLogger(__name__)


def blend(options: BlendOptions, workspace: Workspace) -> None:
    check_blend(options.method, options.granularity, options.stack)
    if options.files is None and options.shares is not None:
        raise UserError("--shares without --files: expected --files, as the weights of runs are fitted (--method)")
    from competition.cli.blend import blend_files, blend_runs
    from competition.leaderboard.score import has_answers

    blended = blend_runs if options.files is None else blend_files
    written = blended(options, workspace, options.out or workspace.submissions / "blend")
    file = {} if written == workspace.submissions / "blend" / written.name else {"file": str(written)}
    names = ("score", "submit") if has_answers(workspace.data) else ("submit",)
    log.info(f"{written}; {next_line(workspace, *(Command(name, file) for name in names))}")


def score(options: ScoreOptions, workspace: Workspace) -> None:
    from competition.cli.tables import score_table
    from competition.common.records import write_record
    from competition.data.dataset import Dataset
    from competition.leaderboard.score import score as score_file
    from competition.leaderboard.scores import describe_ranks, record_score

    files = options.file or (workspace.submissions / "blend" / "submission.csv.gz",)
    if options.json is not None and len(files) > 1:
        raise UserError(f"--json with {len(files)} files: expected one --file")
    dataset = Dataset(workspace.data)
    for file in files:
        scores = score_file(dataset, file, strict=options.strict)
        record_score(workspace.submissions, file, scores)
        if len(files) == 1:
            active().table(score_table(str(file), scores))
        named = {"all": scores.all, "public": scores.public, "private": scores.private}
        parts = [f"{part} {mpjpe:.2f}" for part, mpjpe in named.items() if mpjpe is not None]
        log.info(f"{file}: MPJPE in mm: {', '.join(parts)}")
        if options.json is not None:
            write_record(options.json, scores)
    for file in files:
        if place := describe_ranks(workspace.submissions, file):
            log.info(f"{file}: {place}")


def board(options: BoardOptions, workspace: Workspace) -> None:
    from competition.cli.tables import board_json, board_table
    from competition.common.files import write_json
    from competition.data.dataset import Dataset
    from competition.leaderboard.board import board as read_board
    from competition.leaderboard.board import notes, sort_rows, warnings
    from competition.report.links import find_links

    rows = sort_rows(read_board(workspace.submissions, workspace.folds, Dataset(workspace.data)), options.sort)
    if not rows:
        raise workspace.no_runs()
    report = workspace.submissions / "report.html"
    links = find_links((row.name for row in rows), report)
    active().table(board_table(rows, links, active().rich.width))
    unscored = defaultdict(list)
    for row in rows:
        if row.out_of_fold is None:
            unscored[row.why].append(row.name)
    for why, names in unscored.items():
        log.info(f"no out-of-fold score: {', '.join(names)}: {why}")
    for line in warnings(rows):
        log.warning(line)
    for line in notes(workspace.submissions / "ledger.csv"):
        log.info(line)
    if links:
        log.info(f"report: {report}#run-{next(iter(links))}, and likewise for the other names")
    elif not report.exists():
        log.info(f"charts and images: {render(Command('report'), workspace)}")
    if options.json is not None:
        write_json(options.json, board_json(rows, links))


def report(options: ReportOptions, workspace: Workspace) -> None:
    from competition.report.compose import write_report

    written = write_report(workspace, options.out or workspace.submissions / "report.html")
    log.info(f"{written} (open it in a browser)")


def submit(options: SubmitOptions, workspace: Workspace) -> None:
    from competition.leaderboard.submit import submit as upload

    def confirm(question: str) -> bool:
        log.info(question)
        if options.yes:
            return True
        try:
            return active().ask("upload it? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            what, fix = "submit asks for confirmation, but there is no terminal", "add --yes"
            given = {"competition": competition, "message": message, "file": str(file), "yes": "1"}
            raise UserError(what, fix=fix, command=Command("submit", given)) from None

    file = options.file or workspace.submissions / "blend" / "submission.csv.gz"
    competition, message = options.competition, options.message
    upload(workspace, file, competition=competition, message=message, confirm=confirm)


def verify(options: VerifyOptions, workspace: Workspace) -> int:
    from competition.runs.verify import verify as verify_folder

    correct, wrong = verify_folder(workspace, options.folder)
    for line in correct:
        log.info(line)
    for line in wrong:
        log.info(f"wrong: {line}")
    return USER_ERROR if wrong else 0


def reproduce(options: ReproduceOptions, workspace: Workspace) -> None:
    from competition.cli.reproduce import reproduce as run_all
    from competition.cli.tables import poster_table
    from competition.common.files import write_json
    from competition.common.records import to_json

    rows = run_all(workspace, options.scale, fold=options.fold, parallel=options.parallel, workers=options.workers)
    active().table(poster_table(rows, str(workspace.data)))
    if options.json is not None:
        write_json(options.json, [to_json(row) for row in rows])


def bench(options: BenchOptions, workspace: Workspace) -> None:
    from competition.bench.suite import run as run_benchmarks
    from competition.cli.tables import bench_table
    from competition.common.files import write_json

    rows = []
    for name, found in run_benchmarks(options.only.split(",") if options.only else None):
        rows += found
        log.info(f"{name}: " + ", ".join(f"{row.name} ratio {row.ratio:.3g}" for row in found))
    active().table(bench_table(rows))
    if options.json is not None:
        write_json(options.json, [row._asdict() for row in rows])
