"""The diagnosis of the official client's output, and the removal of credentials from it."""

import json
import venv
from pathlib import Path

import pytest

from competition.leaderboard import kaggle as client
from tests.leaderboard.fake_kaggle import TOKEN, FakeKaggle
from tests.leaderboard.helpers import Sender


def test_a_missing_client_is_reported(
    service: FakeKaggle, send: Sender, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(client.sys, "executable", str(tmp_path / "bare/bin/python"))
    assert "install requirements.txt" in send.fails(file)
    assert send.ledger()[0].status == "failed: client not installed"


@pytest.mark.parametrize(
    ("printed", "status"),
    [
        ("/usr/bin/python: No module named kaggle", "client not installed"),
        ("Traceback (most recent call last):\n  x\nModuleNotFoundError: No module named 'six'", "client not installed"),
        ("Authentication required to call the Kaggle API.\n\nFirst, you will need", "no credentials"),
        ("403 - You cannot submit until you accept the competition rules", "rules not accepted"),
        ("Permission 'competitions.participate' was denied", "refused"),
        ("429 Client Error: Too Many Requests for url: http://localhost/api", "daily limit"),
        ("Your team has used its Submission allowance (5 of 5).\n0 submissions remaining today.", "daily limit"),
        ("Competition deadline has passed", "competition closed"),
        ("  0%|    | 0.00/404 Client\r100%|####| 503/503\nCould not submit to competition", "upload failed"),
        ("502 Server Error: Bad Gateway for url: http://localhost/api", "service error"),
        ("requests.exceptions.ConnectTimeout: HTTPSConnectionPool(host='api', port=443): Max", "network down"),
        ("something new", "client failed"),
        ("", "client failed"),
    ],
)
def test_the_output_of_the_client_is_classified(printed: str, status: str):
    failure = client.diagnose(printed, "human-pose")
    assert failure.status == status
    assert "\n" not in failure.what
    assert "{" not in failure.what + failure.fix


@pytest.mark.parametrize("kept", ["kaggle.json", "access_token", "credentials.json"])
def test_credentials_are_removed_from_messages(
    service: FakeKaggle, tmp_path: Path, kept: str, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "home/.kaggle"
    folder.mkdir()
    secret = "s3cr3t-of-" + kept
    (folder / kept).write_text(json.dumps({"key": secret}) if kept.endswith("json") else secret + "\n")
    monkeypatch.setenv("KAGGLE_KEY", "of-the-environment")
    text = f"{secret} of-the-environment {TOKEN} Bearer abc https://u:pw@host/p?signature=x eyJhbGci {'0f' * 16}"
    assert client.scrub(text) == "*** *** *** *** https://***host/p*** *** ***"
