"""The records in a fold's folder: config.json, log.jsonl with one row per epoch, and the contents of done.json."""

import json
from pathlib import Path
from types import UnionType
from typing import Any

from competition.common.errors import RunError, UserError
from competition.common.files import parse_json, read_json, read_text, sha256_file, sha256_json, write_json, write_text

_COMPARED = ("recipe", "fold", "seed", "folds_sha256", "images_sha256", "labels_sha256", "test_images_sha256")
PROVENANCE = ("folds_sha256", "images_sha256", "labels_sha256", "test_images_sha256", "versions", "git")
_FIX = "choose another name with RUN= (--run), pass the old values as flags, or delete that folder"


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read a fold's log, one row per epoch; empty if there is none yet."""
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
    """Append an epoch's row to a fold's log, dropping rows of this and later epochs that an interrupted run left."""
    rows = [old for old in read_log(folder) if old["epoch"] < row["epoch"]] + [row]
    write_text(folder / "log.jsonl", "".join(json.dumps(r, allow_nan=False) + "\n" for r in rows))


def best_row(log: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row with the lowest validation MPJPE, the earliest on a tie; the last row without validation."""
    validated = [row for row in log if row["valid_mpjpe"] is not None]
    return min(validated, key=lambda row: float(row["valid_mpjpe"])) if validated else log[-1]


def manifest(folder: Path) -> dict[str, Any]:
    """Compute the contents of done.json from a fold's other files; raise RunError if the log has no training rows.

    The hash of the log leaves out its timings: equal trainings have equal manifests, except for `seconds`.
    """
    log, config = read_log(folder), read_config(folder)
    if not log or not all(isinstance(row.get("seconds"), int | float) for row in log):
        raise RunError(f"{folder / 'log.jsonl'} contains no training rows: train this fold again")
    best = best_row(log)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return {
        "best_epoch": best["epoch"],
        "valid_mpjpe": best["valid_mpjpe"],
        "epochs": len(log),
        "seconds": round(sum(row["seconds"] for row in log), 3),
        "provenance": {key: config.get(key) for key in PROVENANCE},
        "log_sha256": sha256_json(log),
        "files": {path.name: sha256_file(path) for path in files if path.name not in ("log.jsonl", "done.json")},
    }


def prepare_folder(folder: Path, config: dict[str, Any]) -> list[str]:
    """Prepare a fold's folder for training with a configuration; return remarks to print.

    New fold: writes config.json. Same configuration: changes nothing. More epochs at a constant learning rate:
    updates config.json and removes done.json. Anything else, or another fold of the run with a different
    configuration: raises RunError with the differences.
    """
    path = folder / "config.json"
    config = json.loads(json.dumps(config))  # as it will be read back: tuples become lists
    constant = config["settings"]["schedule"] == "constant"
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()  # of a process that was killed while writing
    if not is_started(folder):
        for sibling in started_folds(folder.parent):
            differences = _differences(read_config(sibling), config)
            if set(differences) - {"fold"} - ({"epochs"} if constant else set()):
                differences.pop("fold")
                raise RunError(f"{sibling} was trained with another configuration ({_describe(differences)}): {_FIX}")
        write_json(path, config)
        return []
    old = read_config(folder)
    differences = _differences(old, config)
    remarks = [
        f"{folder}: started with {old.get(what)} {what}, resuming with {config[what]}: the last digits of "
        "the results may differ"
        for what in ("threads", "processes")
        if old.get(what) != config[what]
    ]
    more = differences.get("epochs", (0, 0))
    longer = set(differences) == {"epochs"} and isinstance(more[0], int) and more[0] < more[1]
    if longer and constant:
        (folder / "done.json").unlink(missing_ok=True)
        write_json(path, config)
        return [*remarks, f"{folder}: continuing from {more[0]} to {more[1]} epochs"]
    if differences:
        raise RunError(f"{folder} was trained with another configuration ({_describe(differences)}): {_FIX}")
    return remarks


def read_config(folder: Path) -> dict[str, Any]:
    """Read a fold's config.json."""
    config = read_json(folder / "config.json", what="run configuration")
    if not isinstance(config.setdefault("settings", {}), dict):
        raise RunError(f"{folder / 'config.json'}: 'settings' is not a JSON object: train this fold again")
    return config


def is_started(folder: Path) -> bool:
    """Return whether a fold has written a checkpoint or poses; a failed first attempt may change its configuration."""
    return (folder / "config.json").exists() and ((folder / "last.pt").exists() or any(folder.glob("*_epoch*")))


def started_folds(run: Path) -> list[Path]:
    """List the started folds of a run, including `full`."""
    return [folder for folder in sorted(run.glob("fold*/")) if is_started(folder)]


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the differences (before, now) in what a run's results depend on: _COMPARED and every setting."""
    before = {name: old.get(name) for name in _COMPARED} | old["settings"]
    now = {name: new[name] for name in _COMPARED} | new["settings"]
    pairs = {name: (before.get(name), now.get(name)) for name in sorted(before.keys() | now.keys())}
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}


def _describe(differences: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} {before} -> {now}" for name, (before, now) in differences.items())
