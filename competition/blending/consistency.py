"""Comparison of members' test poses with their out-of-fold poses, from which alone a blend's weights and claims come.

A wrong order of rows, scale, axis or side in a test CSV changes no out-of-fold error. It changes the profile of the
poses, and their agreement with other members and other folds. Ratios of agreements are compared, as these hardly depend
on how accurate the members are, which distances do. The README of this package shows how the thresholds were chosen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Final

import numpy as np

from competition.blending.agreement import CHANGES, Agreement, agreement, changed, culprits
from competition.blending.profile import profile_difference
from competition.common.arrays import Bools, Float32

ROWS: Final = 4000  # out-of-fold rows that are compared; more hardly change the figures
TEST_ROWS: Final = 1500  # likewise
LEAST_ROWS: Final = 10  # to compare
PARTNERS: Final = 8  # members of other runs that each member is compared with
INFORMATIVE: Final = 0.15  # expected agreement below which a lower one is no evidence
BROKEN: Final = 0.65  # ratio of agreements on the test images and out of fold; half of the rows shuffled: about 0.5
UNRELATED: Final = 0.4  # ratio for two folds of a run
PARTLY_BROKEN: Final = 0.8  # ratio relative to that of other members, if there also are
OUTLIERS: Final = 0.05  # more test rows farther apart than 99 % of the out-of-fold rows
FARTHER: Final = 1.1  # least ratio of mean distances on the test images and out of fold, where files are broken
OUTLIER_ROWS: Final = 200  # test rows from which their share can be judged
ROUNDING_MM: Final = 0.01  # within which poses are copies
FITS: Final = 0.85  # ratio from which a change explains a broken file
FIX: Final = "write the file again, or leave the run out"


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedFile:
    """Test poses of one network, and the out-of-fold poses of its run, on samples of rows that all files share."""

    run: str
    member: str  # run:epoch
    name: str  # run/fold/file
    held_out: Bools  # [S] the out-of-fold rows that this network predicted
    out_of_fold_mm: Float32  # [S, 17, 3]
    test_mm: Float32  # [T, 17, 3]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two files, by index, with their expected agreement and that on the test images."""

    files: tuple[int, int]
    expected: Agreement  # out of fold; for two folds of a run, from those with the truth
    test: Agreement
    same_run: bool = False

    @property
    def ratio(self) -> float:
        return self.test.value / self.expected.value

    @property
    def is_informative(self) -> bool:
        return self.expected.least > INFORMATIVE

    @property
    def is_broken(self) -> bool:
        """Whether the test poses are less related than expected."""
        if self.same_run:
            return self.is_informative and self.test.most < UNRELATED * self.expected.least
        return self.is_informative and self.farther > FARTHER and self.test.most < BROKEN * self.expected.least

    @property
    def is_off_out_of_fold(self) -> bool:
        """Whether the test poses are much more related than the out-of-fold poses."""
        return not self.same_run and self.test.least > 2 * INFORMATIVE and self.expected.most < self.test.least / 2

    @property
    def farther(self) -> float:
        """The mean distance of the test poses over that of the out-of-fold poses."""
        return float(self.test.row_mm.mean() / max(self.expected.row_mm.mean(), 1e-6))

    @property
    def outliers(self) -> float:
        """The share of test rows that are farther apart than 99 % of the out-of-fold rows."""
        return float((self.test.row_mm > np.quantile(self.expected.row_mm, 0.99)).mean())


def inconsistencies(files: Sequence[PredictedFile], true_mm: Float32) -> list[str]:
    """Return one line for each run, or two runs, whose test poses and out-of-fold poses don't fit together.

    `true_mm` [S, 17, 3] are the true poses of the sampled out-of-fold rows.
    """
    lines = _lines_on_profiles(files, true_mm) | _lines_on_copies(files)
    files = [file for file in files if file.run not in lines]
    pairs = [*_pairs_of_members(files), *_pairs_of_folds(files, true_mm)]
    runs = [file.run for file in files]
    broken = culprits({pair.files: pair.ratio for pair in pairs if pair.is_broken}, runs)
    broken += _partly_broken(pairs, {file for group in broken for file in group}, files)
    for names, group in _by_run(broken, runs).items():
        lines[names] = _describe_test(files, group, [pair for pair in pairs if set(pair.files) & set(group)])
    off = {pair.files: pair.expected.value for pair in pairs if pair.is_off_out_of_fold}
    for names, group in _by_run(culprits(off, runs), runs).items():
        of_group = [pair for pair in pairs if pair.is_off_out_of_fold and set(pair.files) & set(group)]
        lines.setdefault(names, _describe_out_of_fold(files, group, of_group))
    return [f"{names}: {line}" for names, line in sorted(lines.items())]


