"""The report: its content, escaping of names, no requests, and the rotating skeleton."""

import builtins
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from competition.common.console import Advance
from competition.common.errors import Command, UserError
from competition.common.metrics import mpjpe
from competition.common.pose_csv import write_poses
from competition.common.workspace import Workspace
from competition.data.labels import read_labels
from competition.leaderboard.score import Scores
from competition.leaderboard.scores import record_score
from competition.report.compose import SECTIONS, write_report
from competition.runs.blends import weights_csv
from competition.runs.candidates import candidates as list_candidates
from competition.runs.candidates import write_submission
from competition.runs.folders import write_valid
from competition.runs.record import LogRow, append_log
from tests.helpers import N_TEST, N
from tests.report.helpers import CHROMIUM, HOSTILE, Page, turn

KEYS = ("board", "curves", "poster", "breakdown", "gains", "rarity", "calibration", "methods", "weights", "studies")
KEYS = (*KEYS, "gallery")
SCORES = {"all": 40.0, "public": 41.0, "private": 39.5}  # mm
HOSTILE_FOLDER = "<img src=x onerror=alert(1)>"  # a folder's name can't hold the slash


def add_run(workspace: Workspace, run: str, spread_mm: float, recipe: str = "3dhg-small", epochs: int = 2) -> None:
    """Write the files of a trained run with two folds; its poses are the true ones plus normal noise."""
    labels = read_labels(workspace.data)
    draw = np.random.default_rng(int(spread_mm))
    for fold in (0, 1):
        folder = workspace.submissions / run / f"fold{fold}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"recipe": recipe, "images_sha256": labels.images_sha256}))
        rows = np.flatnonzero(np.arange(N) % 2 == fold)
        for epoch in range(1, epochs + 1):
            noise = draw.normal(0, spread_mm / epoch, (N, 17, 3))
            pose_mm = (labels.pose_mm + noise)[rows]
            write_valid(folder / f"valid_epoch{epoch:02d}.npz", labels.id[rows], pose_mm)
            write_poses(folder / f"test_epoch{epoch:02d}.csv.gz", range(1, N_TEST + 1), noise[:N_TEST])
            append_log(folder, LogRow(epoch=epoch, valid_mpjpe=mpjpe(pose_mm, labels.pose_mm[rows])))


def add_blend(workspace: Workspace, name: str, method: str, names: list[str], weights: np.ndarray) -> None:
    """Write the files of a blend that the report reads."""
    folder = workspace.submissions / name
    folder.mkdir()
    (folder / "blend.json").write_text(json.dumps({"method": method, "mpjpe_blend_in_sample": 31.5}))
    (folder / "weights.csv").write_text(weights_csv(names, weights))
    write_poses(folder / "submission.csv.gz", range(1, N_TEST + 1), np.full((N_TEST, 17, 3), len(method)))


