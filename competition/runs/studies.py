"""Studies: searches for a recipe's settings. Their folders are hidden, so that their trials aren't listed as runs.

SUBMISSIONS/.tune/<study>/  study.json, study.journal, study.png, one run per trial (trial-000, trial-001, ...)
"""

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from competition.common.errors import RunError, UserError
from competition.common.records import read_record
from competition.runs.provenance import PARTS, Provenance, other_parts
from competition.runs.record import Setting

FOLDER: Final = ".tune"
JOURNAL: Final = "study.journal"
CONFIG: Final = "study.json"
OWN_VALUES: Final = "own_values"  # attribute of the trial with the recipe's own values
REASON: Final = "reason"  # attribute: why a trial failed, or was pruned
SAME_AS: Final = "same_as"  # attribute: the number of the trial with the same settings, whose result it repeats
BEST_SHARE: Final = 0.25  # of the completed trials: importance is that for being among them
SHOWN: Final = 2.0  # charts end at this many times the lowest error
LEAST_TRIALS: Final = 4  # completed ones, for an estimate of importance
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_STATES: Final = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}

Value: TypeAlias = bool | int | float | str | None


@dataclass(frozen=True, kw_only=True)
class Param:
    """A parameter of a study: a setting of the recipe, or a switch `use_NAME` of the setting NAME.

    It has `values`, or a range from `low` to `high`, both included. With `needs`, it is searched only where the
    parameter of that name has `needs_value`; elsewhere the setting keeps the recipe's own value.
    """

    name: str
    values: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False  # search the range on a logarithmic scale
    whole: bool = False  # only whole numbers
    needs: str = ""
    needs_value: bool | str = True

    def is_used(self, params: Mapping[str, Any]) -> bool:
        """Return whether the parameter applies, given the values of those before it."""
        return not self.needs or params.get(self.needs) == self.needs_value

    def __str__(self) -> str:
        return f"{self.name}={'/'.join(map(str, self.values)) or f'{self.low:g}:{self.high:g}'}"


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """study.json: everything that the errors of a study's trials depend on, besides the searched settings."""

    FORMAT: ClassVar[int] = 1

    model: str
    settings: dict[str, Setting]  # the recipe's own
    precision: str  # fp32 or bf16
    space: list[Param]
    folds: list[int]
    seed: int
    provenance: Provenance

    def differences(self, other: "StudyConfig", data: Path, folds: Path) -> list[str]:
        """Describe how a study with another configuration, on the data and folds in these folders, would differ."""
        parts = [f"{PARTS[part]} {folds if part == 'folds_sha256' else data}"
                 for part in other_parts(self.provenance, other.provenance)]  # fmt: skip
        names = sorted(self.settings.keys() | other.settings.keys())
        pairs: dict[str, tuple[object, object]] = {
            "model": (self.model, other.model),
            "folds": (self.folds, other.folds),
            "seed": (self.seed, other.seed),
            "precision": (self.precision, other.precision),
            **{name: (self.settings.get(name), other.settings.get(name)) for name in names},
            "search": (",".join(map(str, self.space)), ",".join(map(str, other.space))),
        }
        if self.model != other.model:
            pairs = {"model": pairs["model"]}  # all others follow from it
        return [f"{name} {one} -> {two}" for name, (one, two) in pairs.items() if one != two] + parts


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial of a study. Errors are out-of-fold MPJPE in mm."""

    number: int
    state: str  # complete, pruned, failed or running
    mpjpe: float | None  # of a completed trial: over all folds, at the best epoch
    params: dict[str, Value]
    curve: dict[int, float] = field(default_factory=dict)  # of the first fold, by epoch
    reason: str = ""  # why it failed or was pruned; "" for the pruner's decision
    same_as: int | None = None
    own_values: bool = False  # of the recipe

    @property
    def run(self) -> str:
        return trial_run(self.number)

    @property
    def last_mm(self) -> float | None:
        """The error of a completed trial; of others, that of the first fold after their last epoch."""
        return self.mpjpe if self.mpjpe is not None else next(reversed(self.curve.values()), None)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study with its trials, by number."""

    folder: Path
    config: StudyConfig
    trials: list[Trial]
    importance: dict[str, float]  # by parameter, the largest first; they sum to 1; empty with too few trials

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def best(self) -> Trial | None:
        """The completed trial with the lowest error, the first on a tie."""
        complete = [trial for trial in self.trials if trial.mpjpe is not None]
        return min(complete, key=lambda trial: trial.mpjpe or 0.0) if complete else None

    @property
    def own(self) -> Trial | None:
        """The completed trial with the recipe's own values."""
        return next((trial for trial in self.trials if trial.own_values and trial.mpjpe is not None), None)

    @property
    def best_so_far(self) -> list[tuple[int, float]]:
        """The lowest error after each completed trial, by number; the last one again at the end of the study."""
        found: list[tuple[int, float]] = []
        for trial in self.trials:
            if trial.mpjpe is not None:
                found.append((trial.number, min([trial.mpjpe, *(lowest for _, lowest in found)])))
        return [*found, (self.trials[-1].number, found[-1][1])] if found else []

    def count(self, state: str) -> int:
        return sum(trial.state == state for trial in self.trials)

    def slice(self, name: str) -> list[tuple[str, Value, float]]:
        """Return the state, the value of a parameter and the last error of each trial that has both."""
        found = [one for one in self.trials if name in one.params]
        return [(one.state, one.params[name], one.last_mm) for one in found if one.last_mm is not None]

    def is_numeric(self, name: str) -> bool:
        """Return whether a parameter has a range."""
        return any(param.name == name and param.low is not None for param in self.config.space)

    def words(self, name: str) -> list[str]:
        """Return the texts of a parameter's values in their order; empty for a range."""
        return [value_text(value) for param in self.config.space if param.name == name for value in param.values]

    @property
    def highest_shown(self) -> float | None:
        """The highest error that charts show: higher ones, of diverging trials, would hide the differences."""
        return None if self.best is None or self.best.mpjpe is None else SHOWN * self.best.mpjpe

    def is_logarithmic(self, name: str) -> bool:
        return any(param.name == name and param.log for param in self.config.space)


