"""Faults of image lists and labels: what is wrong, where, and how to fix it.

The command `check` lists all faults; functions that read the data raise DataError for the first one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from competition.common.arrays import Bools, Floats
from competition.common.errors import Command, DataError
from competition.common.skeleton import IMAGE_PX, JOINTS, ROOT

ROOT_TOLERANCE_MM = 1e-3
# Bounds of the joints' mean distance from the root; it is 250 to 550 mm in real poses.
POSE_MM = (100.0, 2000.0)
SMALLEST_PX = 8.0  # of the longer side of the joints' box; normalised positions stay below
OUTSIDE_SHARE = 0.2  # largest share of joints outside the image; crops are made around the joints
BOX_SHARE = 228 / 256  # of the image's side that the longer side of the joints' box has: crops are the box and a margin
MIDDLE_PX = (IMAGE_PX - 1) / 2
SCALE_TOLERANCE = 0.06  # of the image's side
FEW = 0.01  # share; fewer labels that contradict others are single mistakes, more are a fault of the whole file
FEW_ROWS = 2
PLAIN_NAMES = "list names without folders and invisible characters, and put all files into images/ itself"


@dataclass(frozen=True)
class Fault:
    """One kind of problem, or possible problem, in a data folder."""

    where: Path | str
    what: str
    fix: str
    places: Sequence[str] = ()  # affected lines, Ids or files; empty when all of `where` is affected
    command: Command | None = None  # to run next

    def describe(self) -> str:
        """Return where and what in one line, with the number of places and the first of them."""
        places = f" ({len(self.places):,}, the first is {self.places[0]})" if self.places else ""
        return f"{self.where}: {self.what}{places}"

    def __str__(self) -> str:
        return f"{self.describe()}: {self.fix}"


def raise_first(faults: Sequence[Fault]) -> None:
    """Raise DataError for the first fault, with the number of further ones; do nothing when there are none."""
    if not faults:
        return
    first, more = faults[0], len(faults) - 1
    if more:
        fix = f"{first.fix} ({more} more kinds of problem, which `check` lists)"
        raise DataError(first.describe(), fix=fix, command=first.command or Command("check"))
    raise DataError(first.describe(), fix=first.fix, command=first.command)


def are_few(wrong: Bools) -> bool:
    """Return whether so few of a file's rows are wrong that the others can be right."""
    return int(wrong.sum()) <= max(FEW_ROWS, FEW * len(wrong))


def list_ids(rows: Bools) -> list[str]:
    """Return the Ids of the rows in a mask [N], as places of a fault."""
    return [f"Id {row + 1}" for row in np.flatnonzero(rows)]


def is_file_name(name: str) -> bool:
    """Return whether `name` is a plain file name, without path separators or control characters."""
    return name not in ("", ".", "..") and "/" not in name and "\\" not in name and name.isprintable()


def find_list_faults(path: Path, names: Sequence[str], *, labelled: bool) -> list[Fault]:
    """Find the faults of a list of image names, whose line numbers are the Ids of train.h5 or of the submission."""
    if not names:
        return [Fault(path, "lists no images, expected one name per line", "copy it again")]
    blank, paths, duplicates = [], [], []
    first: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        if not name:
            blank.append(f"line {line}")
        elif not is_file_name(name):
            paths.append(f"line {line} {name[:60]!r}")
        elif name in first:
            duplicates.append(f"line {line} {name} same as line {first[name]}")
        else:
            first[name] = line
    ids = "line numbers are the Ids, which rows of train.h5 must match"
    remove_blank, remove_duplicates = f"remove them; {ids}", f"remove one of each and its row of train.h5; {ids}"
    if not labelled:
        remove_blank = remove_duplicates = "copy it again; line numbers are the Ids of the submission"
    return _with_places(
        Fault(path, "blank lines, expected one image name per line", remove_blank, blank),
        Fault(path, "a path or control characters, expected file names in images/", PLAIN_NAMES, paths),
        Fault(path, "duplicate names", remove_duplicates, duplicates),
    )


def find_pose_faults(path: Path, pose_mm: Floats) -> list[Fault]:
    """Find rows of pose3d [N, 17, 3] that aren't poses in mm relative to the pelvis."""
    finite = are_finite(pose_mm)
    known = pose_mm if finite.all() else np.where(finite[:, None, None], pose_mm, 0)
    off_mm = np.abs(known[:, ROOT]).max(axis=1)
    size_mm = mean_distance(known)
    odd = finite & ((size_mm < POSE_MM[0]) | (size_mm > POSE_MM[1]))
    typical_mm = float(np.median(size_mm[odd])) if odd.any() else 0.0
    return _with_places(
        _not_finite(path, "pose3d", finite),
        Fault(
            path,
            f"pose3d with the root not at (0, 0, 0), off by up to {off_mm.max(initial=0):.4g} mm",
            f"expected poses relative to the pelvis: {_other_root(known) or 'subtract joint 0 from all joints'}",
            list_ids(off_mm > ROOT_TOLERANCE_MM),
        ),
        Fault(
            path,
            f"pose3d of implausible size: joints are {typical_mm:.3g} from the root, expected about 500 mm",
            f"{_guess_unit(typical_mm)} convert to mm and remove empty rows",
            list_ids(odd),
        ),
    )


