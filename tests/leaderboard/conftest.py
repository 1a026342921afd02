"""A fake competition service, and a workspace with a file to upload."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from competition.common.pose_csv import write_poses
from competition.common.workspace import Workspace
from tests.leaderboard.fake_kaggle import TOKEN, FakeKaggle
from tests.leaderboard.helpers import N, Sender, pose_mm_of


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKaggle]:
    """Start the fake service and point the client to it, with a token and an empty home folder."""
    for name in list(os.environ):
        if name.startswith("KAGGLE_") or name.lower() in ("no_proxy", "all_proxy", "http_proxy", "xdg_config_home"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    with FakeKaggle() as service:
        monkeypatch.setenv("http_proxy", service.address)
        yield service


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Make a competition of seven test images without labels, which suffices for an upload."""
    (tmp_path / "data/annot").mkdir(parents=True)
    names = "".join(f"S1_Walking_1.54138969_{i:06}.jpg\n" for i in range(1, N + 1))
    (tmp_path / "data/annot/valid_images.txt").write_text(names)
    return Workspace(data=tmp_path / "data", submissions=tmp_path / "runs")


@pytest.fixture
def file(workspace: Workspace) -> Path:
    path = workspace.submissions / "wide/submission.csv.gz"
    write_poses(path, range(1, N + 1), pose_mm_of())
    return path


@pytest.fixture
def send(workspace: Workspace) -> Sender:
    return Sender(workspace)
