"""Files and folders that look like poses, but aren't read because they have other names than those expected.

SUBMISSIONS/<run>/fold<k>/valid_epochNN.npz (or .csv, .csv.gz) and test_epochNN.csv.gz (or .csv); NN has two digits
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from competition.common.errors import RunError
from competition.runs.blends import is_blend
from competition.runs.folders import FULL, epoch_files, epoch_of, fold_folder, fold_folders

FIX: Final = (
    "expected fold0/valid_epoch01.npz and fold0/test_epoch01.csv.gz in the run's folder (any fold; any epoch, in two "
    "digits): rename what belongs to the run, and move the rest elsewhere"
)
_KNOWN: Final = ("config.json", "done.json", "readme.txt")  # in a fold's folder, besides the poses
_ARRAYS: Final = (".npz", ".npy", ".h5", ".hdf5", ".parquet", ".feather", ".mat")
_DATA = re.compile(
    r".*\.(npz|npy|csv|tsv|txt|json|h5|hdf5|pkl|pickle|parquet|feather|mat|zip)(\.(gz|bz2|xz|zst|zip))?", re.I | re.S
)
_PREDICTION = re.compile(
    r"(?<![a-z])(val(id(ation)?)?|tests?|oof|out[-_ ]?of[-_ ]?fold|pred(iction)?s?)(?=epoch|[^a-z])", re.I
)
_IN_FOLD = re.compile(_PREDICTION.pattern + r"|(submission|pose)s?(?=[^a-z])", re.I)
_FOLD = re.compile(r".*folds?[-_ .]*(\d+|full)", re.I | re.S)


@dataclass(frozen=True, kw_only=True)
class Misnamed:
    """The files and folders of a run that look like poses, but are ignored because of their names."""

    run: str  # "" for files that are in SUBMISSIONS itself
    paths: tuple[Path, ...]

    @property
    def error(self) -> RunError:
        others = f" and {len(self.paths) - 1} more are" if len(self.paths) > 1 else " is"
        where = f"run {self.run}: " if self.run else ""
        is_second = epoch_of(self.paths[0]) is not None and self.paths[0].parent.parent.name == self.run
        cause = "another file of the same epoch" if is_second else "the name"
        return RunError(f"{where}{self.paths[0]}{others} ignored because of {cause}", fix=FIX)

    def __str__(self) -> str:
        return str(self.error)


def misnamed(submissions: Path, runs: Iterable[str] | None = None) -> list[Misnamed]:
    """Find misnamed files and folders: those of some runs, or of all runs and of SUBMISSIONS itself."""
    if runs is None:
        folders = [path for path in _visible(submissions) if path.is_dir()]
        found = {"": [path for path in _visible(submissions) if _is_prediction(path)]}
    else:
        folders, found = [submissions / run for run in sorted(set(runs))], {}
    found |= {folder.name: list(_in_run(folder)) for folder in folders if not is_blend(folder)}
    return [Misnamed(run=run, paths=tuple(paths)) for run, paths in found.items() if paths]


def _in_run(run: Path) -> Iterator[Path]:
    folds = [*fold_folders(run), fold_folder(run, FULL)]
    for path in _visible(run):
        if path in folds and path.is_dir():
            yield from _in_fold(path)
        elif path.is_dir():
            inside = _visible(path) if path.name != "photos" else []
            is_doubled = path.name == run.name and any(path.glob("fold*/"))  # as some archives are unpacked
            if (
                is_doubled
                or any(map(_is_prediction, inside))
                or (_FOLD.fullmatch(path.name) and any(map(_is_data, inside)))
            ):
                yield path
        elif _is_prediction(path):
            yield path


def _in_fold(folder: Path) -> Iterator[Path]:
    read = {path for kind in epoch_files(folder) for path in kind.values()}
    for path in _visible(folder):
        if path.is_dir():
            if any(map(_is_prediction, _visible(path))):
                yield path
        elif path not in read and path.name.lower() not in _KNOWN:
            is_array = _is_data(path) and path.suffix.lower() in _ARRAYS
            if is_array or (_IN_FOLD.match(f"{path.name}.") and (_is_data(path) or not path.suffix)):
                yield path


def _is_data(path: Path) -> bool:
    return _DATA.fullmatch(path.name) is not None and path.is_file()


def _is_prediction(path: Path) -> bool:
    """Return whether a file is named like predictions: as its first word or, if it holds arrays, as any word."""
    search = _PREDICTION.search if path.suffix.lower() in _ARRAYS else _PREDICTION.match
    return search(path.name) is not None and _is_data(path)


def _visible(folder: Path) -> list[Path]:
    """List a folder without hidden files; empty if there is none."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
