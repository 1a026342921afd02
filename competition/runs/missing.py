"""What a run lacks: folds, and files without which an epoch that would be chosen is left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from competition.common.choices import check_epochs
from competition.common.errors import Command
from competition.data.folds import read_meta
from competition.runs.candidates import weighted
from competition.runs.folders import complete_epochs, epoch_files, fold_folders, row_count, test_file, valid_file
from competition.runs.record import read_config, read_done, read_log


def expected_folds(run: Path, folds: Path) -> int | None:
    """Return the number of folds a complete run has; None if it wasn't trained on the folds in `folds`."""
    configs = [folder for folder in fold_folders(run) if (folder / "config.json").exists()]
    if not configs or not (folds / "folds.json").exists():
        return None
    meta = read_meta(folds)
    return meta.k if read_config(configs[0]).folds_sha256 == meta.folds_sha256 else None


@dataclass(frozen=True, kw_only=True)
class MissingFolds:
    """The folds of a run that have no complete epoch, and the command that trains them with the run's settings."""

    run: str
    recipe: str | None  # name of the model
    names: tuple[str, ...]  # such as fold1
    wanted: int  # number of folds of the complete run

    def __str__(self) -> str:
        return f"{len(self.names)} of {self.wanted} folds missing ({', '.join(self.names)})"

    @property
    def command(self) -> Command:
        return Command("train", {"model": self.recipe, "run": self.run})


def missing_folds(run: Path, folds: Path) -> MissingFolds | None:
    """Find the folds of a run without a complete epoch; None if there are none.

    The folds of external predictions are unknown, so that none is missing.
    """
    folders, expected = fold_folders(run), expected_folds(run, folds)
    configured = [folder for folder in folders if (folder / "config.json").exists()]
    done = {folder.name for folder in folders if complete_epochs(folder)}
    wanted = {folder.name for folder in folders} | {f"fold{number}" for number in range(expected or 0)}
    missing = sorted(wanted - done, key=lambda name: int(name.removeprefix("fold")))
    if not configured or not missing:
        return None
    recipe = read_config(configured[0]).recipe
    return MissingFolds(run=run.name, recipe=recipe, names=tuple(missing), wanted=len(wanted))


def missing_files(run: Path, epochs: str = "best") -> dict[Path, int]:
    """List the files of poses that a run lacks in the epochs that `epochs` chooses (see `select`), and their epochs.

    An epoch counts when it is in the logs of all folds, so that a run in training lacks nothing. Without logs, as in
    external predictions, it counts when it has any file.
    """
    folds = fold_folders(run)
    finished = [(folder / "done.json").exists() for folder in folds]
    logs = [{row.epoch: row.valid_mpjpe for row in read_log(folder)} for folder in folds]
    files = [kind for folder in folds for kind in epoch_files(folder)]
    if any(logs):
        known = set.intersection(*(set(log) for log, done in zip(logs, finished, strict=True) if log or not done))
    elif all(finished) or not any((folder / "config.json").exists() for folder in folds):
        known = {epoch for kind in files for epoch in kind}
    else:
        known = set()  # the first epoch is being trained
    return {
        expected(folder, epoch): epoch
        for epoch in _chosen(folds, logs, sorted(known), epochs)
        for folder, valid, test in zip(folds, files[::2], files[1::2], strict=True)
        for expected, kind in ((valid_file, valid), (test_file, test))
        if epoch not in kind
    }


def _chosen(folds: list[Path], logs: list[dict[int, float | None]], known: list[int], epochs: str) -> list[int]:
    """Return the known epochs that would be chosen; all of them for `best` without scores."""
    if epochs == "last":
        return known[-1:]
    if epochs == "best":
        scores = _scores(folds, logs, known)
        return [min(scores, key=lambda epoch: scores[epoch])] if scores else known
    return [epoch for epoch in known if epochs == "all" or epoch in map(int, check_epochs(epochs).split(","))]


def _scores(folds: list[Path], logs: list[dict[int, float | None]], known: list[int]) -> dict[int, float]:
    """Return the out-of-fold MPJPE of each epoch in mm by the logs, weighted by rows if an epoch is complete."""
    if not all(logs):
        return {}
    complete = min(set.intersection(*map(complete_epochs, folds)), default=None) if known else None
    rows = [1 if complete is None else row_count(epoch_files(folder)[0][complete]) for folder in folds]
    scores = {epoch: weighted([log.get(epoch) for log in logs], rows) for epoch in known}
    return {epoch: score for epoch, score in scores.items() if score is not None}


def shortened_logs(run: Path) -> list[Path]:
    """List the logs of finished folds that lack epochs, whose scores are therefore unknown."""
    finished = [folder for folder in fold_folders(run) if (folder / "done.json").exists()]
    return [folder / "log.jsonl" for folder in finished if len(read_log(folder)) < (read_done(folder).epochs or 0)]


def describe_shortened(run: str, logs: Sequence[Path]) -> str:
    """Describe logs that lack epochs, in one line."""
    return f"run {run}: {logs[0]} lacks epochs that done.json counts: copy the file again"


def describe_missing(run: str, missing: dict[Path, int]) -> str:
    """Describe the files that a run lacks, in one line."""
    first, epoch = next(iter(missing.items()))
    again = ", or delete the fold's folder and train it again" if (first.parent / "config.json").exists() else ""
    others = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
    return (
        f"run {run}: {first}{others} missing, so that epoch {epoch}, which would be chosen, is left out: copy the "
        f"files again{again}"
    )
