"""The command `tune`. Slow imports are inside the functions, so that --help answers at once."""

import logging
from typing import TYPE_CHECKING

import models
from competition.cli.hints import render
from competition.cli.tune_options import TuneOptions
from competition.common.console import active
from competition.common.errors import Command, FoldsError
from competition.common.workspace import Workspace

if TYPE_CHECKING:  # loads torch
    from competition.runs.studies import Study, Trial
    from competition.training.tune import Plan

log = logging.getLogger(__name__)


def tune(options: TuneOptions, workspace: Workspace) -> None:
    from competition.cli.search import parse_search
    from competition.cli.study_tables import importance_table, trials_table
    from competition.common.files import write_bytes
    from competition.runs.studies import LEAST_TRIALS, study_folder
    from competition.training.jobs import open_data
    from competition.training.space import make_space

    name = options.study or options.model.replace(".", "-")
    study_folder(workspace.submissions, name)
    chosen = None if options.search is None else parse_search(options.search, options.recipe)
    space = make_space(options.recipe, chosen)
    data = open_data(workspace)
    folds = _folds(options.fold, data.fold_numbers)
    log.info(f"study {name}: loading torch")
    from competition.report.study_picture import study_picture
    from competition.training.tune import Plan
    from competition.training.tune import tune as run

    plan = Plan(
        workspace=workspace,
        study=name,
        model=options.model,
        recipe=options.recipe,
        folds=folds,
        space=tuple(space),
        precision=options.precision,
        workers=options.workers,
        parallel=options.parallel,
    )
    study = run(plan, data, options.trials)
    best, own = study.best, study.own
    assert best is not None
    active().table(trials_table(study))
    if study.importance:
        active().table(importance_table(study))
    else:
        log.info(f"importance of the settings: needs at least {LEAST_TRIALS} completed trials")
    picture = study.folder / "study.png"
    write_bytes(picture, study_picture(study))
    log.info(f"picture: {picture}; optuna opens the study {name} from {study.folder / 'study.journal'}")
    compared = f", the recipe's own values {own.mpjpe:.2f} mm" if own is not None and own is not best else ""
    if own is best:
        log.info("no trial was better than the recipe's own values")
    log.info(f"best: trial {best.number}, {best.mpjpe:.2f} mm{compared}; the same as a run:")
    for command in train_commands(plan, study, best, data.fold_numbers):
        log.info(render(command, workspace))
    log.info(
        f"the best trial's out-of-fold error is optimistic, as the trial was chosen by it among {len(study.trials)}"
    )


def _folds(text: str, numbers: range) -> tuple[int, ...]:
    """Return the fold numbers of the flag --fold: all, or numbers separated by commas."""
    if text == "all":
        return tuple(numbers)
    known = {str(number): number for number in numbers}
    words = text.split(",")
    if not set(words) <= set(known) or len(set(words)) < len(words):
        raise FoldsError(f"fold {text}: expected {numbers[0]} to {numbers[-1]}, several separated by commas, or all")
    return tuple(known[word] for word in words)


def train_commands(plan: "Plan", study: "Study", trial: "Trial", numbers: range) -> list[Command]:
    """Return the commands that train a trial's network again, as an ordinary run with the same numbers."""
    from competition.training.device import choose_device, choose_precision
    from competition.training.space import with_params

    recipe, default = with_params(plan.recipe, trial.params), models.recipe(plan.model)
    changed = {name: value for name, value in vars(recipe).items() if value != getattr(default, name)}
    flags = dict(_flag(name, value) for name, value in changed.items())
    if study.config.precision != choose_precision("auto", choose_device()):
        flags["precision"] = study.config.precision
    folds = ["all"] if plan.folds == tuple(numbers) and len(numbers) > 1 else [str(fold) for fold in plan.folds]
    run = f"{study.name}-{trial.run}"
    return [Command("train", {"model": plan.model, "fold": fold, "run": run, **flags}) for fold in folds]


def _flag(name: str, value: object) -> tuple[str, str]:
    """Return a flag and its value on the command line; "" for a switch."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return flag if value else f"no-{flag}", ""
    return flag, ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)
