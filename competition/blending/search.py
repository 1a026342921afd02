"""The Optuna search for weights: one small study per joint, started at least squares.

The errors of joints are independent, so each study has at most 3 (M - 1) unknowns; one study over all weights would
need far more trials.

    start                   the best of the mean, least squares with fewer and fewer shared weights, and least squares
                            with each row weighted by 1 / error once
    parameters of a trial   z, one per direction; the weights are w = max(start + z directions, 0), rescaled to sum to 1
    directions              along each, the error grows alike: the principal axes of the error's second derivative.
                            Without them, candidates that differ little (epochs of a run) make the search stall
    stopping rule           GAP above the certified optimum; the search gets its value, never its weights
"""

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import optuna
from optuna.storages.journal import BaseJournalBackend

from competition.blending import weights
from competition.blending.problem import Problem
from competition.blending.weights import TIED
from competition.common.arrays import Float32, Float64
from competition.common.choices import one_of
from competition.common.console import bar
from competition.common.seeds import derive
from competition.common.skeleton import JOINTS

GAP = 0.0005  # relative to the optimum, where a study stops
TRIALS = 1000  # per study; nearly all stop well before
SIGMA = 0.3  # first step of CMA-ES, where 1 is the estimated distance to the optimum
BOUND = 10.0  # of z, likewise
LEAST_SHARE = 1e-3  # candidates below it don't count as used
LEAST_LOSS = 0.002  # relative; unused candidates whose weight would cost more than this aren't searched
MOST_DIRECTIONS = 30  # per study, as trials become slow
FLATTEST = 1e-4  # relative to the largest second derivative; along flatter directions, steps are no longer


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The result of all studies of one granularity."""

    weights: Float64  # [17, 3, M]
    trials: int  # in all studies
    studies: tuple[optuna.Study, ...]


def search(
    problem: Problem, optimum_mm: Float64, granularity: str = "coordinate", *, trials: int = TRIALS
) -> SearchResult:
    """Search the weights [17, 3, M] with the lowest error on the rows of a problem.

    `optimum_mm` [17] holds each joint's mean error at the exact optimum of the same rows and granularity.
    """
    one_of("sampler", list(SAMPLERS))(problem.sampler)
    joints = len(problem.residual)
    joints_tied = 0 in weights.tied_dimensions(granularity)
    blocks = [slice(0, joints)] if joints_tied else [slice(joint, joint + 1) for joint in range(joints)]
    starts = starting_weights(problem.residual, granularity)
    found = starts["mean"].copy()
    studies = []
    with bar(f"search, {granularity}", len(blocks)) as advance:
        for block in blocks:
            name = "all joints" if joints_tied else JOINTS[block.start]
            advance(0, name)
            part = replace(problem, residual=problem.residual[block])
            if weights.joint_errors(part.residual, found[block]).any():  # the root has no error
                axes = slice(1 if 1 in TIED[granularity] else 3)
                of_block = {start: value[block.start, axes] for start, value in starts.items()}
                best_mm = float(optimum_mm[block].mean())
                study, found[block] = _study(f"{granularity} {name}", part, of_block, best_mm, trials)
                studies.append(study)
            advance(1, "")
    return SearchResult(weights=found, trials=sum(len(study.trials) for study in studies), studies=tuple(studies))


def starting_weights(residual: Float32, granularity: str) -> dict[str, Float64]:
    """Return starting weights by name, [17, 3, M] each: the mean, and least squares from tied to free weights."""
    gram, _ = weights.weighted_gram(residual, None)
    starts = {"mean": weights.equal_weights(len(residual), residual.shape[2])}
    finer = set(weights.tied_dimensions(granularity))
    for name, tied in TIED.items():
        if finer <= set(tied):
            starts[f"least squares, {name}"] = weights.least_squares(gram, name)
    reweighted, _ = weights.weighted_gram(residual, starts[f"least squares, {granularity}"])
    return starts | {"least squares, reweighted": weights.least_squares(reweighted, granularity)}


def _study(
    name: str, problem: Problem, starts: dict[str, Float64], optimum_mm: float, trials: int
) -> tuple[optuna.Study, Float64]:
    """Search one set of weights [A, M] for J joints, residuals [J, 3, M, N]; A is 3, or 1 if axes are tied."""

    def error_of(found: Float64) -> float:
        spread = np.broadcast_to(found, (len(problem.residual), 3, len(problem.names)))
        return float(weights.joint_errors(problem.residual, spread).mean())

    errors_mm = {start: error_of(value) for start, value in starts.items()}
    nearest = min(errors_mm, key=lambda start: errors_mm[start])
    start, best, best_mm = starts[nearest], starts[nearest], errors_mm[nearest]
    directions = _directions(problem.residual, start)  # [K, A, M]
    # the error is about optimum (1 + |z|^2 / 2), z being measured from the optimum
    distance = float(np.sqrt(2 * max(best_mm / optimum_mm - 1, GAP))) if optimum_mm > 0 else 1.0
    labels = [f"direction {number}" for number in range(1, len(directions) + 1)]
    space = {label: optuna.distributions.FloatDistribution(-BOUND * distance, BOUND * distance) for label in labels}
    seed = derive(problem.seed, "blend", name) % (1 << 31)
    with _quiet():
        study = optuna.create_study(study_name=name, sampler=SAMPLERS[problem.sampler](seed, labels))
        study.enqueue_trial(dict.fromkeys(labels, 0.0), user_attrs={"start": nearest})
        for _ in range(trials if labels else 1):
            trial = study.ask(fixed_distributions=space)
            params = trial.params  # the property copies the dict
            tried = _to_simplex(start + np.tensordot([params[label] for label in labels], directions, 1))
            error_mm = error_of(tried)
            study.tell(trial, error_mm)
            if error_mm < best_mm:
                best_mm, best = error_mm, tried
            if best_mm <= optimum_mm * (1 + GAP):
                break
        study.set_user_attr("optimum_mm", optimum_mm)
        study.set_user_attr("starts_mm", errors_mm)
        study.set_user_attr("weights", dict(zip(problem.names, best.T.tolist(), strict=True)))  # of x, y, z
    return study, best


def _directions(residual: Float32, start: Float64) -> Float64:
    """Return directions [K, A, M] from weights [A, M], residuals [J, 3, M, N]; each keeps the sum of weights.

    A step of 1 along any of them raises the error by about half of its value, by a quadratic estimate.
    Candidates with no weight at the start are left out if any weight would raise the error much, and of many
    directions those that promise least.
    """
    axes, candidates = start.shape
    gram, error = weights.weighted_gram(residual, np.broadcast_to(start, (len(residual), 3, candidates)))
    curvature = gram.mean(axis=0) if axes == 3 else gram.mean(axis=0).sum(axis=0, keepdims=True)  # [A, M, M]
    found = [np.zeros((0, axes, candidates))]
    promise = [np.zeros(0)]  # how much the error would fall along each, if it were quadratic
    for axis in range(axes):
        slope = curvature[axis] @ start[axis]
        loss = slope - slope @ start[axis]
        kept = np.flatnonzero((start[axis] > LEAST_SHARE) | (loss < LEAST_LOSS * error.mean()))
        if len(kept) < 2:
            continue
        ones = np.column_stack([np.ones(len(kept)), np.eye(len(kept))[:, 1:]])
        basis = np.linalg.qr(ones)[0][:, 1:]  # of the changes that keep the sum
        values, vectors = np.linalg.eigh(basis.T @ curvature[axis][np.ix_(kept, kept)] @ basis)
        lengths = np.sqrt(error.mean() / np.maximum(values, FLATTEST * values.max()))
        of_axis = np.zeros((len(lengths), axes, candidates))
        of_axis[:, axis, kept] = (basis @ vectors * lengths).T
        found.append(of_axis)
        promise.append(np.square(of_axis[:, axis] @ slope))
    best = np.sort(np.argsort(-np.concatenate(promise), kind="stable")[:MOST_DIRECTIONS])
    return np.concatenate(found)[best]


def _to_simplex(values: Float64) -> Float64:
    """Convert numbers [A, M] that sum to 1 to weights."""
    positive = np.maximum(values, 0)
    return np.asarray(positive / positive.sum(axis=1, keepdims=True))


def _cma_es(seed: int, labels: Sequence[str]) -> optuna.samplers.BaseSampler:
    # optuna scales every range to 1, and BOUND is half of it
    step = SIGMA / (2 * BOUND * max(1, len(labels)) ** 0.5)
    start = dict.fromkeys(labels, 0.0)
    return optuna.samplers.CmaEsSampler(x0=start, sigma0=step, seed=seed, warn_independent_sampling=False)


def _tpe(seed: int, _labels: Sequence[str]) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed)


SAMPLERS: Final = {"cmaes": _cma_es, "tpe": _tpe}  # by the names in methods.py


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence optuna's log lines per trial and its warnings about experimental and deprecated features.

    The start of CMA-ES (x0, sigma0) is deprecated without a successor; requirements.txt pins a version that has it.
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
    """Return studies as the content of a file that optuna opens with JournalStorage(JournalFileBackend(path)).

    Copying at the end is much faster than a journal that is synced to disk at every trial. The sampler's state is left
    out: it is most of the bytes and isn't read again.
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


class _MemoryJournal(BaseJournalBackend):  # type: ignore[misc]  # optuna has no types
    """A journal in memory, for one process, without locks."""

    def __init__(self) -> None:
        self.logs: list[dict[str, object]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, object]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, object]]) -> None:
        self.logs.extend(logs)
