"""`make check`: problems, warnings and facts."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from competition.cli.tables import facts_table, faults_table
from competition.data import labels as dataset
from competition.data.check import ImageFacts, check
from tests.data.damage import blank, change_labels, change_lines, check_all, encoded, with_value
from tests.helpers import Command, N


def test_check_lists_all_problems_with_up_to_ten_places_each(command: Command, own_data: Path, capsys):
    images = [own_data / "images" / name for name in (own_data / "annot/train_images.txt").read_text().split()]
    for number, path in enumerate(images[10:30]):
        path.unlink()
        if number >= 12:  # the first twelve stay missing
            path.write_bytes((b"", b"hello", blank(256, 200), encoded(blank(256, 256), "CMYK"))[number % 4])
    change_lines(lambda lines: ["", f"/tmp/{lines[1]}", lines[5], "", *lines[4:]])(own_data)
    change_labels("pose2d", with_value(np.nan, 2))(own_data)
    change_labels("pose3d", lambda a: a[:39] / 1000)(own_data)
    (own_data / "annot/valid_images.txt").write_text(f"{images[35].name}\n[bold].jpg\n")
    assert command("check", "--all", data=own_data) == 2
    printed = capsys.readouterr().out
    for kind in (
        "blank lines", "a path", "duplicate names", "training images in the test list", "pose3d has 39 rows",
        "pose2d has NaN", "metres?", "missing images", "an empty file", "not a JPEG", "not 256x256 px", "CMYK",
        "names not like", "[bold].jpg",
    ):  # fmt: skip
        assert kind in printed, printed
    found = check_all(own_data)
    (missing,) = (problem for problem in found.problems if problem.what == "missing images")
    assert len(missing.places) == 13  # including [bold].jpg
    cells = faults_table(found, own_data, lambda command: command.name).columns[2].cells
    (where,) = (cell.plain for cell in cells if cell.plain.startswith("images, 13: "))
    assert where.endswith(" and 3 more")
    assert where.count(".jpg") == 10
    assert str(own_data) not in where


def test_a_valid_folder_passes_the_check(command: Command, data: Path, capsys):
    assert command("check", data=data) == 0
    out = capsys.readouterr().out
    assert "as named" in out
    assert "none yet; run `make folds" in out
    found = check_all(data)
    assert not found.problems
    assert not found.warnings
    assert found.training.images == N
    assert found.training.subjects | {"S1": 8, "S5": 8} == found.training.subjects
    assert found.images == ImageFacts(listed=52, decoded=52, sampled=False, duplicates=0, unlisted=0)
    assert "52 of 52" in out


def test_the_findings_are_also_written_as_json(command: Command, own_data: Path, tmp_path: Path):
    file = tmp_path / "check.json"
    assert command("check", "--json", str(file), data=own_data) == 0
    (own_data / "annot/valid_images.txt").write_text("holiday.jpg\n")
    valid = json.loads(file.read_text())
    assert command("check", "--json", str(file), data=own_data) == 2
    found = json.loads(file.read_text())
    assert list(valid) == list(found) == ["problems", "warnings", "facts"]
    assert list(valid["facts"]) == ["training", "test", "labels", "folds", "images"]
    assert valid["facts"]["training"]["images"] == N
    assert valid["facts"]["labels"]["leg_order"] < 0
    assert valid["facts"]["folds"]["missing"] == "none yet"
    assert [list(problem) for problem in found["problems"]] == [["what", "where", "fix"]]
    assert found["problems"][0]["where"] == f"{own_data / 'images'}, 1: holiday.jpg"
    (names,) = found["warnings"]
    assert "`make folds" in names["fix"]
    assert f"DATA={own_data} " in names["fix"]
    assert 'ARGS="--strategy sequence"`' in names["fix"]


def test_facts_that_are_not_finite_are_null_in_json(command: Command, own_data: Path, tmp_path: Path):
    file = tmp_path / "check.json"
    change_labels("pose3d", lambda a: a * np.float32(1e30))(own_data)
    assert command("check", "--json", str(file), data=own_data) == 2
    facts = json.loads(file.read_text())["facts"]["labels"]
    assert facts["mean_distance_mm"] is None
    assert set(facts["bones_mm"].values()) == {None}
    assert facts["root_offset_mm"] == 0


def test_only_a_sample_of_a_large_folder_is_decoded_without_all(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("competition.data.check.SAMPLE", 10)
    found = check(data, data / "folds", all_images=False)
    assert (found.images.decoded, found.images.listed, found.images.sampled) == (9, 52, True)
    assert check_all(data).images.decoded == 52


@pytest.mark.parametrize("there", ["nothing", "pictures"])
def test_a_folder_of_something_else_is_rejected_in_one_line(command: Command, tmp_path: Path, there: str, capsys):
    if there == "pictures":
        (tmp_path / "images").mkdir()
        (tmp_path / "images/cat.jpg").write_bytes(blank(256, 256))
    assert command("check", data=tmp_path) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(
        r"error: no competition at .*: expected images/\*.jpg, annot/train_images.txt, .*\n", printed.err
    )


def test_check_warns_about_odd_names_duplicates_and_bone_lengths(own_data: Path):
    names = (own_data / "annot/train_images.txt").read_text().split()
    images = own_data / "images"
    (images / "holiday.jpg").write_bytes((images / names[4]).read_bytes())
    change_lines(lambda lines: ["holiday.jpg", *lines[1:]])(own_data)
    change_labels("pose3d", lambda a: a * np.where(np.arange(N) == 5, 1.3, 1).astype(np.float32)[:, None, None])(
        own_data
    )
    found = check_all(own_data)
    assert not found.problems
    assert not found.names_match
    odd = {warning.what: list(warning.places) for warning in found.warnings}
    assert odd["names not like S1_Directions_1.54138969_000001.jpg"] == ["holiday.jpg"]
    assert odd["images with the same bytes as another"] == [f"holiday.jpg same as {names[4]}"] or odd[
        "images with the same bytes as another"
    ] == [f"{names[4]} same as holiday.jpg"]
    (loose,) = odd["bones whose length changes within a subject"]
    assert re.fullmatch(r"S\d+ by 1\d\d mm", loose)
    assert found.images.unlisted == 1  # replaced by holiday.jpg in the list


def test_check_warns_about_leaks_between_folds(command: Command, own_data: Path, tmp_path: Path):
    def leaks(*arguments: str) -> list[str]:
        assert command("folds", "--force", *arguments, data=own_data) == 0
        found = check(own_data, tmp_path / "folds", all_images=True)
        assert not found.problems
        return [warning.what for warning in found.warnings]

    assert leaks() == []
    assert [what.split()[1] for what in leaks("--strategy", "holdout")] == ["images"]
    rows = dataset.read_labels(own_data).images
    first, other = (next(i for i, name in enumerate(rows) if name.startswith(s)) for s in ("S1_", "S5_"))

    def copy(array: np.ndarray) -> np.ndarray:
        array[other, 1:] = array[first, 1:] + 0.3
        return array

    change_labels("pose3d", copy)(own_data)
    assert any(what.startswith("held-out poses within 1 mm of a training pose") for what in leaks())
    (own_data / "annot/train_images.txt").write_text("\n".join([*rows[:-2], rows[-1], rows[-2]]))
    found = check(own_data, tmp_path / "folds", all_images=True)
    assert "lists other images" in found.folds.missing
    cells = [cell.plain for cell in facts_table("", found, lambda command: command.name).columns[2].cells]
    assert f"{tmp_path}/folds/folds.csv lists other images than annot/train_images.txt; run folds" in cells
