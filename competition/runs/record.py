"""What a fold's folder says of its training: the configuration it was begun with, and its log, a row an epoch."""

import json
from pathlib import Path
from types import UnionType
from typing import Any

from competition.common.errors import RunError, UserError
from competition.common.files import parse_json, read_json, read_text, sha256_facts, sha256_file, write_json, write_text

_COMPARED = ("recipe", "fold", "seed", "folds_sha256", "images_sha256", "labels_sha256", "test_images_sha256")
PROVENANCE = ("folds_sha256", "images_sha256", "labels_sha256", "test_images_sha256", "versions", "git")
_CURE = "choose another name with RUN= (--run), give the old values as flags, or delete that folder to begin anew"


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read a fold's log, a row an epoch; empty when nothing is logged yet."""
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    needs: dict[str, type | UnionType] = {"epoch": int, "valid_mpjpe": int | float | None}
    lines = read_text(path, what="log").splitlines()
    try:
        return [parse_json(line, f"line {number}", needs) for number, line in enumerate(lines, start=1)]
    except UserError as error:
        raise RunError(f"{path} is damaged ({error}): train this fold again") from None


def append_log(folder: Path, row: dict[str, Any]) -> None:
    """Add an epoch's row to a fold's log; rows of this and later epochs, left by an interrupted run, go."""
    rows = [old for old in read_log(folder) if old["epoch"] < row["epoch"]] + [row]
    write_text(folder / "log.jsonl", "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows))


def best_row(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the lowest validation MPJPE, the first of equals; the last row where nothing was validated."""
    validated = [row for row in log if row["valid_mpjpe"] is not None]
    return min(validated, key=lambda row: float(row["valid_mpjpe"])) if validated else log[-1]


def manifest(folder: Path) -> dict[str, Any]:
    """Return what done.json says of a fold, as its other files have it; raise RunError where the log is of no training.

    The log counts without its timings, so that equal trainings have equal manifests, `seconds` aside.
    """
    log, config = read_log(folder), read_config(folder)
    if not log or not all(isinstance(row.get("seconds"), int | float) for row in log):
        raise RunError(f"{folder / 'log.jsonl'} has no rows of a training: train this fold again")
    best = best_row(log)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return {
        "best_epoch": best["epoch"],
        "valid_mpjpe": best["valid_mpjpe"],
        "epochs": len(log),
        "seconds": round(sum(row["seconds"] for row in log), 3),
        "provenance": {key: config.get(key) for key in PROVENANCE},
        "log_sha256": sha256_facts(log),
        "files": {path.name: sha256_file(path) for path in files if path.name not in ("log.jsonl", "done.json")},
    }


def prepare_folder(folder: Path, config: dict[str, Any]) -> list[str]:
    """Make a fold's folder ready for a configuration, and return what is worth telling.

    New: writes config.json. The same: nothing, training goes on or is finished. More epochs at a constant learning
    rate: takes them over, and the fold is unfinished again. Anything else, or other folds of the run that were trained
    differently: RunError with the differences.
    """
    path = folder / "config.json"
    config = json.loads(json.dumps(config))  # as it will be read: tuples become lists
    constant = config["settings"]["schedule"] == "constant"
    for left in folder.glob(".*.tmp"):
        left.unlink()  # by a process that was killed while writing
    if not is_started(folder):
        for sibling in started_folds(folder.parent):
            differences = _differences(read_config(sibling), config)
            if set(differences) - {"fold"} - ({"epochs"} if constant else set()):
                differences.pop("fold")
                raise RunError(f"{sibling} was trained with another configuration ({_tell(differences)}): {_CURE}")
        write_json(path, config)
        return []
    old = read_config(folder)
    differences = _differences(old, config)
    remarks = [
        f"{folder}: begun on {old.get(what)} {what}, now {config[what]}: files may differ in the last digits"
        for what in ("threads", "processes")
        if old.get(what) != config[what]
    ]
    more = differences.get("epochs", (0, 0))
    longer = set(differences) == {"epochs"} and isinstance(more[0], int) and more[0] < more[1]
    if longer and constant:
        (folder / "done.json").unlink(missing_ok=True)
        write_json(path, config)
        return [*remarks, f"{folder}: going on from {more[0]} to {more[1]} epochs"]
    if differences:
        raise RunError(f"{folder} was trained with another configuration ({_tell(differences)}): {_CURE}")
    return remarks


def read_config(folder: Path) -> dict[str, Any]:
    """Read a fold's config.json."""
    config = read_json(folder / "config.json", what="run configuration")
    if not isinstance(config.setdefault("settings", {}), dict):
        raise RunError(f"{folder / 'config.json'}: 'settings' is no JSON object: it is not as this toolkit writes it")
    return config


def is_started(folder: Path) -> bool:
    """Whether a fold has left something behind that its configuration binds; a failed first attempt binds no one."""
    return (folder / "config.json").exists() and ((folder / "last.pt").exists() or any(folder.glob("*_epoch*")))


def started_folds(run: Path) -> list[Path]:
    """List the folds of a run that training has begun, `full` among them."""
    return [folder for folder in sorted(run.glob("fold*/")) if is_started(folder)]


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the differences (before, now) in what a run's results depend on: _COMPARED and every setting."""
    before = {name: old.get(name) for name in _COMPARED} | old["settings"]
    now = {name: new[name] for name in _COMPARED} | new["settings"]
    pairs = {name: (before.get(name), now.get(name)) for name in sorted(before.keys() | now.keys())}
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}


def _tell(differences: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} {before} -> {now}" for name, (before, now) in differences.items())
