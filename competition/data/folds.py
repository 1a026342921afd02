"""Folds: groups of training rows that are held out together, so that out-of-fold scores estimate those on new subjects.

Neighbouring video frames are almost equal, and the four cameras record the same instant; whole subjects, or at least
whole sequences, are therefore held out. `holdout` (random rows, as on the poster) leaks and exists for comparison only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from competition.common.arrays import Int64
from competition.common.errors import Command, FoldsError, UserError, unknown_message
from competition.common.files import AnyPath, read_text, sha256_lines, sha256_text, to_path, write_text
from competition.common.records import read_record, write_record
from competition.common.seeds import generator
from competition.data.names import SCHEMES, best_strategy, parse_name, parse_sequence

if TYPE_CHECKING:
    import pandas as pd  # otherwise imported where it is needed, as it loads slowly

STRATEGIES = ("subject", "sequence", "holdout")
COLUMNS = ("Id", "image", "subject", "action", "sequence", "camera", "fold")
HOLDOUT_ROWS = 2188  # the poster's validation set
SEQUENCE_FOLDS = 5
NEVER_VALIDATED = -1
FEW_ODD = 0.05  # share of names that follow no scheme and are mistakes; a single one always is
_AGAIN = Command("folds")


@dataclass(frozen=True, kw_only=True)
class FoldsMeta:
    """folds.json: how folds.csv was made, and the hashes of the image list and of folds.csv."""

    FORMAT: ClassVar[int] = 1

    strategy: str
    k: int
    seed: int = 0
    images_sha256: str | None = None
    folds_sha256: str


def make_folds(
    images: Sequence[str], *, strategy: str = "subject", k: int | None = None, seed: int = 0
) -> "pd.DataFrame":
    """Assign each image to the fold that holds it out; row i has Id i + 1; columns as in folds.csv.

    Raise FoldsError when a name doesn't contain its group, or there are fewer groups than folds.
    """
    if isinstance(images, str) or not all(isinstance(image, str) for image in images):
        what = f"the text {images[:40]!r}" if isinstance(images, str) else "other values"
        raise FoldsError(
            f"images must be a list of image names, but got {what}", fix="pass labels.images of read_labels"
        )
    if strategy not in STRATEGIES:
        raise FoldsError(unknown_message("strategy", strategy, STRATEGIES))
    table = _name_table(images, strategy)
    if strategy == "holdout":
        if k not in (None, 1):
            raise FoldsError(f"--k {k} with strategy holdout: it has one fold; leave --k out")
        rows = HOLDOUT_ROWS if len(images) >= 10 * HOLDOUT_ROWS else max(1, len(images) // 10)
        chosen = generator(seed, "holdout").permutation(len(images))[:rows]
        table["fold"] = NEVER_VALIDATED
        table.loc[chosen, "fold"] = 0
        return table
    groups = table[strategy]
    if (count := groups.nunique()) < 2:
        raise FoldsError(
            f"all {len(images)} images have one {strategy}, {groups[0]}: expected at least 2",
            fix=f"the names allow the strategy {best_strategy(images)}",
            command=Command("folds", {"strategy": best_strategy(images)}),
        )
    k = k if k is not None else (count if strategy == "subject" else min(count, SEQUENCE_FOLDS))
    if not 2 <= k <= count:
        raise FoldsError(f"--k {k} with strategy {strategy}: expected 2 to {count}, the number of {strategy}s")
    table["fold"] = groups.map(_balance(groups, k, seed))
    _assert_no_leak(table, strategy)
    return table


def write_folds(
    folder: AnyPath, table: "pd.DataFrame", *, strategy: str, seed: int, users: Sequence[str], force: bool
) -> bool:
    """Write folds.csv and folds.json; return False when the folder has the same folds already.

    Raise FoldsError when this would change folds that the runs `users` were trained on, unless `force`.
    """
    content = table.to_csv(index=False, lineterminator="\n")
    folder = to_path(folder)
    require_no_file(folder)
    path = folder / "folds.csv"
    if path.exists():
        same = sha256_text(path) == sha256_lines([content])
        if same and (folder / "folds.json").exists():
            return False
        if users and not same and not force:
            raise FoldsError(
                f"{path} was used by {', '.join(users[:5])}",
                fix="other folds would invalidate their out-of-fold poses; use another folder of folds and another "
                "folder of submissions, or --force",
            )
    (folder / "folds.json").unlink(missing_ok=True)  # so that it never describes another table
    write_text(path, content)
    meta = FoldsMeta(
        strategy=strategy,
        k=int(table["fold"].max()) + 1,
        seed=seed,
        images_sha256=sha256_lines(table["image"]),
        folds_sha256=sha256_text(path),
    )
    write_record(folder / "folds.json", meta)
    return True


def require_no_file(folder: Path) -> None:
    """Raise FoldsError for a path that is a file, or is in one."""
    for path in (folder, *folder.parents):
        if path.is_file():
            raise FoldsError(f"{path} is a file, expected a folder of folds", fix="choose another folder for --folds")


def read_folds(folder: AnyPath, images_sha256: str) -> tuple[Int64, FoldsMeta]:
    """Return the fold of every training row [N] and folds.json; raise FoldsError when they belong to other data."""
    import pandas as pd

    folder = to_path(folder)
    require_no_file(folder)
    path = folder / "folds.csv"
    if not path.exists() or not (folder / "folds.json").exists():
        raise FoldsError(f"no folds at {path}", command=_AGAIN)
    try:
        meta = read_meta(folder)
        table = pd.read_csv(
            StringIO(read_text(path, what="folds")), keep_default_na=False, dtype={"image": str, "fold": np.int64}
        )
    except (UserError, ValueError, OverflowError) as error:
        raise FoldsError(
            f"{path} can't be read ({str(error)[:100]})", fix="make the folds again", command=_AGAIN
        ) from None
    if tuple(table.columns) != COLUMNS:
        raise FoldsError(
            f"{path}: columns {', '.join(table.columns)}, expected {', '.join(COLUMNS)}",
            fix="make the folds again",
            command=_AGAIN,
        )
    if sha256_lines(table["image"]) != images_sha256:
        raise FoldsError(
            f"{path} lists other images than annot/train_images.txt",
            fix="use another folder of folds for this data, or make the folds again",
            command=_AGAIN,
        )
    if meta.folds_sha256 != sha256_text(path):
        raise FoldsError(
            f"{path} was changed after it was made, as its hash differs from that in folds.json",
            fix="make the folds again",
            command=_AGAIN,
        )
    if meta.k != table["fold"].max() + 1 or meta.images_sha256 != images_sha256:
        count = table["fold"].max() + 1
        raise FoldsError(
            f"{folder / 'folds.json'} does not match the {count} folds of {path}",
            fix="make the folds again",
            command=_AGAIN,
        )
    return table["fold"].to_numpy(np.int64), meta


def read_meta(folder: Path) -> FoldsMeta:
    """Read folds.json."""
    return read_record(FoldsMeta, folder / "folds.json", what="folds")


def _name_table(images: Sequence[str], strategy: str) -> "pd.DataFrame":
    import pandas as pd

    rows: list[tuple[object, ...]] = []
    for id_, image in enumerate(images, start=1):
        name, parts = parse_name(image), None
        if name is not None:
            parts = (name.subject, name.action, name.sequence, name.camera)
        elif strategy == "sequence" and (sequence := parse_sequence(image)) is not None:
            parts = ("", "", *sequence)
        elif strategy == "holdout":
            parts = ("", "", "", "")
        if parts is None:
            others = {"sequence": "uses the part before the frame number", "holdout": "accepts any name"}
            best = best_strategy(images)
            odd = sum(parse_name(one) is None for one in images)
            if are_few_names(odd, len(images)):
                raise FoldsError(
                    f"train_images.txt:{id_}: {image!r} isn't like the other lines, expected an image name such as "
                    f"{next(one for one in images if parse_name(one) is not None)}",
                    fix=f"correct this line{f' and {odd - 1} more' if odd > 1 else ''}: line numbers are the Ids, "
                    "which rows of train.h5 must match",
                )
            raise FoldsError(
                f"train_images.txt:{id_}: {image!r} doesn't contain its {strategy}: expected a name like "
                f"{next(iter(SCHEMES))}",
                fix=f"rename the images, or use --strategy {best}, which {others[best]}",
                command=Command("folds", {"strategy": best}),
            )
        rows.append((id_, image, *parts))
    return pd.DataFrame(rows, columns=list(COLUMNS[:-1]))


def are_few_names(odd: int, count: int) -> bool:
    """Return whether so few names follow no scheme that they are mistakes, not names of another kind."""
    return 0 < odd <= max(1, FEW_ODD * count) and odd < count


def _balance(groups: "pd.Series[Any]", k: int, seed: int) -> dict[str, int]:
    """Assign groups, largest first, to the fold with the fewest rows so far; the seed breaks ties."""
    sizes = groups.value_counts(sort=False).sort_index()
    order = generator(seed, "folds").permutation(len(sizes))
    shuffled = sizes.iloc[order].sort_values(ascending=False, kind="stable")
    rows = [0] * k
    fold_of: dict[str, int] = {}
    for group, size in shuffled.items():
        fold = rows.index(min(rows))
        fold_of[str(group)] = fold
        rows[fold] += int(size)
    return fold_of


def _assert_no_leak(table: "pd.DataFrame", strategy: str) -> None:
    for column in {strategy, "sequence"}:
        folds_of_group = table.groupby(column)["fold"].nunique()
        assert (folds_of_group == 1).all(), f"{column} {folds_of_group.idxmax()} is in more than one fold"
    assert set(table["fold"]) == set(range(table["fold"].max() + 1)), "a fold is empty"