def find_pixel_faults(path: Path, pose2d_px: Floats, side_px: int) -> list[Fault]:
    """Find rows of pose2d [N, 17, 2] that aren't poses in pixels of an image of side_px x side_px."""
    finite = are_finite(pose2d_px)
    known = pose2d_px[finite]
    small = finite.copy()
    small[finite] = np.ptp(known, axis=1).max(axis=1) < SMALLEST_PX
    side = guess_side(known)
    scaled = side is not None and abs(side / side_px - 1) > SCALE_TOLERANCE
    pixels = f"use pixels of the {side_px}x{side_px} image, integers at pixel centres"
    rescale = f"multiply pose2d by {_factor(side_px, side)}: {pixels}" if side and scaled else ""
    faults = _with_places(
        _not_finite(path, "pose2d", finite),
        Fault(
            path,
            f"poses in pose2d smaller than {SMALLEST_PX:.0f} px",
            rescale or f"normalised? {pixels}",
            list_ids(small),
        ),
    )
    outside = float(outside_image(known, side_px).mean()) if len(known) else 0.0
    if outside > OUTSIDE_SHARE:
        fix = rescale or f"pixels of another image? {pixels}"
        of = f", as if of images of about {side:.0f} px" if side and scaled else ""
        faults.append(Fault(path, f"{outside:.0%} of pose2d is outside the image{of}", fix))
    elif scaled and not small.any():
        faults.append(Fault(path, f"pose2d is of images of about {side:.0f} px, expected {side_px} px", rescale))
    return faults


def _factor(side_px: int, side: float) -> str:
    """Return the factor that turns pixels of images with a side of about `side` into those of `side_px`."""
    return str(side_px) if side < SMALLEST_PX else f"{side_px}/(the side of your images, about {side:.0f} px)"


def guess_side(pose2d_px: Floats) -> float | None:
    """Return the side of the square images that poses [N, 17, 2] are in, None where size and place disagree.

    The competition's images are crops around the joints: the box of the joints is in the middle.
    """
    if not len(pose2d_px):
        return None
    size_px, middle_px = joint_box(pose2d_px)
    by_size, (x, y) = size_px / BOX_SHARE, (place / MIDDLE_PX * IMAGE_PX for place in middle_px)
    agree = by_size > 0 and all(abs(side / by_size - 1) < 0.1 for side in (x, y))
    return (by_size + x + y) / 3 if agree else None


def joint_box(pose2d_px: Floats) -> tuple[float, tuple[float, float]]:
    """Return the medians of the longer side and of the middle (x, y) of the boxes around poses [N, 17, 2]."""
    low, high = pose2d_px.min(axis=1), pose2d_px.max(axis=1)
    x, y = np.median((low + high) / 2, axis=0).tolist()
    return float(np.median((high - low).max(axis=1))), (x, y)


def are_finite(joints: Floats) -> Bools:
    """Return a mask [N] of the rows of joints [N, 17, ...] without NaN and infinity."""
    return np.asarray(np.isfinite(joints).all(axis=(1, 2)))


def mean_distance(pose_mm: Floats) -> Floats:
    """Return the mean joint distance from the root [N] of poses [N, 17, 3]; infinity on overflow."""
    with np.errstate(over="ignore"):
        centred = pose_mm - pose_mm[:, ROOT, None]
        return np.asarray(np.sqrt(np.einsum("njc,njc->nj", centred, centred)).mean(axis=1))


def outside_image(pose2d_px: Floats, side_px: int) -> Bools:
    """Return a mask [N, 17] of the joints of pose2d [N, 17, 2] outside the image."""
    return np.asarray(((pose2d_px < -0.5) | (pose2d_px > side_px - 0.5)).any(axis=2))


def _other_root(pose_mm: Floats) -> str | None:
    """Advise on poses that are relative to another joint than the first."""
    at_origin = np.flatnonzero((np.abs(pose_mm) < ROOT_TOLERANCE_MM).all(axis=(0, 2)))
    if at_origin.size != 1:
        return None
    return f"joint {at_origin[0]} is at (0, 0, 0); joints in another order? expected {', '.join(JOINTS)}"


def _guess_unit(size: float) -> str:
    """Guess the unit of a pose from its mean joint distance from the root."""
    for unit, per_mm in (("metres", 1e-3), ("centimetres", 1e-1)):
        if POSE_MM[0] * per_mm <= size <= POSE_MM[1] / 2 * per_mm:
            return f"{unit}?"
    return "empty rows?" if size < POSE_MM[0] * 1e-3 else "another unit?"


def _not_finite(path: Path, key: str, finite: Bools) -> Fault:
    return Fault(
        path,
        f"{key} has NaN or infinite values",
        "remove these rows and their lines in train_images.txt",
        list_ids(~finite),
    )


def _with_places(*faults: Fault) -> list[Fault]:
    return [fault for fault in faults if fault.places]
