"""Comparison of members' test poses with their out-of-fold poses, from which alone a blend's weights and claims come.

A wrong order of rows, scale, axis or side in a test CSV changes no out-of-fold error. It changes the profile of the
poses, and their agreement with other members and other folds. Ratios of agreements are compared, as these hardly depend
on how accurate the members are, which distances do. The README of this package shows how the thresholds were chosen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from competition.blending.agreement import CHANGES, Agreement, agreement, changed, culprits
from competition.blending.profile import profile_difference
from competition.common.arrays import Bools, Float32, Intp
from competition.common.seeds import generator

SAMPLE_ROWS: Final = 4000, 1500  # out-of-fold and test rows; more hardly change the figures
LEAST_ROWS: Final = 10  # to compare
PARTNERS: Final = 8  # members that each member is compared with
INFORMATIVE: Final = 0.15  # expected agreement below which a lower one is no evidence
BROKEN: Final = 0.65  # ratio of agreements on the test images and out of fold; half of the rows shuffled: about 0.5
UNRELATED: Final = 0.4  # ratio for two folds of a run
PARTLY_BROKEN: Final = 0.8  # ratio relative to that of other members, if there also are
OUTLIERS: Final = 0.05  # more test rows farther apart than 99 % of the out-of-fold rows
FARTHER: Final = 1.15  # and the mean distance relative to out of fold, over that of other members
OUTLIER_ROWS: Final = 200  # test rows from which their share can be judged
FITS: Final = 0.85  # ratio from which a change explains a broken file
FIX: Final = "write the file again, or leave the run out"


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedFile:
    """Test poses of one network, and the out-of-fold poses of its run, on samples of rows that all files share."""

    member: str
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
        limit = UNRELATED if self.same_run else BROKEN
        return self.is_informative and self.test.most < limit * self.expected.least

    @property
    def is_reversed(self) -> bool:
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


def sample_rows(rows: int, limit: int) -> Intp:
    """Choose at most `limit` of `rows` rows at random, ascending and always the same ones."""
    return np.sort(generator(0, "consistency").permutation(rows)[:limit])


def inconsistencies(files: Sequence[PredictedFile], true_mm: Float32) -> list[str]:
    """Return one line for each member, or two members, whose test poses and out-of-fold poses don't fit together.

    `true_mm` [S, 17, 3] are the true poses of the sampled out-of-fold rows.
    """
    lines = _lines_on_profiles(files) | _lines_on_copies(files)
    files = [file for file in files if file.member not in lines]
    pairs = [*_pairs_of_members(files), *_pairs_of_folds(files, true_mm)]
    members = [file.member for file in files]
    broken = culprits({pair.files: pair.ratio for pair in pairs if pair.is_broken}, members)
    broken += _partly_broken(pairs, {file for group in broken for file in group}, files)
    for names, group in _by_member(broken, members).items():
        lines[names] = _describe_test(files, group, [pair for pair in pairs if set(pair.files) & set(group)])
    reversed_ = {pair.files: pair.expected.value for pair in pairs if pair.is_reversed}
    for names, group in _by_member(culprits(reversed_, members), members).items():
        of_group = [pair for pair in pairs if pair.is_reversed and set(pair.files) & set(group)]
        lines.setdefault(names, _describe_out_of_fold(of_group))
    return [f"{names}: {line}" for names, line in sorted(lines.items())]


def _lines_on_profiles(files: Sequence[PredictedFile]) -> dict[str, str]:
    lines: dict[str, str] = {}
    for file in files:
        own_mm = file.out_of_fold_mm[file.held_out]
        if len(own_mm) >= LEAST_ROWS <= len(file.test_mm) and (found := profile_difference(own_mm, file.test_mm)):
            line = f"the test poses in {file.name} don't fit the out-of-fold poses: {found}; {FIX}"
            lines.setdefault(file.member, line)
    return lines


def _lines_on_copies(files: Sequence[PredictedFile]) -> dict[str, str]:
    lines: dict[str, str] = {}
    first_with: dict[bytes, PredictedFile] = {}
    for file in files:
        first = first_with.setdefault(file.test_mm.tobytes(), file)
        if first.member != file.member and not np.array_equal(first.out_of_fold_mm, file.out_of_fold_mm):
            line = f"the test poses in {file.name} are those in {first.name}, but the out-of-fold poses differ; {FIX}"
            lines.setdefault(file.member, line)
    return lines


def _pairs_of_members(files: Sequence[PredictedFile]) -> Iterator[Pair]:
    """Pair files of different members on the rows that both networks held out, each member with PARTNERS others."""
    members = list(dict.fromkeys(file.member for file in files))
    for (one, first), (other, second) in combinations(enumerate(files), 2):
        apart = abs(members.index(first.member) - members.index(second.member))
        if not 0 < min(apart, len(members) - apart) <= PARTNERS // 2:
            continue
        rows = np.flatnonzero(first.held_out & second.held_out)
        if len(rows) < LEAST_ROWS or len(first.test_mm) < LEAST_ROWS:
            continue
        out_of_fold = first.out_of_fold_mm[rows], second.out_of_fold_mm[rows]
        if not np.array_equal(*out_of_fold):  # copies have their own warning
            test = agreement(first.test_mm, second.test_mm)
            yield Pair(files=(one, other), expected=agreement(*out_of_fold), test=test)


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


def _by_member(groups: Sequence[tuple[int, ...]], members: Sequence[str]) -> dict[str, list[int]]:
    """Join the files of each member, or of each two members."""
    found: dict[str, list[int]] = {}
    for group in sorted(groups):
        names = " and ".join(sorted({members[file] for file in group}))
        found.setdefault(names, []).extend(group)
    return found


def _describe_test(files: Sequence[PredictedFile], group: Sequence[int], pairs: Sequence[Pair]) -> str:
    """Describe the test poses of files that are to blame; `pairs` are those with one of the files."""
    first = files[group[0]]
    of_members = [pair for pair in pairs if not pair.same_run]
    mm = _mean_mm(of_members or pairs)
    if len({files[file].member for file in group}) == 1:
        more = f" (and {len(group) - 1} more)" if len(group) > 1 else ""
        from_ = "other members" if of_members else "the run's other folds"
        what = f"the test poses in {first.name}{more} are {mm[1]:.0f} mm from those of {from_}"
    else:
        what = f"their test poses ({first.name}) are {mm[1]:.0f} mm apart"
    before = f"the out-of-fold poses {mm[0]:.0f} mm" if of_members else f"but its error out of fold is {mm[0]:.0f} mm"
    cause = _explain(files, group[0], pairs)
    return f"{what}, {before}: {cause}; {FIX}"


def _explain(files: Sequence[PredictedFile], file: int, pairs: Sequence[Pair]) -> str:
    own = [(pair, sum(pair.files) - file) for pair in pairs if file in pair.files and pair.is_informative]
    for change in CHANGES:
        poses_mm = changed(files[file].test_mm, change)
        ratios = [agreement(poses_mm, files[other].test_mm).value / pair.expected.value for pair, other in own]
        if np.median(ratios) > FITS:
            return f"they fit with {change}"
    return "are rows in another order, or of other images?"


def _describe_out_of_fold(pairs: Sequence[Pair]) -> str:
    out_of_fold, test = _mean_mm(pairs)
    what = f"the out-of-fold poses are {out_of_fold:.0f} mm from those of other members, the test poses {test:.0f} mm"
    return f"{what}: do the Ids of the out-of-fold files belong to their rows?"


def _mean_mm(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return the mean distances out of fold and on the test images."""
    each_mm = [(pair.expected.row_mm.mean(), pair.test.row_mm.mean()) for pair in pairs]
    out_of_fold, test = np.mean(each_mm, axis=0).tolist()
    return out_of_fold, test
