"""The options of the command `tune`, as in `options`."""

from dataclasses import dataclass
from typing import Annotated

import models
from competition.cli.flags import Flag
from competition.cli.options import MAX_PROCESSES, Workers
from competition.common.choices import within
from competition.training.options import PRECISIONS
from models.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Search a model's settings with optuna; the study resumes, and several processes and machines can share it."""

    model: Annotated[str, Flag(f"model to tune: {', '.join(models.names())}", metavar="NAME")]
    recipe: Recipe  # the model's, with the settings that are flags of `tune`: the first trial
    trials: Annotated[
        int,
        Flag(
            "number of trials of the whole study, by all processes",
            metavar="N",
            parse=within(1, 10_000, "--trials", int),
        ),
    ] = 30
    fold: Annotated[
        str,
        Flag(
            "folds that trials are judged on, separated by commas, or all; they are pruned on the first",
            metavar="K|all",
        ),
    ] = "0"
    study: Annotated[
        str | None,
        Flag("name of the study, and of its folder SUBMISSIONS/.tune/NAME; the model's when unset", metavar="NAME"),
    ] = None
    search: Annotated[
        str | None,
        Flag(
            "settings to search, each with a range (low:high) or values (a/b) unless the declared ones are wanted, "
            "such as lr=1e-4:1e-2,schedule=constant/cosine,ema; when unset, all those with declared ranges or values",
            metavar="A,B",
        ),
    ] = None
    parallel: Annotated[
        int | None,
        Flag(
            "number of trials to train at the same time, each on a share of the cores or on one GPU; when unset, one "
            "per core for small models on a CPU, which use one thread each, otherwise 1",
            metavar="N",
            parse=within(1, MAX_PROCESSES, "--parallel", int),
        ),
    ] = None
    precision: Annotated[
        str,
        Flag("precision of matrix products and convolutions, as in train", choices=PRECISIONS),
    ] = PRECISIONS[0]
    workers: Workers = None
