"""Uploads with the official client to a fake service; every failure is reported in one line."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from competition.common.errors import Command, SubmissionError, UserError
from competition.common.files import sha256_file
from competition.common.pose_csv import read_poses, write_poses
from competition.common.workspace import Workspace
from competition.leaderboard.submit import Timeouts
from competition.runs.ledger import Upload, record_upload
from competition.runs.origin import find_origin
from tests.leaderboard.fake_kaggle import TOKEN, FakeKaggle
from tests.leaderboard.helpers import N, Sender, pose_mm_of

needs_client = pytest.mark.skipif(
    importlib.util.find_spec("kaggle") is None or importlib.util.find_spec("six") is None,
    reason="the official client is not installed: pip install kaggle six",
)


@needs_client
def test_uploads_the_exact_bytes_and_reads_the_score(service: FakeKaggle, send: Sender, file: Path):
    message = 'wide, "bold" and ü; $(rm -rf) --help'
    service.add(message, status="COMPLETE", publicScore="99.9")  # the same message, but another submission
    service.lists_until_listed = 1
    row = send(file, message=message)
    assert list(service.uploads.values()) == [file.read_bytes()]
    assert service.submissions[0]["description"] == message
    assert service.submissions[0]["fileName"] == "submission.csv.gz"
    assert (row.ref, row.status, row.public) == ("9001", "complete", "45.671")
    assert send.ledger() == [row]
    assert row.message == message
    assert row.time.endswith("+00:00")
    assert service.calls.count("ListSubmissions") == 4  # before, not there yet, pending, scored
    assert "submission 9001: public score 45.671" in send.noted[-1]


@needs_client
@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (
            {"StartSubmissionUpload": (403, "You must accept this competition's rules before you can submit")},
            "rules not accepted",
            "open https://www.kaggle.com/competitions/human-pose/rules",
        ),
        ({"PUT": (503, "")}, "upload failed", "try again later"),
        ({"CreateSubmission": (500, "Internal Server Error")}, "service error", "it may have arrived"),
    ],
)
def test_a_failure_of_the_service_is_reported_in_one_line_and_recorded(
    service: FakeKaggle, send: Sender, file: Path, fault: dict[str, tuple[int, str]], status: str, message: str
):
    service.faults = fault
    assert message in send.fails(file)
    assert [(row.status, row.ref, row.public) for row in send.ledger()] == [(f"failed: {status}", "", "")]


@needs_client
def test_nothing_is_sent_without_valid_credentials(
    service: FakeKaggle, send: Sender, file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_of_someone_else")
    line = send.fails(file)
    assert "failed: no credentials (client: " in line
    assert ": none, or not valid: create a token" in line
    assert set(service.calls) == {"IntrospectToken"}
    assert send.ledger()[0].status == "failed: no credentials"


@needs_client
def test_an_unknown_competition_and_a_failure_with_exit_code_0(service: FakeKaggle, send: Sender, file: Path):
    line = send.fails(file, competition="human-poise")
    assert "unknown competition (client: " in line
    assert ": expected NAME of https://" in line
    assert service.uploads == {}
    service.refusal = "Your team has used its daily allowance today " + TOKEN  # exit code 0
    line = send.fails(file)
    assert "daily limit (client: Your team has used its daily" in line
    assert line.endswith(": send it tomorrow (UTC)")
    assert [row.status for row in send.ledger()] == ["failed: unknown competition", "failed: daily limit"]


@needs_client
def test_a_rejection_by_the_scorer_is_reported(service: FakeKaggle, send: Sender, file: Path):
    service.outcome, service.lists_until_scored = "ERROR", 0
    assert "submission 9000, but its scorer rejected it" in send.fails(file)
    assert [(row.status, row.ref) for row in send.ledger()] == [("failed: scorer error", "9000")]


@needs_client
def test_the_same_command_waits_for_a_late_score_without_a_new_upload(service: FakeKaggle, send: Sender, file: Path):
    service.lists_until_scored = 1000
    with pytest.raises(UserError) as caught:
        send(file, timeouts=Timeouts(score=0))
    line = str(caught.value)
    options = {"file": str(file), "competition": "human-pose", "message": "wide"}
    assert caught.value.command == Command("submit", options)
    assert "submission 9000, but no score came within 0 s" in line
    assert "run the same command again" in line
    assert [(row.status, row.ref) for row in send.ledger()] == [("pending", "9000")]
    service.add("wide", status="COMPLETE", publicScore="99.9")  # the same message, sent by other means
    service.lists_until_scored = 0
    row = send(file)
    assert (row.ref, row.status, row.public) == ("9000", "complete", "45.671")
    assert send.ledger() == [row]
    assert len(send.asked) == service.calls.count("CreateSubmission") == 1
    assert "not uploading it again" in send.noted[-2]


@needs_client
def test_a_submission_that_was_not_listed_is_found_later(service: FakeKaggle, send: Sender, file: Path):
    service.add("wide", status="COMPLETE", publicScore="99.9")
    upload = Upload(competition="human-pose", sha256=sha256_file(file), message="wide")
    ledger = send.workspace.submissions / "ledger.csv"
    record_upload(ledger, replace(upload, time="2026-11-01", ref="9000", status="complete", public="99.9"))
    record_upload(ledger, replace(upload, time="2026-11-02", status="pending"))
    service.add("wide")
    service.lists_until_scored = 0
    assert send(file).ref == "9001"
    assert [(row.ref, row.public) for row in send.ledger()] == [("9000", "99.9"), ("9001", "45.671")]
    assert "CreateSubmission" not in service.calls


@needs_client
def test_a_service_that_does_not_answer_causes_a_timeout(service: FakeKaggle, send: Sender, file: Path):
    service.hang_seconds = 60
    line = send.fails(file, timeouts=Timeouts(send=2))
    assert "no answer within 2 s" in line
    assert "it may have arrived: check https://www.kaggle.com/competitions/human-pose/submissions" in line
    assert send.ledger()[0].status == "failed: timeout"


@needs_client
def test_a_network_failure_is_reported(service: FakeKaggle, send: Sender, file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://someone:secret@127.0.0.1:9")
    line = send.fails(file)
    assert "network down (client: " in line
    assert line.endswith(": check the network and the proxy")
    assert "secret" not in line
    assert send.ledger()[0].status == "failed: network down"


def _broken(file: Path, name: str) -> None:
    lines = pose_mm_of()
    if name == "metres":
        lines /= 1000
    elif name == "root":
        lines += 5
    write_poses(file, range(1, N if name == "missing" else N + 1), lines[: N - 1] if name == "missing" else lines)


@pytest.mark.parametrize(
    ("name", "message"),
    [("metres", "are these metres"), ("root", "relative to the pelvis"), ("missing", "1 Ids missing")],
)
def test_an_invalid_file_is_not_sent(send: Sender, file: Path, name: str, message: str, workspace: Workspace):
    _broken(file, name)
    with pytest.raises(SubmissionError, match=message):
        send(file)
    assert send.asked == []
    assert not (workspace.submissions / "ledger.csv").exists()


@pytest.mark.parametrize("slug", ["Human-Pose", "a/b", "--help", "", "human pose", "pose\n"])
def test_an_invalid_competition_name_is_rejected(send: Sender, file: Path, slug: str):
    with pytest.raises(UserError, match="expected a-z, 0-9 and '-'"):
        send(file, competition=slug)


@pytest.mark.parametrize("message", ["", "  ", "two\nlines", "two\u2028lines", "nul\0", "\udcff"])
def test_a_message_that_is_not_one_line_of_text_is_rejected(send: Sender, file: Path, message: str):
    with pytest.raises(UserError, match="expected one line of text"):
        send(file, message=message)


def test_a_declined_or_changed_file_is_not_sent(send: Sender, file: Path, workspace: Workspace):
    assert send.fails(file, confirm=lambda _: False) == f"{file}: not sent"

    def change(_: str) -> bool:
        write_poses(file, range(1, N + 1), pose_mm_of(1))
        return True

    assert "it changed while" in send.fails(file, confirm=change)
    assert not (workspace.submissions / "ledger.csv").exists()


def _copy(file: Path, to: Path) -> Path:
    to.write_bytes(file.read_bytes())
    return to


def test_the_question_names_the_origin_of_the_file(workspace: Workspace, file: Path, send: Sender):
    def question_for(path: Path) -> str:
        asked: list[str] = []
        send.fails(path, confirm=lambda text: bool(asked.append(text)))
        return asked[0]

    assert "unknown (not a file of a run or a blend)" in question_for(file)
    (file.parent / "fold0").mkdir()
    assert "run wide; out-of-fold MPJPE unknown" in question_for(file)
    assert "unknown (not a file of a run or a blend)" in question_for(_copy(file, file.parent / "mine.csv.gz"))
    assert "unknown (not a file of a run or a blend)" in question_for(_copy(file, workspace.data / "submission.csv.gz"))
    for fold in (0, 1):
        folder = file.parent / f"fold{fold}"
        for epoch, mpjpe in ((1, 120.0), (2, 100.0 + fold)):
            write_poses(
                folder / f"test_epoch{epoch:02}.csv.gz", range(1, N + 1), pose_mm_of() if epoch == 2 else pose_mm_of(1)
            )
            np.savez(folder / f"valid_epoch{epoch:02}.npz", id=np.arange(1, 4), pose=np.zeros((3, 17, 3), np.float32))
            with open(folder / "log.jsonl", "a") as log:
                log.write(json.dumps({"epoch": epoch, "valid_mpjpe": mpjpe}) + "\n")
    question = question_for(file)
    assert "run wide, epoch 2; out-of-fold MPJPE 100.50 mm" in question
    assert str(file) in question
    assert f"rows     {N}" in question
    poses = read_poses(file)
    origin = find_origin(workspace.submissions, file, poses)
    assert (origin.name, origin.mpjpe) == ("wide:2", pytest.approx(100.5))
    assert "run wide, epoch 1, fold1 alone; out-of-fold MPJPE of this fold 120.00 mm" in question_for(
        file.parent / "fold1/test_epoch01.csv.gz"
    )
    write_poses(file, range(1, N + 1), pose_mm_of(2))
    assert "not the poses of its best epoch, 2" in question_for(file)
    (file.parent / "fold1/log.jsonl").write_text("{")
    assert "unknown (" in question_for(file)


def test_the_question_describes_a_blend(workspace: Workspace, send: Sender, tmp_path: Path):
    folder = tmp_path / "elsewhere/blend"  # --out may be anywhere
    facts = {"method": "optuna", "candidates": ["a:1", "b:2"], "shipped": "mean", "mpjpe_nested": 88.5}
    facts |= {"mpjpe_blend_in_sample": 80.25, "table": [{"method": "mean", "mpjpe_in_sample": 90.125}]}
    for name in ("submission", "submission_mean", "other"):
        write_poses(folder / f"{name}.csv.gz", range(1, N + 1), pose_mm_of())
    (folder / "blend.json").write_text(json.dumps(facts))

    def description_of(name: str) -> str:
        return find_origin(workspace.submissions, folder / name, read_poses(folder / name)).description

    origin = (
        "blend blend of 2 candidates (a:1, b:2) by optuna, this file is the mean; out-of-fold MPJPE nested 88.50 mm"
    )
    assert description_of("submission.csv.gz") == origin
    assert "its mean; out-of-fold MPJPE in sample 90.12 mm" in description_of("submission_mean.csv.gz")
    assert description_of("other.csv.gz") == "unknown (other.csv.gz is not a file that the blend blend wrote)"
    (folder / "blend.json").write_text(json.dumps(facts | {"mpjpe_nested": None}))
    assert "in sample 80.25 mm" in description_of("submission.csv.gz")
    (folder / "blend.json").write_text("[]")
    assert "unknown (" in description_of("submission.csv.gz")


def test_the_question_lists_earlier_uploads_of_the_same_file(send: Sender, file: Path):
    upload = Upload(competition="human-pose", sha256=sha256_file(file), status="complete")
    ledger = send.workspace.submissions / "ledger.csv"
    record_upload(ledger, replace(upload, time="2026-11-01", ref="1", public="45.6"))
    record_upload(ledger, replace(upload, time="2026-11-02", status="sending"))  # interrupted
    record_upload(ledger, replace(upload, time="2026-11-03", status="failed: no credentials"))  # was never uploaded
    record_upload(ledger, replace(upload, time="2026-11-04", competition="another"))
    send.fails(file, confirm=lambda text: bool(send.asked.append(text)))
    before = [line for line in send.asked[0].splitlines() if line.startswith("  before ")]
    assert before == [
        "  before   the same file at 2026-11-01: complete 45.6",
        "  before   the same file at 2026-11-02: sending ",
    ]


def test_nothing_is_sent_with_an_invalid_ledger(send: Sender, file: Path, workspace: Workspace):
    (workspace.submissions / "ledger.csv").write_text("time,file\n")
    with pytest.raises(UserError, match=r":1: columns time,file"):
        send(file)
    assert send.asked == []
