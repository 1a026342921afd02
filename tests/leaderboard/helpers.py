"""Helpers for the tests of the upload."""

import logging
from pathlib import Path

import numpy as np
import pytest

from competition.common.errors import UserError
from competition.common.workspace import Workspace
from competition.leaderboard.submit import Timeouts, submit
from competition.runs.ledger import Upload, read_ledger
from tests.leaderboard.fake_kaggle import SIGNED, TOKEN

N = 7
QUICK = Timeouts(send=60, list=60, score=60, pause=0.01)


def pose_mm_of(seed: int = 0) -> np.ndarray:
    pose_mm = np.random.default_rng(seed).normal(0, 200, (N, 17, 3))  # [7, 17, 3]
    pose_mm[:, 0] = 0
    return pose_mm


class Lines(logging.Handler):
    """Collects the lines that `submit` prints."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Sender:
    """Uploads to the competition; records the questions asked and the lines printed."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.asked: list[str] = []
        printed = Lines()
        self.noted = printed.lines
        logger = logging.getLogger("competition.leaderboard.submit")
        logger.handlers = [printed]
        logger.setLevel(logging.INFO)

    def __call__(self, file: Path, competition: str = "human-pose", message: str = "wide", **rest) -> Upload:
        rest = {"timeouts": QUICK, "confirm": lambda text: self.asked.append(text) is None} | rest
        return submit(self.workspace, file, competition=competition, message=message, **rest)

    def fails(self, file: Path, **rest) -> str:
        """Return the one-line error; check that neither it nor the ledger contains a credential."""
        with pytest.raises(UserError) as caught:
            self(file, **rest)
        line = str(caught.value)
        ledger = self.workspace.submissions / "ledger.csv"
        recorded = ledger.read_text() if ledger.exists() else ""
        for secret in (TOKEN, SIGNED):
            assert secret not in line + recorded
        assert "\n" not in line
        assert line.startswith(str(file))
        return line

    def ledger(self) -> list[Upload]:
        return read_ledger(self.workspace.submissions / "ledger.csv")