def trial_run(number: int) -> str:
    """Return the name of a trial's run."""
    return f"trial-{number:03d}"


def describe_params(params: Mapping[str, Value]) -> str:
    """Describe a trial's parameters in one line."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in params.items())


def value_text(value: Value) -> str:
    """Format a value, numbers with four digits."""
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "none"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def study_folder(submissions: Path, name: str) -> Path:
    """Return the folder of a study; raise UserError for a name that isn't a plain folder name."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"study {name[:60]!r}: expected letters, digits, '_' and '-', at most 64, the first a letter or digit"
        )
    return submissions / FOLDER / name


def study_folders(submissions: Path) -> list[Path]:
    """List the folders of studies that have a journal."""
    return sorted(path.parent for path in (submissions / FOLDER).glob(f"*/{JOURNAL}"))


def open_storage(folder: Path) -> Any:
    """Open the journal of a study, which is created if it is missing; raise RunError if it is damaged."""
    import optuna

    path = (folder / JOURNAL).resolve()  # a relative path would keep optuna from releasing the lock of a killed process
    try:
        with quiet_optuna():
            return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise RunError(
            f"{folder / JOURNAL} is not a readable journal of optuna ({reason})", fix="choose another --study"
        ) from None


def study_name(storage: Any, folder: Path) -> str:
    """Return the name of the study in a journal: its folder's, unless that was renamed."""
    import optuna

    names: list[str] = optuna.get_all_study_names(storage)
    return names[0] if names else folder.name


def read_study(folder: Path) -> Study:
    """Read a study with all its trials."""
    import optuna

    config = read_record(StudyConfig, folder / CONFIG, what="study")
    if not (folder / JOURNAL).exists():
        raise RunError(f"study {folder.name}: no such file: {folder / JOURNAL}", fix="choose another --study")
    with quiet_optuna():
        storage = open_storage(folder)
        if not optuna.get_all_study_names(storage):
            raise RunError(f"study {folder.name}: {folder / JOURNAL} is empty", fix="run the same command again")
        study = optuna.load_study(study_name=study_name(storage, folder), storage=storage)
        trials = [
            Trial(
                number=found.number,
                state=_STATES[found.state.name],
                mpjpe=found.value if found.state.name == "COMPLETE" else None,
                params=found.params,
                curve=dict(sorted(found.intermediate_values.items())),
                reason=found.user_attrs.get(REASON, ""),
                same_as=found.user_attrs.get(SAME_AS),
                own_values=found.user_attrs.get(OWN_VALUES, False),
            )
            for found in study.get_trials(deepcopy=False)
            if found.state.name in _STATES
        ]
        return Study(folder=folder, config=config, trials=trials, importance=_importance(study, trials))


def _importance(study: Any, trials: list[Trial]) -> dict[str, float]:
    import optuna

    if sum(trial.mpjpe is not None for trial in trials) < LEAST_TRIALS:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence optuna's log lines, and its warnings about experimental features and few trials."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="optuna")
            warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", message=".*importance.*|.*regimes.*")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