def _lines_on_profiles(files: Sequence[PredictedFile], true_mm: Float32) -> dict[str, str]:
    """Compare profiles, except of members whose out-of-fold poses are hardly related to the truth."""
    lines: dict[str, str] = {}
    for file in files:
        own_mm = file.out_of_fold_mm[file.held_out]
        if not len(own_mm) >= LEAST_ROWS <= len(file.test_mm):
            continue
        difference = profile_difference(own_mm, file.test_mm)
        if difference and agreement(own_mm, true_mm[file.held_out]).least > INFORMATIVE:
            line = f"the test poses in {file.name} don't fit the out-of-fold poses: {difference}; {FIX}"
            lines.setdefault(file.run, line)
    return lines


def _lines_on_copies(files: Sequence[PredictedFile]) -> dict[str, str]:
    """Find test poses that several runs share although their out-of-fold poses differ."""
    lines: dict[str, str] = {}
    first_with: dict[bytes, PredictedFile] = {}
    for file in files:
        first = first_with.setdefault(file.test_mm.tobytes(), file)
        is_copy = first.run == file.run or np.allclose(first.out_of_fold_mm, file.out_of_fold_mm, atol=ROUNDING_MM)
        if not is_copy and np.ptp(file.test_mm, axis=0).any():
            line = f"the test poses in {file.name} are those in {first.name}, but the out-of-fold poses differ; {FIX}"
            lines.setdefault(file.run, line)
    return lines


def _pairs_of_members(files: Sequence[PredictedFile]) -> Iterator[Pair]:
    """Pair files of different members on the rows that both networks held out."""
    of_member: dict[str, list[int]] = {}
    for place, file in enumerate(files):
        of_member.setdefault(file.member, []).append(place)
    run_of = {file.member: file.run for file in files}
    for one, other in sorted(_partners(run_of)):
        for place, partner in product(of_member[one], of_member[other]):
            first, second = files[place], files[partner]
            rows = np.flatnonzero(first.held_out & second.held_out)
            if len(rows) < LEAST_ROWS or len(first.test_mm) < LEAST_ROWS:
                continue
            out_of_fold = first.out_of_fold_mm[rows], second.out_of_fold_mm[rows]
            if not np.allclose(*out_of_fold, atol=ROUNDING_MM):  # copies have their own warning
                test = agreement(first.test_mm, second.test_mm)
                yield Pair(files=(place, partner), expected=agreement(*out_of_fold), test=test)


def _partners(run_of: Mapping[str, str]) -> set[tuple[str, str]]:
    """Choose pairs of members: each with PARTNERS of other runs or, of a single run, with other epochs."""
    members = list(run_of)
    single = len(set(run_of.values())) == 1
    pairs = set()
    for member in members:
        others = [other for other in members if other != member and (single or run_of[other] != run_of[member])]
        for index in np.linspace(0, len(others) - 1, min(PARTNERS, len(others))).round().astype(int):
            first, second = sorted((member, others[index]))
            pairs.add((first, second))
    return pairs


def _pairs_of_folds(files: Sequence[PredictedFile], true_mm: Float32) -> Iterator[Pair]:
    """Pair the folds of each member.

    If the networks' errors are independent, their agreement is about the product of those with the truth; errors that
    they share increase it.
    """
    enough = {place: file for place, file in enumerate(files) if file.held_out.sum() >= LEAST_ROWS <= len(file.test_mm)}
    of_file = {
        place: agreement(file.out_of_fold_mm[file.held_out], true_mm[file.held_out]) for place, file in enough.items()
    }
    for one, other in combinations(enough, 2):
        if files[one].member == files[other].member:
            first, second = of_file[one], of_file[other]
            expected = Agreement(
                value=first.value * second.value,
                error=first.value * second.error + second.value * first.error,
                row_mm=np.concatenate([first.row_mm, second.row_mm]),
            )
            test = agreement(files[one].test_mm, files[other].test_mm)
            yield Pair(files=(one, other), expected=expected, test=test, same_run=True)


