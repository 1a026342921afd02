"""The records in a fold's folder: config.json, log.jsonl with one row per epoch, and done.json."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, TypeAlias

from competition.common.errors import RunError, UserError
from competition.common.files import parse_json, read_text, sha256_file, sha256_json, write_json, write_text
from competition.common.records import from_json, read_record, to_json, write_record
from competition.runs.provenance import Provenance

Setting: TypeAlias = bool | int | float | str | list[int] | None  # a value of a recipe, as JSON has it

_COMPARED = ("recipe", "fold", "seed", "folds_sha256", "images_sha256", "labels_sha256", "test_images_sha256")
_AGAIN = "train this fold again"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """config.json: everything that a fold's files depend on."""

    FORMAT: ClassVar[int] = 1

    recipe: str | None = None  # name of the model
    settings: dict[str, Setting] = field(default_factory=dict)
    fold: int | str | None = None
    seed: int | None = None
    folds_sha256: str | None = None  # this and the next five: see Provenance
    images_sha256: str | None = None
    labels_sha256: str | None = None
    test_images_sha256: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    git: str | None = None
    threads: int | None = None
    processes: int | None = None
    predicted_from: str | None = None  # the run whose networks predicted the poses; None if this run was trained

    @property
    def provenance(self) -> Provenance:
        return Provenance(
            folds_sha256=self.folds_sha256,
            images_sha256=self.images_sha256,
            labels_sha256=self.labels_sha256,
            test_images_sha256=self.test_images_sha256,
            versions=self.versions,
            git=self.git,
        )

    @property
    def precision(self) -> str:
        """The precision of training, auto if it isn't recorded."""
        return str(self.settings.get("precision", "auto"))


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """A row of log.jsonl: one epoch. Rows of poses that were only predicted have no more than epoch and MPJPE."""

    epoch: int
    lr: float | None = None
    train_loss: float | None = None
    images_per_second: float | None = None
    valid_mpjpe: float | None = None  # mm; None for fold `full`
    valid_mpjpe_joint: list[float] | None = None  # [17], mm
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Done:
    """done.json, a fold's last file: its results, and hashes of its other files. Values that are None are unknown."""

    FORMAT: ClassVar[int] = 1

    best_epoch: int
    valid_mpjpe: float | None = None  # mm; None for fold `full`
    epochs: int | None = None
    seconds: float | None = None
    provenance: Provenance | None = None
    log_sha256: str | None = None  # without timings
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 by name


def read_config(folder: Path) -> RunConfig:
    """Read a fold's config.json."""
    return read_record(RunConfig, folder / "config.json", what="run configuration")


def write_config(folder: Path, config: RunConfig) -> None:
    """Write a fold's config.json; only runs that were predicted have the key `predicted_from`."""
    values = to_json(config)
    write_json(
        folder / "config.json", {key: v for key, v in values.items() if key != "predicted_from" or v is not None}
    )


def read_done(folder: Path) -> Done:
    """Read a fold's done.json."""
    return read_record(Done, folder / "done.json", what="run")


def write_done(folder: Path) -> Done:
    """Write done.json, which marks a fold as finished."""
    done = manifest(folder)
    write_record(folder / "done.json", done)
    return done


def manifest(folder: Path) -> Done:
    """Compute the contents of done.json from a fold's other files; raise RunError if the log has no training rows.

    The hash of the log leaves out its timings: equal trainings have equal manifests, except for `seconds`.
    """
    log = read_log(folder)
    seconds = [row.seconds for row in log if row.seconds is not None]
    if not log or len(seconds) < len(log):
        raise RunError(f"{folder / 'log.jsonl'} contains no training rows", fix=_AGAIN)
    best = best_row(log)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return Done(
        best_epoch=best.epoch,
        valid_mpjpe=best.valid_mpjpe,
        epochs=len(log),
        seconds=round(sum(seconds), 3),
        provenance=read_config(folder).provenance,
        log_sha256=sha256_json([_to_json(row) for row in log]),
        files={path.name: sha256_file(path) for path in files if path.name not in ("log.jsonl", "done.json")},
    )