@pytest.fixture
def workspace(data: Path, tmp_path: Path) -> Workspace:
    return Workspace(data=data, folds=tmp_path / "folds", submissions=tmp_path / "runs")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Make two runs, two blends and their scores; tests only read them."""
    root = tmp_path_factory.mktemp("whole")
    workspace = Workspace(data=data, folds=root / "folds", submissions=root / "runs")
    add_run(workspace, "3dhg-small", 60)
    add_run(workspace, "2dhg-mine", 90, recipe="2dhg")
    for run in ("3dhg-small", "2dhg-mine"):
        write_submission(workspace.submissions, run, np.arange(1, N_TEST + 1))
    shares = np.random.default_rng(0).dirichlet([1, 1], (17, 3))
    add_blend(workspace, "blend", "exact", ["3dhg-small:2", "2dhg-mine:2"], shares)
    add_blend(workspace, "blend-mean", "mean", ["3dhg-small:2", "2dhg-mine:2"], np.full((17, 3, 2), 0.5))
    for name in ("3dhg-small", "blend"):
        scores = Scores(**SCORES, joint={}, axis={}, action={})
        record_score(workspace.submissions, workspace.submissions / name / "submission.csv.gz", scores)
    return workspace


@pytest.fixture(scope="module")
def report(whole: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(whole, tmp_path_factory.mktemp("report") / "report.html")


def test_the_page_has_every_section_and_figure(report: Path):
    page = Page(report.read_text())
    assert [attributes["id"] for tag, attributes in page.elements if tag == "section"] == list(KEYS)
    figures = page.block("figures")
    assert set(figures) == {
        "curves",
        "joint",
        "axis",
        "action",
        "camera",
        "gains",
        "rarity",
        "calibration",
        "weights0",
    }
    places = {attributes["data-figure"] for tag, attributes in page.elements if "data-figure" in attributes}
    assert places == set(figures)
    assert [trace["name"] for trace in figures["curves"]["data"]] == ["3dhg-small", "2dhg-mine"]
    assert len(figures["joint"]["data"][0]["y"]) == 17
    assert "109.02" in page.text
    assert "no Human3.6M scores" in page.text
    assert report.stat().st_size < 15e6


def test_figures_show_the_numbers_of_the_files(report: Path, whole: Workspace):
    figures = Page(report.read_text()).block("figures")
    best = next(c for c in list_candidates(whole.submissions) if c.name == "3dhg-small:2")
    assert figures["curves"]["data"][0]["y"][1] == pytest.approx(best.valid_mpjpe)
    joint = figures["joint"]["data"][0]
    assert joint["name"] == "3dhg-small, epoch 2"  # the best run comes first
    colours = {part: [trace["marker"]["color"] for trace in figures[part]["data"]] for part in ("curves", "joint")}
    assert colours["curves"] == colours["joint"]
    assert np.mean(joint["x"]) == pytest.approx(best.valid_mpjpe, rel=1e-5)
    line, *parts = figures["calibration"]["data"]
    assert line["x"] == line["y"]
    assert [len(part["x"]) for part in parts] == [2, 2, 2]  # a run and a blend were scored
    assert [part["y"][0] for part in parts] == list(SCORES.values())
    weights = [row for row in figures["weights0"]["data"][0]["z"] if None not in row]
    assert len(weights) == 48
    np.testing.assert_allclose(np.sum(weights, axis=1), 1)


def test_the_gallery_shows_best_median_and_worst(report: Path, data: Path):
    page = Page(report.read_text())
    cards = [attributes for tag, attributes in page.elements if tag == "button"]
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    poses = page.block("gallery-poses")["poses"]
    assert len(cards) == len(images) == len(poses) == 12
    assert all(image["alt"] and image["src"].startswith("data:image/jpeg;base64,") for image in images)
    errors = [float(pose["caption"].rpartition(": ")[2].removesuffix(" mm")) for pose in poses]
    assert errors[:8] == sorted(errors[:8])
    assert errors[8] == max(errors)
    for pose, error in zip(poses, errors, strict=True):
        assert mpjpe([pose["predicted"]], [pose["truth"]]) == pytest.approx(error, abs=0.2)
        id_ = int(re.match(r"Id (\d+),", pose["caption"])[1])
        np.testing.assert_allclose(pose["truth"], read_labels(data).pose_mm[id_ - 1], atol=0.051)


def test_hostile_names_are_escaped(own_data: Path, tmp_path: Path):
    workspace = Workspace(data=own_data, folds=tmp_path / "folds", submissions=tmp_path / "runs")
    names = own_data / "annot/train_images.txt"
    old = names.read_text().split("\n")
    image = HOSTILE_FOLDER.replace(">", "'\">.jpg")
    for number, name in enumerate(old[:N]):
        (own_data / "images" / name).rename(own_data / "images" / f"{number}{image}")
    names.write_text("".join(f"{number}{image}\n" for number in range(N)))
    add_run(workspace, HOSTILE_FOLDER, 60, recipe=HOSTILE)
    add_run(workspace, "</b>".replace("/", "") + "'\"&", 90)
    add_blend(workspace, "blend", HOSTILE, [f"</script>{HOSTILE}", "b"], np.full((17, 3, 2), (0.25, 0.75)))

    text = write_report(workspace, tmp_path / "report.html").read_text()
    page = Page(text)
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    kinds = [attributes.get("type") for tag, attributes in page.elements if tag == "script"]
    assert kinds == ["application/json", "application/json", None, None]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert all(attributes["src"].startswith("data:") for tag, attributes in page.elements if tag == "img")
    assert HOSTILE_FOLDER in page.text
    assert HOSTILE in page.text
    shown = json.dumps(page.block("figures"))  # plotly interprets some HTML in texts
    assert "<img" not in shown
    assert "<script" not in shown
    assert "&lt;img src=x" in shown


def test_the_page_makes_no_requests(report: Path):
    page = Page(report.read_text())
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    style = report.read_text().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy


def test_the_page_is_reproducible(report: Path, whole: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[str] = []

    @contextmanager
    def bar(label: str, total: int) -> Iterator[Advance]:
        yield lambda count, text: steps.extend([text] * count)

    monkeypatch.setattr("competition.report.compose.bar", bar)
    again = write_report(whole, tmp_path / "again.html")
    assert again.read_bytes() == report.read_bytes()
    assert len(steps) == len(SECTIONS) == len(KEYS)


def test_the_hidden_answers_are_never_read(
    report: Path, whole: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened: list[str] = []
    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        original = getattr(module, name)

        def watched(file, *arguments, _original=original, **keywords):
            opened.append(str(file))
            return _original(file, *arguments, **keywords)

        monkeypatch.setattr(module, name, watched)
    write_report(whole, tmp_path / "again.html")
    assert any("scores.csv" in name for name in opened)
    assert not [name for name in opened if "solution" in name]


def test_a_report_without_runs_is_an_error(workspace: Workspace, tmp_path: Path):
    with pytest.raises(UserError, match=r"^no runs under .*: train one$") as caught:
        write_report(workspace, tmp_path / "report.html")
    assert caught.value.command == Command("train", {"model": "3dhg-small"})
    assert not (tmp_path / "report.html").exists()


def test_sections_without_data_state_the_reason(workspace: Workspace, tmp_path: Path):
    add_run(workspace, "only", 60, epochs=1)
    page = Page(write_report(workspace, tmp_path / "report.html").read_text())
    assert "There is no blend with weights" in page.text
    assert "No current submission has a score" in page.text
    elsewhere = Workspace(data=tmp_path / "none", folds=workspace.folds, submissions=workspace.submissions)
    page = Page(write_report(elsewhere, tmp_path / "report.html").read_text())
    assert "The labels can't be read" in page.text
    assert page.block("gallery-poses") is None
    assert set(page.block("figures")) == {"curves"}


def test_without_images_the_gallery_is_skipped(own_data: Path, tmp_path: Path):
    workspace = Workspace(data=own_data, folds=tmp_path / "folds", submissions=tmp_path / "runs")
    add_run(workspace, "run", 60)
    shutil.rmtree(own_data / "images")
    page = Page(write_report(workspace, tmp_path / "report.html").read_text())
    assert "An image can't be shown" in page.text
    assert "joint" in page.block("figures")


def test_unverified_folds_and_other_training_images_are_noted(workspace: Workspace, tmp_path: Path):
    add_run(workspace, "mate", 60)
    add_run(workspace, "other-images", 30)
    for path in workspace.submissions.glob("mate/*/*.json*"):
        path.unlink()
    for path in workspace.submissions.glob("other-images/*/config.json"):
        path.write_text(json.dumps({"recipe": "2dhg", "images_sha256": "other"}))
    page = Page(write_report(workspace, tmp_path / "report.html").read_text())
    assert "mate: its folds can't be verified" in page.text
    assert "other-images was trained on other images" in page.text
    assert [trace["name"] for trace in page.block("figures")["joint"]["data"]] == ["mate, epoch 2"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: the page's scripts aren't run")
def test_the_skeleton_rotates_and_the_console_stays_empty(report: Path, tmp_path: Path):
    before, first, after, last, drawn, names = turn(report.read_text(), tmp_path)
    assert before != after
    assert first != last
    assert drawn > 0
    assert names == ["truth", "predicted", "predicted", "predicted"]
