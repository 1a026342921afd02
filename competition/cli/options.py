"""The options of every subcommand: one dataclass each, whose docstring is the help of the subcommand.

The folders and the seed, which most subcommands use, are in the Workspace.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import models
from competition.blending.options import GRANULARITIES, METHODS, SAMPLERS
from competition.cli.flags import Flag
from competition.common.choices import Box, check_epochs, parse_box, within
from competition.training.options import PRECISIONS
from models.recipes import DECODERS, Recipe

WORKSPACE: Final = {
    "data": Flag("folder of the competition's images and labels", metavar="DIR"),
    "folds": Flag("folder of folds.csv", metavar="DIR"),
    "submissions": Flag("folder of runs, blends and scores", metavar="DIR"),
    "seed": Flag("root seed, from which all random numbers derive", metavar="N"),
}
MAX_PROCESSES: Final = 512  # more are a mistake, which would make the machine unusable
Workers = Annotated[
    int | None,
    Flag(
        "number of processes that load images, 0: none; when unset, chosen for the device",
        metavar="N",
        parse=within(0, MAX_PROCESSES, "--workers", int),
    ),
]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Generate a synthetic competition."""

    n: Annotated[int, Flag("number of training images", metavar="N")] = 6000
    n_test: Annotated[int, Flag("number of test images", metavar="N")] = 1500
    workers: Annotated[
        int | None,
        Flag(
            "number of processes that generate images; one per core when unset",
            metavar="N",
            parse=within(1, MAX_PROCESSES, "--workers", int),
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Validate a competition's folder; exit code 2 if problems would make results wrong (warnings give 0)."""

    all: Annotated[bool, Flag("decode every image instead of a sample of 20,000")] = False
    json: Annotated[Path | None, Flag("also write the findings as JSON", metavar="FILE")] = None


@dataclass(frozen=True, kw_only=True)
class FoldsOptions:
    """Assign the training images to folds."""

    strategy: Annotated[
        str,
        Flag(
            "hold out whole subjects, whole sequences, or random images (holdout: neighbouring frames leak)",
            metavar="subject|sequence|holdout",
        ),
    ] = "subject"
    k: Annotated[
        int | None,
        Flag(
            "number of folds; when unset, one per subject, or up to 5 with --strategy sequence; holdout always has one",
            metavar="K",
        ),
    ] = None
    force: Annotated[bool, Flag("overwrite folds even when runs were trained on them")] = False


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a model on one fold or all."""

    model: Annotated[str, Flag(f"model to train: {', '.join(models.names())}", metavar="NAME")]
    recipe: Recipe  # the model's, with the settings that are flags of `train`
    fold: Annotated[
        str,
        Flag(
            "fold to hold out; all: train every fold; full: train on every image, hold out nothing",
            metavar="K|all|full",
        ),
    ] = "all"
    run: Annotated[
        str | None,
        Flag("name of the run, and of its folder under --submissions; the model's name when unset", metavar="NAME"),
    ] = None
    parallel: Annotated[
        int | None,
        Flag(
            "number of folds to train at the same time, each on a share of the cores or on one GPU (not with --gpus); "
            "when unset, one per core for small models on a CPU, which use one thread each, otherwise 1",
            metavar="N",
            parse=within(1, MAX_PROCESSES, "--parallel", int),
        ),
    ] = None
    precision: Annotated[
        str,
        Flag(
            "precision of matrix products and convolutions; auto: bf16 if the GPU or CPU has instructions for it "
            "(on a CPU: AMX-BF16, AVX512-BF16 or ARM's BF16), otherwise fp32",
            choices=PRECISIONS,
        ),
    ] = PRECISIONS[0]
    gpus: Annotated[int | None, Flag("train each fold on N GPUs (DDP)", metavar="N")] = None
    compile: Annotated[
        bool, Flag("compile the network with torch.compile: a slow start, then faster steps (not hourglasses on a GPU)")
    ] = False
    sync_batch_norm: Annotated[bool, Flag("compute batch-normalisation statistics over all GPUs (with --gpus)")] = False
    checkpoint_minutes: Annotated[
        float,
        Flag(
            "minutes between checkpoints within an epoch",
            metavar="M",
            parse=within(0.0, None, "--checkpoint-minutes", float),
        ),
    ] = 30.0
    init: Annotated[str | None, Flag("run whose best weights initialise the network", metavar="RUN")] = None
    workers: Workers = None


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Predict the data set again with a run's weights and store a new run (such as RUN-argmax, RUN-flip or RUN-again),
    or predict one photo.
    """

    run: Annotated[str, Flag("run whose weights are used", metavar="NAME")]
    epoch: Annotated[
        int | None, Flag("epoch whose weights are used; the best epoch of each fold when unset", metavar="N")
    ] = None
    flip: Annotated[
        bool | None, Flag("average the predictions for an image and its mirror image; as in training when unset")
    ] = None
    decoder: Annotated[
        str | None, Flag("method that reads coordinates from heatmaps; as in training when unset", choices=DECODERS)
    ] = None
    workers: Workers = None
    image: Annotated[Path | None, Flag("predict this photo instead of the data set", metavar="FILE")] = None
    box: Annotated[
        Box | None,
        Flag(
            "x, y, width and height of a box tight around the joints, in pixels; the whole photo when unset",
            metavar="X,Y,W,H",
            parse=parse_box,
        ),
    ] = None
    out: Annotated[
        Path | None, Flag("folder for the photo's results; SUBMISSIONS/RUN/photos when unset", metavar="DIR")
    ] = None


@dataclass(frozen=True, kw_only=True)
class BlendOptions:
    """Blend the runs into one submission."""

    runs: Annotated[str | None, Flag("runs to blend, separated by commas; all when unset", metavar="A,B")] = None
    epochs: Annotated[
        str,
        Flag(
            "epochs of each run to blend: best, last, all, or numbers such as 3,4",
            metavar="best|last|all|3,4",
            parse=check_epochs,
        ),
    ] = "best"
    method: Annotated[
        str,
        Flag(
            "method that chooses the weights; optuna: search, joint by joint if weights differ by joint; exact: "
            "convex optimum; greedy: repeated selection of candidates; mean, median: no weights are fitted",
            choices=METHODS,
        ),
    ] = METHODS[0]
    granularity: Annotated[
        str,
        Flag(
            "global: one weight per candidate; axis, joint: one per axis or joint; coordinate: one per joint and "
            "axis; auto: with --method optuna chosen by cross-validation, which may also choose the mean, otherwise "
            "coordinate",
            choices=GRANULARITIES,
        ),
    ] = GRANULARITIES[0]
    stack: Annotated[
        bool | None,
        Flag("ship a second level, a regression that corrects the blended poses; when unset, cross-validation chooses"),
    ] = None
    views: Annotated[
        bool, Flag("fuse poses with those of other cameras at the same take and frame, which rules may forbid")
    ] = False
    files: Annotated[tuple[Path, ...] | None, Flag("submission files to blend instead of runs", metavar="CSV")] = None
    shares: Annotated[
        tuple[float, ...] | None,
        Flag(
            "weights of the --files, normalised to sum to 1; --method mean or median applies when unset", metavar="A,B"
        ),
    ] = None
    refit: Annotated[
        bool,
        Flag(
            "use the test poses of networks trained with --fold full; the weights are still fitted on out-of-fold poses"
        ),
    ] = False
    sampler: Annotated[str, Flag("sampler of the Optuna search", choices=SAMPLERS)] = SAMPLERS[0]
    out: Annotated[Path | None, Flag("folder of the blend; SUBMISSIONS/blend when unset", metavar="DIR")] = None


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Score submission files against the hidden answers of a synthetic competition."""

    file: Annotated[tuple[Path, ...] | None, Flag("submission files to score; the blend when unset", metavar="CSV")] = (
        None
    )
    strict: Annotated[
        bool,
        Flag("also reject implausible poses, as submit does (root not at the origin, wrong unit, constant columns)"),
    ] = False
    json: Annotated[Path | None, Flag("also write the scores as JSON (with one --file)", metavar="FILE")] = None


@dataclass(frozen=True, kw_only=True)
class BoardOptions:
    """List runs and blends with their scores."""

    sort: Annotated[
        str,
        Flag(
            "column to sort by: name, out_of_fold, all (shown as test), public, private or another key of --json",
            metavar="COLUMN",
        ),
    ] = "out_of_fold"
    json: Annotated[Path | None, Flag("also write the board as JSON", metavar="FILE")] = None


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write an HTML report on runs and blends."""

    out: Annotated[Path | None, Flag("HTML file to write; SUBMISSIONS/report.html when unset", metavar="FILE")] = None


@dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """Upload a submission to Kaggle and wait for its score."""

    competition: Annotated[str, Flag("last part of the competition's address on kaggle.com", metavar="SLUG")]
    message: Annotated[str, Flag("one line that describes the submission", metavar="TEXT")]
    file: Annotated[Path | None, Flag("submission file to upload; the blend when unset", metavar="CSV")] = None
    yes: Annotated[bool, Flag("upload without asking for confirmation")] = False


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Recompute the hashes and scores of a run or blend."""

    folder: Annotated[
        Path, Flag("folder of a run, of one of its folds, or of a blend", metavar="RUNDIR", positional=True)
    ]


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """Train and blend the poster's models."""

    scale: Annotated[str, Flag("size of the models: full as on the poster, small for CPUs", metavar="small|full")] = (
        "full"
    )
    fold: Annotated[
        str,
        Flag(
            "number of the fold to hold out, or all; the poster's models were trained on one fold each", metavar="K|all"
        ),
    ] = "0"
    parallel: Annotated[
        int | None,
        Flag(
            "number of networks to train at the same time; they share the cores; when unset, one per core for "
            "--scale small on a CPU, otherwise 1",
            metavar="N",
            parse=within(1, MAX_PROCESSES, "--parallel", int),
        ),
    ] = None
    workers: Workers = None
    json: Annotated[Path | None, Flag("also write the table as JSON", metavar="FILE")] = None


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Measure this implementation against baselines."""

    only: Annotated[str | None, Flag("benchmarks, by commas; all fast ones when unset", metavar="NAME,...")] = None
    json: Annotated[Path | None, Flag("also write the results as JSON", metavar="FILE")] = None