def read_log(folder: Path) -> list[LogRow]:
    """Read a fold's log, one row per epoch; empty if there is none yet."""
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    lines = enumerate(read_text(path, what="log").splitlines(), start=1)
    try:
        return [from_json(LogRow, parse_json(line, f"line {number}"), f"line {number}") for number, line in lines]
    except UserError as error:
        raise RunError(f"{path} is damaged ({error.what})", fix=_AGAIN) from None


def append_log(folder: Path, row: LogRow) -> None:
    """Append an epoch's row to a fold's log, dropping rows of this and later epochs that an interrupted run left."""
    rows = [old for old in read_log(folder) if old.epoch < row.epoch] + [row]
    write_text(folder / "log.jsonl", "".join(json.dumps(_to_json(r), allow_nan=False) + "\n" for r in rows))


def _to_json(row: LogRow) -> dict[str, object]:
    return asdict(row) if row.seconds is not None else {"epoch": row.epoch, "valid_mpjpe": row.valid_mpjpe}


def best_row(log: list[LogRow]) -> LogRow:
    """Return the row with the lowest validation MPJPE, the earliest on a tie; the last row without validation."""
    validated = [row for row in log if row.valid_mpjpe is not None]
    return min(validated, key=lambda row: row.valid_mpjpe or 0.0) if validated else log[-1]


def prepare_folder(folder: Path, config: RunConfig, fix: str) -> list[str]:
    """Prepare a fold's folder for training with a configuration; return remarks to print.

    New fold: writes config.json. Same configuration: changes nothing. More epochs at a constant learning rate:
    updates config.json and removes done.json. Anything else, or another fold of the run with a different
    configuration: raises RunError with the differences, and `fix` as advice.
    """
    constant = config.settings["schedule"] == "constant"
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()  # of a process that was killed while writing
    if not is_started(folder):
        for sibling in started_folds(folder.parent):
            differences = _differences(read_config(sibling), config)
            if set(differences) - {"fold"} - ({"epochs"} if constant else set()):
                differences.pop("fold")
                raise _other_configuration(sibling, differences, fix)
        write_config(folder, config)
        return []
    old = read_config(folder)
    differences = _differences(old, config)
    remarks = [
        f"{folder}: started with {before} {what}, resuming with {now}: the last digits of the results may differ"
        for what, before, now in (
            ("threads", old.threads, config.threads),
            ("processes", old.processes, config.processes),
        )
        if before != now
    ]
    before, now = differences.get("epochs", (0, 0))
    longer = set(differences) == {"epochs"} and isinstance(before, int) and isinstance(now, int) and before < now
    if longer and constant:
        (folder / "done.json").unlink(missing_ok=True)
        write_config(folder, config)
        return [*remarks, f"{folder}: continuing from {before} to {now} epochs"]
    if differences:
        raise _other_configuration(folder, differences, fix)
    return remarks


def is_started(folder: Path) -> bool:
    """Return whether a fold has written a checkpoint or poses; a failed first attempt may change its configuration."""
    return (folder / "config.json").exists() and ((folder / "last.pt").exists() or any(folder.glob("*_epoch*")))


def started_folds(run: Path) -> list[Path]:
    """List the started folds of a run, including `full`."""
    return [folder for folder in sorted(run.glob("fold*/")) if is_started(folder)]


def _differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Setting, Setting]]:
    """Return the differences (before, now) in what a run's results depend on: _COMPARED and every setting."""
    before, now = ({name: getattr(one, name) for name in _COMPARED} | one.settings for one in (old, new))
    pairs = {name: (before.get(name), now.get(name)) for name in sorted(before.keys() | now.keys())}
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}


def _other_configuration(folder: Path, differences: dict[str, tuple[Setting, Setting]], fix: str) -> RunError:
    described = ", ".join(f"{name} {before} -> {now}" for name, (before, now) in differences.items())
    return RunError(f"{folder} was trained with another configuration ({described})", fix=fix)
