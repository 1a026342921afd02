"""What is wrong with image lists and labels: every kind of fault, where it was found, and what to do about it.

`make check` shows all faults at once; whatever reads the data refuses at the first one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from competition.common.arrays import Bools, Floats
from competition.common.errors import DataError
from competition.common.skeleton import ROOT

ROOT_TOLERANCE_MM = 1e-3
# Mean distance of the joints from the root. People give 250 to 550 mm, so metres, centimetres and empty rows fall out.
POSE_MM = (100.0, 2000.0)
SMALLEST_PX = 8.0  # longer side of a person; positions normalised to [0, 1] or [-1, 1] stay below
OUTSIDE_SHARE = 0.2  # of joints outside the image; the crop is drawn around the joints
AGREEMENT = 0.7  # correlation of pose2d with pose3d's x and y; .97 and more where they belong together


@dataclass(frozen=True)
class Fault:
    """A kind of thing that makes, or may make, wrong results."""

    where: Path | str
    what: str
    fix: str
    places: Sequence[str] = ()  # every line, Id or file that has it; none when it is the whole of `where`

    def __str__(self) -> str:
        places = f" ({len(self.places):,}, the first is {self.places[0]})" if self.places else ""
        return f"{self.where}: {self.what}{places}: {self.fix}"


def refuse(faults: Sequence[Fault]) -> None:
    """Raise DataError, with the first of the faults and how many more kinds there are."""
    if faults:
        more = f" ({len(faults) - 1} more kinds of fault: `make check` lists them)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}")


def is_bare(name: str) -> bool:
    """Whether a line of a list is the name of a file, not a path that leads elsewhere or a terminal's commands."""
    return name not in ("", ".", "..") and "/" not in name and "\\" not in name and name.isprintable()


def list_faults(path: Path, names: Sequence[str]) -> list[Fault]:
    """Find what makes a list of image names unusable; its line numbers are the Ids."""
    if not names:
        return [Fault(path, "lists no images, expected one name a line", "copy it again")]
    blank, paths, twice = [], [], []
    first: dict[str, int] = {}
    for line, name in enumerate(names, start=1):
        if not name:
            blank.append(f"line {line}")
        elif not is_bare(name):
            paths.append(f"line {line} {name[:60]!r}")
        elif name in first:
            twice.append(f"line {line} {name} as line {first[name]}")
        else:
            first[name] = line
    ids = "line numbers are the Ids, so rows must go on fitting them"
    return _those_found(
        Fault(path, "blank lines, expected one image name a line", f"remove them; {ids}", blank),
        Fault(path, "a path or control characters, expected bare names of files in images/", "mend the names", paths),
        Fault(path, "names that stand twice", f"remove one of each with its row of train.h5; {ids}", twice),
    )


def pose_faults(path: Path, pose_mm: Floats) -> list[Fault]:
    """Find the rows of pose3d [N, 17, 3] that aren't a person in mm relative to the pelvis."""
    finite = are_finite(pose_mm)
    known = pose_mm if finite.all() else np.where(finite[:, None, None], pose_mm, 0)
    off_mm = np.abs(known[:, ROOT]).max(axis=1)
    size_mm = mean_distance(known)
    odd = finite & ((size_mm < POSE_MM[0]) | (size_mm > POSE_MM[1]))
    typical_mm = float(np.median(size_mm[odd])) if odd.any() else 0.0
    return _those_found(
        _not_finite(path, "pose3d", finite),
        Fault(
            path,
            f"pose3d with the root off (0, 0, 0), by {off_mm.max(initial=0):.4g} mm at most",
            "expected poses relative to the pelvis: subtract joint 0 from all joints",
            _ids(off_mm > ROOT_TOLERANCE_MM),
        ),
        Fault(
            path,
            f"pose3d of no person's size, expected mm, joints about 500 from the root, here {typical_mm:.3g}",
            f"{_guess_unit(typical_mm)}: write mm, and only rows that have a pose",
            _ids(odd),
        ),
    )


