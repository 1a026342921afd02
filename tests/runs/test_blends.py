"""The record of a blend: its keys, files without some of them, and its hash."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from competition.common.errors import UserError
from competition.common.files import sha256_file, sha256_json
from competition.runs.blends import (
    Blend,
    Groups,
    MethodErrors,
    has_changed,
    read_blend,
    read_weights,
    weights_csv,
    write_blend,
)
from competition.runs.ledger import Upload, record_upload
from competition.runs.provenance import Provenance

KEYS = [
    "format", "method", "granularity", "shrink", "candidates", "n_rows", "groups", "mpjpe_mean",
    "mpjpe_blend_in_sample", "mpjpe_nested", "gain_nested", "gain_nested_se", "best_simple",
    "gain_over_best_simple", "gain_over_best_simple_se", "mpjpe_optimum", "gap_percent", "shipped", "shipped_method",
    "why", "seconds", "best_single", "gain_joint", "gain_axis", "table", "members", "provenance", "inputs", "outputs",
    "facts_sha256",
]  # fmt: skip
TEST_ID, POSE = np.arange(1, 3), np.ones((2, 17, 3))


def write(out: Path, blend: Blend, **files: bytes) -> Blend:
    named = {name.replace("_", "."): content for name, content in files.items()}
    return write_blend(out, blend, test_id=TEST_ID, poses={"submission.csv.gz": POSE}, files=named)


def test_a_blend_is_read_as_it_was_written(tmp_path: Path):
    blend = Blend(
        method="exact",
        candidates=["a:1", "b:2"],
        groups=Groups(by="subject", count=5, folds=5, rows=120),
        mpjpe_nested=80.5,
        gain_joint={"Hip": 0.0},
        table=[MethodErrors(method="mean", mpjpe_in_sample=90.25)],
        provenance=Provenance(git="c0ffee"),
        inputs={"a/fold0/valid_epoch01.npz": "00"},
    )
    weights = weights_csv(["a:1", "b:2"], np.full((17, 3, 2), 0.5)).encode()
    written = write(tmp_path, blend, weights_csv=weights, study_journal=b"times")
    facts = json.loads((tmp_path / "blend.json").read_text())
    assert list(facts) == KEYS
    assert facts["format"] == 1
    assert read_blend(tmp_path) == written
    assert written.outputs == {name: sha256_file(tmp_path / name) for name in ("submission.csv.gz", "weights.csv")}
    assert not has_changed(tmp_path)
    names, values = read_weights(tmp_path / "weights.csv")
    assert (names, values.shape) == (["a:1", "b:2"], (17, 3, 2))


def test_files_of_an_earlier_blend_are_deleted(tmp_path: Path):
    write(tmp_path, Blend(), weights_csv=b"old", weights_png=b"old", study_journal=b"old")
    (tmp_path / "notes.txt").write_text("the user's")
    write(tmp_path, Blend(), study_journal=b"new")
    assert {path.name for path in tmp_path.iterdir()} == {
        "blend.json", "submission.csv.gz", "study.journal", "notes.txt",
    }  # fmt: skip
    assert (tmp_path / "study.journal").read_bytes() == b"new"


def _submit(file: Path, ledger: Path, status: str = "complete") -> str:
    """Record an upload of a file; return the name under which its blend is kept."""
    record_upload(ledger, Upload(sha256=sha256_file(file), status=status))
    return f"{file.parent.name}-{sha256_file(file.with_name('submission.csv.gz'))[:8]}"


def _poses(value: float, *names: str) -> dict[str, np.ndarray]:
    return {f"{name}.csv.gz": value * POSE for name in ("submission", *names)}


KEPT = {  # submitted file, ledger and status
    "the blend": ("submission.csv.gz", "runs/ledger.csv", "complete"),
    "its mean": ("submission_mean.csv.gz", "runs/ledger.csv", "pending"),
    "its per-coordinate blend": ("submission_coordinate.csv.gz", "runs/ledger.csv", "failed: timeout"),
    "to another workspace": ("submission.csv.gz", "workspace/ledger.csv", "sending"),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_submitted_blend_is_kept_under_another_name(tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    file, ledger, status = KEPT[case]
    out, workspace, names = (
        tmp_path / "runs/blend",
        tmp_path / "workspace",
        ("submission_mean", "submission_coordinate"),
    )

    def blend(value: float) -> None:
        write_blend(out, Blend(), test_id=TEST_ID, poses=_poses(value, *names), submissions=workspace)

    blend(1)
    kept = out.with_name(_submit(out / file, tmp_path / ledger, status))
    (out / "notes.txt").write_text("the user's")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for value in (2, 1, 3):  # the second is the submitted one again
        blend(value)
        assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    assert {path.name for path in kept.parent.iterdir()} - {"ledger.csv"} == {"blend", kept.name}
    assert read_blend(kept).outputs != read_blend(out).outputs
    assert [record.getMessage() for record in caplog.records] == [f"{out} was submitted: it is kept as {kept}"]


def test_a_blend_that_shares_its_mean_with_a_kept_one_is_replaced(tmp_path: Path):
    out, mean = tmp_path / "blend", {"submission_mean.csv.gz": _poses(1)["submission.csv.gz"]}
    write_blend(out, Blend(), test_id=TEST_ID, poses=_poses(1) | mean)
    kept = out.with_name(_submit(out / "submission.csv.gz", tmp_path / "ledger.csv", "complete"))
    for value in (2, 3):
        write_blend(out, Blend(), test_id=TEST_ID, poses=_poses(value) | mean)
    assert {path.name for path in tmp_path.iterdir()} == {"blend", "ledger.csv", kept.name}


def test_other_blends_are_replaced(tmp_path: Path):
    out = tmp_path / "blend"
    for ledger in (False, True):
        write_blend(out, Blend(), test_id=TEST_ID, poses=_poses(1))
        if ledger:
            record_upload(tmp_path / "ledger.csv", Upload(sha256="c0ffee"))
        write_blend(out, Blend(), test_id=TEST_ID, poses=_poses(2))
    assert {path.name for path in tmp_path.iterdir()} == {"blend", "ledger.csv"}


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("a damaged ledger", r"ledger\.csv:1: columns time,file"),
        ("runs beside the blend", "holds other folders beside a submitted blend"),
        ("another folder of the name", "which exists"),
    ],
)
def test_where_a_blend_cannot_be_kept_nothing_changes(tmp_path: Path, case: str, error: str):
    out, ledger = tmp_path / "blend", tmp_path / "ledger.csv"
    write(out, Blend())
    kept = _submit(out / "submission.csv.gz", ledger)
    if case == "a damaged ledger":
        ledger.write_text("time,file\n")
    elif case == "runs beside the blend":
        (out / "3dhg/fold0").mkdir(parents=True)
    else:
        (tmp_path / kept / "fold0").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*")), (out / "submission.csv.gz").read_bytes()
    with pytest.raises(UserError, match=error) as caught:
        write_blend(out, Blend(), test_id=TEST_ID, poses=_poses(2))
    assert "\n" not in str(caught.value)
    assert (sorted(tmp_path.rglob("*")), (out / "submission.csv.gz").read_bytes()) == before


def test_a_changed_value_is_noticed_with_and_without_a_format(tmp_path: Path):
    write(tmp_path, Blend(method="exact", mpjpe_mean=90.0))
    facts = json.loads((tmp_path / "blend.json").read_text())
    file = tmp_path / "blend.json"
    del facts["format"]  # as written before there were formats
    assert facts["facts_sha256"] == sha256_json({key: facts[key] for key in facts if key != "facts_sha256"})
    file.write_text(json.dumps(facts))
    assert not has_changed(tmp_path)
    assert read_blend(tmp_path).mpjpe_mean == 90
    file.write_text(json.dumps(facts | {"seconds": 1.0}))  # timings aren't part of the hash
    assert not has_changed(tmp_path)
    for change in ({"mpjpe_mean": 89.0}, {"added": 1}, {"why": "because"}):
        file.write_text(json.dumps(facts | change))
        assert has_changed(tmp_path)
    file.write_text(json.dumps({"method": "mean"}))
    assert not has_changed(tmp_path)  # it doesn't contain a hash


@pytest.mark.parametrize(
    ("facts", "out_of_fold", "in_sample"),
    [
        ({"method": "mean", "shipped": "mean"}, None, False),
        ({"method": "optuna", "mpjpe_blend_in_sample": 31.5}, 31.5, True),
        ({"method": "optuna", "mpjpe_blend_in_sample": 31, "mpjpe_nested": 32.5}, 32.5, False),
        ({"method": "mean", "shipped": "mean", "mpjpe_blend_in_sample": 31.5}, 31.5, False),
        ({}, None, True),
    ],
)
def test_few_keys_are_enough(tmp_path: Path, facts: dict[str, object], out_of_fold: float | None, in_sample: bool):
    (tmp_path / "blend.json").write_text(json.dumps(facts))
    blend = read_blend(tmp_path)
    assert (blend.out_of_fold, blend.in_sample) == (out_of_fold, in_sample)


@pytest.mark.parametrize(
    "facts",
    [
        {"method": 3},
        {"candidates": "a:1"},
        {"candidates": [1]},
        {"groups": {"by": "subject"}},
        {"table": [{"mpjpe_in_sample": 3}]},
        {"inputs": {"a": 1}},
        {"outputs": []},
        {"mpjpe_nested": "80"},
        {"provenance": {"versions": 3}},
        {"format": 2},
    ],
)
def test_values_of_other_types_are_rejected_in_one_line(tmp_path: Path, facts: dict[str, object]):
    (tmp_path / "blend.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"blend\.json") as caught:
        read_blend(tmp_path)
    assert "\n" not in str(caught.value)
