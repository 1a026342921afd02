"""Studies for tests, whose trials aren't trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from competition.common.workspace import Workspace
from competition.runs.provenance import Provenance
from competition.runs.studies import Param, StudyConfig
from competition.training.shared_study import SharedStudy, join_study

SPACE: Final = (
    Param(name="lr", low=1e-5, high=1e-2, log=True),
    Param(name="schedule", values=("constant", "cosine")),
    Param(name="use_weight_decay", values=(False, True)),
    Param(name="weight_decay", low=1e-5, high=0.1, log=True, needs="use_weight_decay"),
)
OWN: Final = {"lr": 4e-3, "schedule": "constant", "use_weight_decay": False}
CONFIG: Final = StudyConfig(
    model="3dhg-small",
    settings={"lr": 4e-3},
    precision="fp32",
    space=list(SPACE),
    folds=[0],
    seed=0,
    provenance=Provenance(images_sha256="a", folds_sha256="b"),
)
EPOCHS: Final = 6


@contextmanager
def joined(folder: Path, **changes: object) -> Iterator[SharedStudy]:
    """Take part in a study with CONFIG, or a changed one."""
    with join_study(folder, replace(CONFIG, **changes)) as study:  # type: ignore[arg-type]
        study.open(OWN, EPOCHS, Workspace())
        yield study


def make_study(folder: Path, errors_mm: list[float | None]) -> None:
    """Make a study whose completed trials have these errors; None is for a trial that failed."""
    with joined(folder) as study:
        for mpjpe in errors_mm:
            trial = study.next_trial(len(errors_mm))
            assert trial is not None
            if mpjpe is None:
                study.fail(trial, "out of memory")
                continue
            for epoch in (1, 2):
                study.report(trial, epoch, mpjpe * (3 - epoch))
            study.finish(trial, mpjpe)