def pixel_faults(path: Path, pose2d_px: Floats, side_px: int) -> list[Fault]:
    """Find the rows of pose2d [N, 17, 2] that aren't a person in the pixels of an image of side_px x side_px."""
    finite = are_finite(pose2d_px)
    known = pose2d_px[finite]
    dots = finite.copy()
    dots[finite] = np.ptp(known, axis=1).max(axis=1) < SMALLEST_PX
    faults = _those_found(
        _not_finite(path, "pose2d", finite),
        Fault(
            path,
            f"pose2d of people smaller than {SMALLEST_PX:.0f} px",
            f"normalised? write pixels of the {side_px}x{side_px} image, integers at pixel centres",
            _ids(dots),
        ),
    )
    outside = float(outside_image(known, side_px).mean()) if len(known) else 0.0
    if outside > OUTSIDE_SHARE:
        what = f"{outside:.0%} of pose2d lies outside the image"
        faults.append(Fault(path, what, f"pixels of another image? write those of the {side_px}x{side_px} crop"))
    return faults


def agreement_faults(path: Path, pose2d_px: Floats, pose_mm: Floats) -> list[Fault]:
    """Find axes of pose3d [N, 17, 3] that don't run as pose2d [N, 17, 2] does (x right, y down)."""
    faults = []
    for axis, expected in enumerate(("x to the right", "y down")):
        correlation = axis_agreement(pose2d_px, pose_mm, axis)
        if correlation < AGREEMENT:
            against = f"pose3d's {expected[0]} doesn't follow pose2d's (correlation {correlation:+.2f})"
            turned = f"multiply {expected[0]} by -1" if correlation < -AGREEMENT else "other axes, or rows mixed up?"
            faults.append(Fault(path, f"{against}, expected {expected}", turned))
    return faults


def axis_agreement(pose2d_px: Floats, pose_mm: Floats, axis: int) -> float:
    """Return the correlation of an axis (0: x, 1: y) of pose2d and pose3d, each relative to its row's mean."""
    a, b = (joints[:, :, axis].astype(np.float64) for joints in (pose2d_px, pose_mm))
    a, b = (np.ravel(values - values.mean(axis=1, keepdims=True)) for values in (a, b))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0


def are_finite(joints: Floats) -> Bools:
    """Tell which rows [N] of joints [N, 17, ...] hold neither NaN nor infinity."""
    return np.asarray(np.isfinite(joints).all(axis=(1, 2)))


def mean_distance(pose_mm: Floats) -> Floats:
    """Return how far the joints of poses [N, 17, 3] lie from the root on average [N]; infinity for absurd poses."""
    with np.errstate(over="ignore"):
        centred = pose_mm - pose_mm[:, ROOT, None]
        return np.asarray(np.sqrt(np.einsum("njc,njc->nj", centred, centred)).mean(axis=1))


def outside_image(pose2d_px: Floats, side_px: int) -> Bools:
    """Tell which joints [N, 17] of pose2d [N, 17, 2] lie outside the image."""
    return np.asarray(((pose2d_px < -0.5) | (pose2d_px > side_px - 0.5)).any(axis=2))


def _guess_unit(size: float) -> str:
    """Guess what a person is measured in whose joints lie `size` from the root."""
    for unit, per_mm in (("metres", 1e-3), ("centimetres", 1e-1)):
        if POSE_MM[0] * per_mm <= size <= POSE_MM[1] / 2 * per_mm:
            return f"{unit}?"
    return "empty rows?" if size < POSE_MM[0] * 1e-3 else "another unit?"


def _not_finite(path: Path, key: str, finite: Bools) -> Fault:
    return Fault(
        path, f"{key} has NaN or infinite values", "remove these rows and their lines of the list", _ids(~finite)
    )


def _ids(rows: Bools) -> list[str]:
    return [f"Id {row + 1}" for row in np.flatnonzero(rows)]


def _those_found(*faults: Fault) -> list[Fault]:
    return [fault for fault in faults if fault.places]
