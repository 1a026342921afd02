"""The provenance of a run or a blend: hashes of its data, versions of libraries, commit of the code."""

import platform
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from competition.common.files import sha256_lines, sha256_text
from competition.data.dataset import Dataset
from competition.data.labels import TEST_LIST, TRAIN_LIST, read_list

PARTS: Final = {  # a field of Provenance: how to describe data that has another hash, followed by the folder in use
    "images_sha256": "other images than those in",
    "test_images_sha256": "another test set than that in",
    "labels_sha256": "other labels than those in",
    "folds_sha256": "other folds than those in",
}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Hashes of the data, None for data that weren't used, the versions of libraries and the commit of the code."""

    folds_sha256: str | None = None
    images_sha256: str | None = None
    labels_sha256: str | None = None
    test_images_sha256: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    git: str | None = None


def provenance(dataset: Dataset, folds_sha256: str | None = None, *, with_labels: bool = True) -> Provenance:
    """Return the provenance of results from a data set; without labels, only of its test images."""
    return Provenance(
        folds_sha256=folds_sha256,
        images_sha256=dataset.images_sha256 if with_labels else None,
        labels_sha256=dataset.labels_sha256 if with_labels else None,
        test_images_sha256=dataset.test_images_sha256,
        versions={
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "timm", "numpy")},
        },
        git=code_commit(),
    )


def other_parts(recorded: Provenance, now: Provenance) -> list[str]:
    """Return the PARTS of the data whose hashes differ; unknown hashes, None, differ from nothing."""
    pairs = {part: (getattr(recorded, part), getattr(now, part)) for part in PARTS}
    return [part for part, (one, other) in pairs.items() if None not in (one, other) and one != other]


def has_other_labels(recorded: Provenance, now: Provenance) -> bool:
    """Return whether the labels differ while the images, as far as known, are the same."""
    parts = other_parts(recorded, now)
    return "labels_sha256" in parts and "images_sha256" not in parts


def hashes_now(dataset: Dataset | None, folds: Path | None, recorded: Iterable[Provenance]) -> Provenance:
    """Hash those parts of the data and the folds that are recorded; None for the others and for missing files.

    Faults of the data aren't looked for, so that this reads no labels unless their hash is recorded.
    """
    sources: dict[str, tuple[Path, Callable[[], str]]] = {}  # by part: its file, and how to hash it
    if dataset is not None:
        data, annot = dataset.folder, dataset.folder / "annot"
        sources["images_sha256"] = annot / TRAIN_LIST, lambda: sha256_lines(read_list(data, TRAIN_LIST)[0])
        sources["test_images_sha256"] = annot / TEST_LIST, lambda: sha256_lines(read_list(data, TEST_LIST)[0])
        sources["labels_sha256"] = annot / "train.h5", lambda: dataset.labels_sha256
    if folds is not None:
        sources["folds_sha256"] = folds / "folds.csv", lambda: sha256_text(folds / "folds.csv")
    every = list(recorded)
    found: dict[str, Any] = {}
    for part, (file, sha256) in sources.items():
        if file.is_file() and any(getattr(one, part) is not None for one in every):
            found[part] = sha256()
    return Provenance(**found)


def code_commit() -> str | None:
    """Return the commit of this code; None outside a repository or without git."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return None
    return found.stdout.strip() or None