def _partly_broken(pairs: Sequence[Pair], known: set[int], files: Sequence[PredictedFile]) -> list[tuple[int, ...]]:
    """Find files that agree less than other members' files do among each other, with more outliers than these."""
    usable = [pair for pair in pairs if pair.is_informative and not pair.same_run and not known & set(pair.files)]
    found: list[tuple[int, ...]] = []
    for file in range(len(files)):
        own = [pair for pair in usable if file in pair.files]
        partners = {partner for pair in own for partner in pair.files} - {file}
        others = [pair for pair in usable if set(pair.files) <= partners]
        if not others or len(own[0].test.row_mm) < OUTLIER_ROWS:
            continue
        figures = [[(pair.ratio, pair.farther, pair.outliers) for pair in some] for some in (own, others)]
        (ratio, farther, outliers), usual = (np.median(of_pairs, axis=0) for of_pairs in figures)
        is_less_related = ratio < PARTLY_BROKEN * min(usual[0], 1.0)
        if is_less_related and farther > FARTHER * usual[1] and outliers > usual[2] + OUTLIERS:
            found.append((file,))
    return found


def _by_run(groups: Sequence[tuple[int, ...]], runs: Sequence[str]) -> dict[str, list[int]]:
    """Join the files of each run, or of each two runs."""
    found: dict[str, list[int]] = {}
    for group in sorted(groups):
        names = " and ".join(sorted({runs[file] for file in group}))
        found.setdefault(names, []).extend(group)
    return found


def _describe_test(files: Sequence[PredictedFile], group: Sequence[int], pairs: Sequence[Pair]) -> str:
    """Describe the test poses of files that are to blame; `pairs` are those with one of the files."""
    of_members = [pair for pair in pairs if not pair.same_run]
    out_of_fold, test = _mean_mm(of_members or pairs)
    if len({files[file].run for file in group}) == 1:
        from_ = "other members" if of_members else "the run's other folds"
        what = f"the test poses in {_where(files, group)} are {test:.0f} mm from those of {from_}"
    else:
        what = f"their test poses, such as {files[group[0]].name}, are {test:.0f} mm apart"
    before = f"the out-of-fold poses {out_of_fold:.0f} mm"
    if not of_members:
        before = f"although the run's error out of fold is {out_of_fold:.0f} mm"
    return f"{what}, {before}: {_explain(files, group[0], pairs)}; {FIX}"


def _where(files: Sequence[PredictedFile], group: Sequence[int]) -> str:
    return files[group[0]].name + (f" (and {len(group) - 1} more)" if len(group) > 1 else "")


def _explain(files: Sequence[PredictedFile], file: int, pairs: Sequence[Pair]) -> str:
    own = [(pair, sum(pair.files) - file) for pair in pairs if file in pair.files and pair.is_informative]
    for change in CHANGES:
        poses_mm = changed(files[file].test_mm, change)
        ratios = [agreement(poses_mm, files[other].test_mm).value / pair.expected.value for pair, other in own]
        if np.median(ratios) > FITS:
            return f"they fit with {change}"
    return "perhaps rows are in another order or of other images"


def _describe_out_of_fold(files: Sequence[PredictedFile], group: Sequence[int], pairs: Sequence[Pair]) -> str:
    out_of_fold, test = _mean_mm(pairs)
    return (
        f"the out-of-fold poses that belong to {_where(files, group)} are {out_of_fold:.0f} mm from those of other "
        f"members, the test poses {test:.0f} mm: perhaps their Ids belong to other rows; {FIX}"
    )


def _mean_mm(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return the mean distances out of fold and on the test images."""
    each_mm = [(pair.expected.row_mm.mean(), pair.test.row_mm.mean()) for pair in pairs]
    out_of_fold, test = np.mean(each_mm, axis=0).tolist()
    return out_of_fold, test
