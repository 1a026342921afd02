"""The Optuna search for weights: a small study a joint, started well, stopped when it is good enough.

One study over all weights at once gains nothing in hundreds of trials. As joints don't touch each other's error,
sixteen studies of 3 M unknowns each come within a few hundredths of a percent of the optimum in under a hundred.

    a trial's parameters    u, one an axis and candidate; the weights are w = u / sum u, with u below 0 counting as 0
    enqueued                the mean first, then least squares, from tied weights to free ones: the best trial is
                            never worse than any of them
    CMA-ES                  starts from the joint's least squares, as it doesn't learn from enqueued trials
    stop                    GAP above the certified optimum, of which the search sees the value, never the weights
"""

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.storages.journal import BaseJournalBackend

from competition.blending import weights
from competition.blending.options import SAMPLERS
from competition.blending.weights import TIED
from competition.common.arrays import Float32, Float64
from competition.common.choices import one_of
from competition.common.seeds import derive
from competition.common.skeleton import AXES, JOINTS

GAP = 0.0005  # of the optimum: a study stops there
TRIALS = 200  # a study; most stop well before
LOWEST, HIGHEST = -0.5, 1.5  # of u; least squares lies in [0, 1], often at its ends, where CMA-ES would redraw in vain
SIGMA = 0.02  # CMA-ES's first step, where the largest u of an axis is 1: least squares is that near
POPULATION = 8  # a generation; below CMA-ES's default, as few generations fit into the trials
SEARCH_ROWS = 20_000  # more rows cost time and hardly move the optimum
FEW = 8  # candidates that are all searched
LEAST_SHARE = 1e-3  # of a candidate in least squares, to be searched among many

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the studies of one granularity found."""

    weights: Float64  # [17, 3, M]
    trials: int  # over all studies
    studies: tuple[optuna.Study, ...]


def choose_rows(sequences: npt.NDArray[np.str_] | None, rows: int, limit: int = SEARCH_ROWS) -> npt.NDArray[np.intp]:
    """Choose at most `limit` of `rows` rows, ascending: all of them, or evenly spaced ones of every sequence.

    What counts is independent sequences, not frames: thinning keeps them all, and neighbouring frames say nearly the
    same.
    """
    if rows <= limit:
        return np.arange(rows)
    together = np.arange(rows) if sequences is None else np.argsort(sequences, kind="stable")
    return np.sort(together[((np.arange(limit) + 0.5) * rows / limit).astype(np.intp)])


def search(
    residual: Float32,
    names: Sequence[str],
    optimum_mm: Float64,
    *,
    granularity: str = "coordinate",
    seed: int = 0,
    sampler: str = "cmaes",
    trials: int = TRIALS,
    members: int | None = None,
    progress: Progress | None = None,
) -> Found:
    """Search the weights [17, 3, M] of the candidates `names`, whose residuals are [17, 3, M, N] in mm.

    `optimum_mm` [17] holds each joint's mean error at the exact optimum of the same rows and granularity; the mean is
    that of the first `members` candidates, of all when unset.
    """
    one_of("sampler", SAMPLERS)(sampler)
    together = 0 in weights.tied_dimensions(granularity)
    blocks = [list(range(len(residual)))] if together else [[joint] for joint in range(len(residual))]
    anchors = least_squares_anchors(residual, granularity, members)
    found = anchors["mean"].copy()
    studies = []
    for done, block in enumerate(blocks):
        name = f"{granularity} {'all joints' if together else JOINTS[block[0]]}"
        if progress is not None:
            progress(f"search {name}", done, len(blocks))
        part = residual[block[0] : block[-1] + 1]
        if not weights.joint_errors(part, found[block]).any():
            continue  # nothing to gain: the root
        starts = {
            anchor: value[block[0], : 3 if 1 not in TIED[granularity] else 1] for anchor, value in anchors.items()
        }
        study, found[block] = _study(
            name, part, names, starts, float(optimum_mm[block].mean()), derive(seed, "blend", name), sampler, trials
        )
        studies.append(study)
    if progress is not None:
        progress("search", len(blocks), len(blocks))
    return Found(weights=found, trials=sum(len(study.trials) for study in studies), studies=tuple(studies))


def least_squares_anchors(residual: Float32, granularity: str, members: int | None = None) -> dict[str, Float64]:
    """Return where the search starts, [17, 3, M] each: the mean, then least squares ever less tied."""
    gram, _ = weights.weighted_gram(residual, None)
    anchors = {"mean": weights.equal_weights(len(residual), residual.shape[2], members)}
    finer = set(weights.tied_dimensions(granularity))
    for name, tied in TIED.items():
        if finer <= set(tied):
            anchors[f"least squares, {name}"] = weights.least_squares(gram, name)
    return anchors


def _study(
    name: str,
    residual: Float32,
    names: Sequence[str],
    starts: dict[str, Float64],
    optimum_mm: float,
    seed: int,
    sampler: str,
    trials: int,
) -> tuple[optuna.Study, Float64]:
    """Search one set of weights [A, M] for J joints, residuals [J, 3, M, N]; A is 3, or 1 where the axes are tied."""
    axes = len(starts["mean"])
    basis, named = _basis(starts, names)
    labels = [f"{axis} {candidate}" for axis in (AXES if axes == 3 else ("xyz",)) for candidate in named]
    space = {label: optuna.distributions.FloatDistribution(LOWEST, HIGHEST) for label in labels}
    points = {}
    for anchor, start in starts.items():
        share = _share(anchor, start, basis)
        points[anchor] = dict(zip(labels, _to_unit(share).ravel().tolist(), strict=True))
    best_mm, best = np.inf, starts["mean"]
    with _quiet():
        study = optuna.create_study(study_name=name, sampler=_sampler(sampler, seed, list(points.values())[-1]))
        study.set_user_attr("optimum_mm", optimum_mm)
        anchors = list(points.items())
        for number in range(max(trials, len(anchors))):
            if number < len(anchors):  # one by one: none is left waiting when the study stops
                study.enqueue_trial(anchors[number][1], user_attrs={"anchor": anchors[number][0]})
            trial = study.ask(fixed_distributions=space)
            params = trial.params  # a copy of all each time
            share = _to_simplex(np.array([params[label] for label in labels]).reshape(axes, -1))
            candidate = share @ basis
            spread = np.broadcast_to(candidate, (len(residual), 3, len(names)))
            error_mm = float(weights.joint_errors(residual, spread).mean())
            study.tell(trial, error_mm)
            if error_mm < best_mm:
                best_mm, best = error_mm, candidate
            if best_mm <= optimum_mm * (1 + GAP):
                break
    return study, best


def _basis(starts: dict[str, Float64], names: Sequence[str]) -> tuple[Float64, list[str]]:
    """Return what weights [A, M] are made of, [K, M], and the names of its rows: the candidates when they are few.

    Of many, which are mostly epochs of the same runs, those that least squares uses anywhere, and the mean: least
    squares is sparse, and the search is the faster and the nearer to the optimum the fewer unknowns it has.
    """
    if len(names) <= FEW:
        return np.eye(len(names)), list(names)
    used = np.max([start.max(axis=0) for anchor, start in starts.items() if anchor != "mean"], axis=0) > LEAST_SHARE
    basis = np.vstack([starts["mean"][:1], np.eye(len(names))[used]])
    return basis, ["mean", *(name for name, kept in zip(names, used, strict=True) if kept)]


def _share(anchor: str, start: Float64, basis: Float64) -> Float64:
    """Return the shares [A, K] of the basis in weights [A, M]; small ones of candidates outside of it are dropped."""
    if len(basis) == basis.shape[1]:
        return start
    if anchor == "mean":
        return np.tile(np.eye(len(basis))[0], (len(start), 1))
    return np.hstack([np.zeros((len(start), 1)), start @ basis[1:].T])


def _to_unit(simplex: Float64) -> Float64:
    """Scale weights [A, M] so that the largest of each axis is 1."""
    return np.asarray(simplex / simplex.max(axis=1, keepdims=True), np.float64)


def _to_simplex(unit: Float64) -> Float64:
    """Make weights [A, M] of any numbers; where none is above zero the mean."""
    positive = np.maximum(unit, 0)
    total = positive.sum(axis=1, keepdims=True)
    return np.where(total > 0, positive / np.where(total > 0, total, 1), 1 / unit.shape[1])


def _sampler(name: str, seed: int, start: dict[str, float]) -> optuna.samplers.BaseSampler:
    seed %= 1 << 31
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    step = SIGMA / (HIGHEST - LOWEST)  # optuna scales every range to 1
    return optuna.samplers.CmaEsSampler(
        x0=start, sigma0=step, popsize=POPULATION, seed=seed, warn_independent_sampling=False
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep optuna from logging every trial, and from warning of what is experimental, or goes with version 6.

    CMA-ES's start is among the latter, without a successor; requirements.txt pins the version that has it.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", message="`(x0|sigma0)` has been deprecated", category=FutureWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def journal(studies: Iterable[optuna.Study]) -> bytes:
    """Return studies as the content of a file that optuna opens by JournalStorage(JournalFileBackend(path)).

    Searching in memory and copying at the end costs a fraction of a journal that is synced to disk every trial.
    The sampler's inner state is left out: it is most of the bytes and nothing reads it again.
    """
    backend = _MemoryJournal()
    with _quiet():
        storage = optuna.storages.JournalStorage(backend)
        for study in studies:
            copy = optuna.create_study(study_name=study.study_name, storage=storage)
            for key, value in study.user_attrs.items():
                copy.set_user_attr(key, value)
            for trial in study.get_trials():
                trial.system_attrs = {}
                copy.add_trial(trial)
    return "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in backend.logs).encode()


class _MemoryJournal(BaseJournalBackend):  # type: ignore[misc]  # optuna isn't typed here
    """A journal that is kept in memory: one process, nothing to lock."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs.extend(logs)
