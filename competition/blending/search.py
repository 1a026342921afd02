"""The Optuna search for weights: one small study per joint, started at least squares.

The errors of joints are independent, so each study has only 3 M unknowns; one study over all weights would need far
more trials.

    parameters of a trial   u, one per axis and candidate; the weights are w = max(u, 0) / sum max(u, 0)
    enqueued trials         the mean, then least squares with fewer and fewer shared weights; the best trial is at
                            least as good as all of them
    CMA-ES                  starts from the joint's least squares, as it doesn't learn from enqueued trials
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
from competition.common.skeleton import AXES, JOINTS

GAP = 0.0005  # relative to the optimum, where a study stops
TRIALS = 200  # per study; most stop well before
LOWEST, HIGHEST = -0.5, 1.5  # of u; least squares often lies at 0 or 1, and CMA-ES resamples at bounds
SIGMA = 0.02  # first step of CMA-ES, where the largest u of an axis is 1; least squares is near the optimum
POPULATION = 8  # per generation; below the default of CMA-ES, so that more generations fit into the trials
FEW = 8  # up to so many candidates, all are searched
LEAST_SHARE = 1e-3  # in least squares; candidates below it aren't searched if there are many


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
    anchors = least_squares_anchors(problem.residual, granularity, problem.members)
    found = anchors["mean"].copy()
    studies = []
    with bar(f"search, {granularity}", len(blocks)) as advance:
        for block in blocks:
            name = "all joints" if joints_tied else JOINTS[block.start]
            advance(0, name)
            part = replace(problem, residual=problem.residual[block])
            if weights.joint_errors(part.residual, found[block]).any():  # the root has no error
                starts = {
                    anchor: value[block.start, : 3 if 1 not in TIED[granularity] else 1]
                    for anchor, value in anchors.items()
                }
                best_mm = float(optimum_mm[block].mean())
                study, found[block] = _study(f"{granularity} {name}", part, starts, best_mm, trials)
                studies.append(study)
            advance(1, "")
    return SearchResult(weights=found, trials=sum(len(study.trials) for study in studies), studies=tuple(studies))


def least_squares_anchors(residual: Float32, granularity: str, members: int | None = None) -> dict[str, Float64]:
    """Return the starting weights by name, [17, 3, M] each: the mean, then least squares from tied to free weights."""
    gram, _ = weights.weighted_gram(residual, None)
    anchors = {"mean": weights.equal_weights(len(residual), residual.shape[2], members)}
    finer = set(weights.tied_dimensions(granularity))
    for name, tied in TIED.items():
        if finer <= set(tied):
            anchors[f"least squares, {name}"] = weights.least_squares(gram, name)
    return anchors


def _study(
    name: str, problem: Problem, starts: dict[str, Float64], optimum_mm: float, trials: int
) -> tuple[optuna.Study, Float64]:
    """Search one set of weights [A, M] for J joints, residuals [J, 3, M, N]; A is 3, or 1 if axes are tied."""
    axes = len(starts["mean"])
    basis, named = _basis(starts, problem.names)
    labels = [f"{axis} {candidate}" for axis in (AXES if axes == 3 else ("xyz",)) for candidate in named]
    space = {label: optuna.distributions.FloatDistribution(LOWEST, HIGHEST) for label in labels}
    points = {}
    for anchor, start in starts.items():
        share = _share(anchor, start, basis)
        points[anchor] = dict(zip(labels, _to_unit(share).ravel().tolist(), strict=True))
    best_mm, best = np.inf, starts["mean"]
    seed = derive(problem.seed, "blend", name) % (1 << 31)
    with _quiet():
        sampler = SAMPLERS[problem.sampler](seed, list(points.values())[-1])
        study = optuna.create_study(study_name=name, sampler=sampler)
        study.set_user_attr("optimum_mm", optimum_mm)
        anchors = list(points.items())
        for number in range(max(trials, len(anchors))):
            if number < len(anchors):  # one at a time, so that none is pending when the study stops
                study.enqueue_trial(anchors[number][1], user_attrs={"anchor": anchors[number][0]})
            trial = study.ask(fixed_distributions=space)
            params = trial.params  # the property copies the dict
            share = _to_simplex(np.array([params[label] for label in labels]).reshape(axes, -1))
            candidate = share @ basis
            spread = np.broadcast_to(candidate, (len(problem.residual), 3, len(problem.names)))
            error_mm = float(weights.joint_errors(problem.residual, spread).mean())
            study.tell(trial, error_mm)
            if error_mm < best_mm:
                best_mm, best = error_mm, candidate
            if best_mm <= optimum_mm * (1 + GAP):
                break
    return study, best


def _basis(starts: dict[str, Float64], names: Sequence[str]) -> tuple[Float64, list[str]]:
    """Return the basis [K, M] of the searched weights and the names of its rows: the candidates, if they are few.

    If there are many (mostly epochs of the same runs), the basis is the mean and the candidates that least squares
    uses: least squares is sparse, and fewer unknowns make the search faster and more precise.
    """
    if len(names) <= FEW:
        return np.eye(len(names)), list(names)
    used = np.max([start.max(axis=0) for anchor, start in starts.items() if anchor != "mean"], axis=0) > LEAST_SHARE
    basis = np.vstack([starts["mean"][:1], np.eye(len(names))[used]])
    return basis, ["mean", *(name for name, kept in zip(names, used, strict=True) if kept)]


def _share(anchor: str, start: Float64, basis: Float64) -> Float64:
    """Convert weights [A, M] to shares [A, K] of the basis; weights of candidates outside the basis are dropped."""
    if len(basis) == basis.shape[1]:
        return start
    if anchor == "mean":
        return np.tile(np.eye(len(basis))[0], (len(start), 1))
    return np.hstack([np.zeros((len(start), 1)), start @ basis[1:].T])


def _to_unit(simplex: Float64) -> Float64:
    """Scale weights [A, M] so that the largest of each axis is 1."""
    return np.asarray(simplex / simplex.max(axis=1, keepdims=True), np.float64)


def _to_simplex(unit: Float64) -> Float64:
    """Convert any numbers [A, M] to weights; equal weights if none is positive."""
    positive = np.maximum(unit, 0)
    total = positive.sum(axis=1, keepdims=True)
    return np.where(total > 0, positive / np.where(total > 0, total, 1), 1 / unit.shape[1])


def _cma_es(seed: int, start: dict[str, float]) -> optuna.samplers.BaseSampler:
    step = SIGMA / (HIGHEST - LOWEST)  # optuna scales every range to 1
    return optuna.samplers.CmaEsSampler(
        x0=start, sigma0=step, popsize=POPULATION, seed=seed, warn_independent_sampling=False
    )


def _tpe(seed: int, _start: dict[str, float]) -> optuna.samplers.BaseSampler:
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
