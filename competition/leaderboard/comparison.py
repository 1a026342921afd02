"""Which runs and blends the board can compare: those of the data and the folds in use."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from competition.common.errors import DataError
from competition.data.dataset import Dataset
from competition.runs.candidates import Candidate, out_of_fold_mpjpe, rescored
from competition.runs.provenance import PARTS, Provenance, has_other_labels, hashes_now, other_parts


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The data in use, with which the data of runs and blends are compared."""

    now: Provenance  # hashes; None for what can't be compared
    dataset: Dataset | None
    folds: str  # where the folds are from

    def why(self, recorded: Provenance, *, of_blend: bool = False) -> str:
        """Explain why a run or a blend can't be ranked; "" if it can. A run's errors on other labels are replaced."""
        parts = [part for part in other_parts(recorded, self.now) if of_blend or part != "labels_sha256"]
        return ", ".join(f"{PARTS[part]} {self._where(part)}" for part in parts)

    def has_other_test_set(self, recorded: Provenance) -> bool:
        return "test_images_sha256" in other_parts(recorded, self.now)

    def is_stale(self, recorded: Provenance) -> bool:
        return has_other_labels(recorded, self.now)

    def rescored(self, of_run: Sequence[Candidate]) -> list[Candidate]:
        """Compute the errors of a run on other labels again."""
        dataset = self.dataset
        return rescored(of_run, self.now, lambda c: None if dataset is None else out_of_fold_mpjpe(c, dataset.true))

    def describe_stale(self, names: Sequence[str]) -> str:
        return (
            f"{', '.join(names)}: trained on {PARTS['labels_sha256']} {self._where('labels_sha256')}: their errors are "
            "computed with the labels in use; train them again, or use the data folder that they were trained on"
        )

    def _where(self, part: str) -> str:
        return self.folds if part == "folds_sha256" or self.dataset is None else str(self.dataset.folder)


def compare(
    runs: Sequence[Provenance], blends: Sequence[Provenance], folds: Path, dataset: Dataset | None
) -> Comparison:
    """Choose what runs and blends are compared with: the data and folds in use, without the latter those of most runs.

    Data that are missing, and labels that can't be read, aren't compared.
    """
    recorded = [*runs, *blends]
    now, where = hashes_now(dataset, folds, recorded), str(folds)
    if dataset is not None and any(has_other_labels(one, now) for one in recorded):
        try:
            _ = dataset.true
        except DataError:
            now = replace(now, labels_sha256=None)
    if now.folds_sha256 is None:
        counts = Counter(one.folds_sha256 for one in runs if one.folds_sha256 is not None)
        now, where = replace(now, folds_sha256=counts.most_common(1)[0][0] if counts else None), "most runs"
    return Comparison(now=now, dataset=dataset, folds=where)


def describe_apart(whys: Mapping[str, str]) -> str:
    """Describe which rows of the board aren't ranked, by reason, in one line."""
    reasons = {why: ", ".join(name for name, other in whys.items() if other == why) for why in whys.values() if why}
    described = "; ".join(f"{names} ({why})" for why, names in reasons.items())
    return f"not ranked: {described}: use the folders that they were made with, or train or blend again"
