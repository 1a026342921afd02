"""Draws the settings of a study's trials."""

from collections.abc import Sequence
from typing import Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from competition.common.seeds import derive
from competition.runs.studies import Param, Value

STARTUP_TRIALS: Final = 8  # random ones; of 30 trials, most are left to the model
ATTEMPTS: Final = 50  # to find settings that no trial has


class FreshSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]  # optuna has no types
    """TPE whose draws depend only on the seed, the number of the trial and the other trials, running ones included.

    So a resumed study continues as if it hadn't been interrupted, and processes with the same seed draw different
    settings. It draws again while another trial has the same ones.
    """

    def __init__(self, space: Sequence[Param], seed: int) -> None:
        self.space = space
        self.seed = seed

    def infer_relative_search_space(self, _study: optuna.Study, _trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {param.name: distribution(param) for param in self.space}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Value]:
        others = [other.params for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        for attempt in range(ATTEMPTS):
            seed = derive(self.seed, "tune", trial.number, attempt) % (1 << 31)
            tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
            joint = tpe.sample_relative(study, trial, tpe.infer_relative_search_space(study, trial))
            drawn: dict[str, Value] = {}
            for param in self.space:
                if param.is_used(drawn):
                    known = search_space[param.name]
                    drawn[param.name] = (
                        joint[param.name]
                        if param.name in joint
                        else tpe.sample_independent(study, trial, param.name, known)
                    )
            if drawn not in others:
                break
        return drawn

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Value:
        seed = derive(self.seed, "tune", trial.number, param_name) % (1 << 31)
        value: Value = optuna.samplers.RandomSampler(seed=seed).sample_independent(
            study, trial, param_name, param_distribution
        )
        return value


def distribution(param: Param) -> BaseDistribution:
    """Return a parameter's distribution in optuna."""
    if param.low is None or param.high is None:
        return CategoricalDistribution(param.values)
    if param.whole:
        return IntDistribution(int(param.low), int(param.high), log=param.log)
    return FloatDistribution(param.low, param.high, log=param.log)


def suggest(trial: optuna.Trial, param: Param) -> None:
    """Choose the value of a parameter, unless the trial has one."""
    if param.low is None or param.high is None:
        trial.suggest_categorical(param.name, param.values)
    elif param.whole:
        trial.suggest_int(param.name, int(param.low), int(param.high), log=param.log)
    else:
        trial.suggest_float(param.name, param.low, param.high, log=param.log)
