"""Folds never split a group, are balanced and reproducible, and are kept when runs have used them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.common.errors import Command, FoldsError
from competition.common.files import sha256_lines, write_json
from competition.data import folds
from competition.data.leaks import NEAR_MM, near_copies, split_groups
from competition.data.names import best_strategy
from competition.runs.candidates import runs_using_folds
from competition.runs.provenance import Provenance, hashes_now

IMAGES = [
    f"{subject}_{action}.{camera}_{frame:06d}.jpg"
    for subject in ("S1", "S5", "S6", "S7", "S8")
    for action in ("Walking_1", "Sitting", "Eating_2")
    for camera in ("54138969", "60457274")
    for frame in (1, 6, 11)
]


@pytest.mark.parametrize(("strategy", "k"), [("subject", None), ("subject", 2), ("sequence", None), ("sequence", 3)])
def test_no_group_is_split_and_folds_are_balanced(strategy: str, k: int | None):
    table = folds.make_folds(IMAGES, strategy=strategy, k=k)
    assert tuple(table.columns) == folds.COLUMNS
    assert (table.groupby(strategy)["fold"].nunique() == 1).all()
    sizes = table["fold"].value_counts()
    assert len(sizes) == (k or 5)
    assert sizes.max() - sizes.min() <= table[strategy].value_counts().max()
    pd.testing.assert_frame_equal(table, folds.make_folds(IMAGES, strategy=strategy, k=k))


def test_an_assertion_fails_when_a_group_is_split(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folds, "_balance", lambda groups, k, seed: dict.fromkeys(groups, 0) | {"S1": 1})
    table = folds.make_folds(IMAGES, k=2)
    table.loc[0, "fold"] = 0
    with pytest.raises(AssertionError, match="more than one fold"):
        folds._assert_no_leak(table, "subject")
    table = folds.make_folds(IMAGES, k=2).assign(sequence="same")
    with pytest.raises(AssertionError, match="sequence same is in more than one fold"):
        folds._assert_no_leak(table, "subject")
    monkeypatch.setattr(folds, "_balance", lambda groups, k, seed: dict.fromkeys(groups, 0) | {"S1": 2})
    with pytest.raises(AssertionError, match="a fold is empty"):
        folds.make_folds(IMAGES, k=2)


def test_holdout_is_a_tenth_of_a_small_set_and_2188_of_a_large_one():
    assert folds.make_folds(IMAGES, strategy="holdout")["fold"].tolist().count(0) == len(IMAGES) // 10
    many = [f"S1_Photo.54138969_{frame:06d}.jpg" for frame in range(30_000)]
    fold = folds.make_folds(many, strategy="holdout", seed=1)["fold"]
    assert (fold == 0).sum() == 2188
    assert set(fold) == {-1, 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "subjects"}, "did you mean 'subject'"),
        ({"k": 6}, "expected 2 to 5"),
        ({"k": 1}, "expected 2 to 5"),
        ({"strategy": "holdout", "k": 3}, "one fold"),
    ],
)
def test_impossible_folds_are_rejected(arguments: dict, message: str):
    with pytest.raises(FoldsError, match=message):
        folds.make_folds(IMAGES, **arguments)


def test_names_without_a_subject_are_rejected_except_for_holdout():
    with pytest.raises(FoldsError, match=r"train_images.txt:2: 'b.jpg'"):
        folds.make_folds([IMAGES[0], "b.jpg"])
    assert len(folds.make_folds(["a.jpg", "b.jpg"], strategy="holdout")) == 2


def test_without_a_subject_the_sequence_is_the_part_before_the_frame_number():
    names = [
        f"{take}{camera}_{frame:04d}.jpg" for take in ("a_1", "b", "c") for camera in ("", ".7") for frame in (1, 2)
    ]
    table = folds.make_folds(names, strategy="sequence", k=3)
    assert table["sequence"].tolist() == ["a_1"] * 4 + ["b"] * 4 + ["c"] * 4
    assert table["camera"].tolist() == ["", "", "7", "7"] * 3
    assert (table.groupby("sequence")["fold"].nunique() == 1).all()
    with pytest.raises(FoldsError, match=r"'holiday.jpg' doesn't contain its sequence"):
        folds.make_folds([*names, "holiday.jpg"], strategy="sequence")
    with pytest.raises(FoldsError, match="doesn't contain its subject"):
        folds.make_folds(names)


def test_near_copies_equal_those_of_all_pairwise_distances():
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 200, (60, 17, 3))
    pose[30:] = pose[:30] + rng.normal(0, 1, (30, 17, 3)) * np.linspace(0, 1.2, 30)[:, None, None]
    fold = rng.integers(-1, 3, 60)
    rms = np.sqrt(np.square(pose[:, None] - pose[None]).sum(-1).mean(-1))
    expected = ((rms < NEAR_MM) & (fold[:, None] != fold)).any(1) & (fold >= 0)
    assert 5 < expected.sum() < 50
    np.testing.assert_array_equal(near_copies(pose, fold), expected)


def test_groups_in_several_folds_are_found():
    groups = ["a", "a", "b", "b", None, None, "c"]
    fold = np.array([0, 1, 2, 2, 0, 1, -1])
    assert split_groups(groups, fold).tolist() == [True, True, False, False, False, False, False]
    assert split_groups(["a", "a"], np.array([0, -1])).tolist() == [True, False]


def _write(folder: Path, *, k: int, users: list[str], force: bool = False) -> bool:
    table = folds.make_folds(IMAGES, k=k)
    return folds.write_folds(folder, table, strategy="subject", seed=0, users=users, force=force)


def test_used_folds_are_kept_unless_forced(tmp_path: Path):
    assert _write(tmp_path, k=5, users=[])
    assert not _write(tmp_path, k=5, users=["3dhg"])
    before = (tmp_path / "folds.csv").read_bytes()
    with pytest.raises(FoldsError, match="used by 3dhg"):
        _write(tmp_path, k=2, users=["3dhg"])
    assert (tmp_path / "folds.csv").read_bytes() == before
    (tmp_path / "folds.json").unlink()
    assert _write(tmp_path, k=5, users=["3dhg"])  # the same folds; folds.json is written again
    assert folds.read_folds(tmp_path, sha256_lines(IMAGES))[1].k == 5
    assert _write(tmp_path, k=2, users=["3dhg"], force=True)


def test_a_kill_between_the_two_files_leaves_no_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    _write(tmp_path, k=5, users=[])
    with monkeypatch.context() as patch:
        patch.setattr(folds, "write_record", killed)
        with pytest.raises(KeyboardInterrupt):
            _write(tmp_path, k=2, users=[])
    with pytest.raises(FoldsError, match="no folds at"):
        folds.read_folds(tmp_path, sha256_lines(IMAGES))
    assert _write(tmp_path, k=2, users=[])
    assert folds.read_folds(tmp_path, sha256_lines(IMAGES))[1].k == 2


def test_users_are_found_by_the_hash_in_their_configuration(tmp_path: Path):
    _write(tmp_path, k=5, users=[])
    _, meta = folds.read_folds(tmp_path, sha256_lines(IMAGES))
    write_json(tmp_path / "runs/a/fold0/config.json", {"folds_sha256": meta.folds_sha256})
    write_json(tmp_path / "runs/b/fold0/config.json", {"folds_sha256": "other"})
    assert runs_using_folds(tmp_path / "runs", tmp_path) == ["a"]


def test_folds_of_other_images_or_changed_by_hand_are_rejected(tmp_path: Path):
    with pytest.raises(FoldsError, match="no folds at") as caught:
        folds.read_folds(tmp_path, "")
    assert caught.value.command == Command("folds")
    _write(tmp_path, k=5, users=[])
    fold, meta = folds.read_folds(tmp_path, sha256_lines(IMAGES))
    assert (len(fold), meta.k, meta.strategy) == (len(IMAGES), 5, "subject")
    with pytest.raises(FoldsError, match="lists other images"):
        folds.read_folds(tmp_path, sha256_lines(IMAGES[1:]))
    text = (tmp_path / "folds.csv").read_text()
    (tmp_path / "folds.csv").write_text(text.replace(",0\n", ",1\n", 1))
    with pytest.raises(FoldsError, match="changed after"):
        folds.read_folds(tmp_path, sha256_lines(IMAGES))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("folds.csv", ",sequence,", ",take,", "columns Id, image, subject, action, take, .*, expected"),
        ("folds.csv", "S1_Sitting.54138969_000001.jpg,", "", "can't be read .*: make the folds again"),
        ("folds.csv", "1,S1_Walking_1.54138969_000001.jpg,S1,Walking,S1_Walking_1,54138969,", "1,", "can't be read"),
        ("folds.csv", ",0\n", ",half\n", "can't be read"),
        ("folds.csv", ",0\n", f",{10**30}\n", "can't be read"),
        ("folds.json", "{", "", "can't be read .*not valid JSON"),
        ("folds.json", '"k": 5', '"k": 4', "folds.json does not match the 5 folds"),
        ("folds.json", '"images_sha256": "', '"images_sha256": "0', "folds.json does not match the 5 folds"),
    ],
)
def test_damaged_or_inconsistent_folds_are_rejected(tmp_path: Path, file: str, old: str, new: str, message: str):
    _write(tmp_path, k=5, users=[])
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1) if new or file.endswith("json") else "")
    with pytest.raises(FoldsError, match=message):
        folds.read_folds(tmp_path, sha256_lines(IMAGES))


WINDOWS = {
    "CRLF": lambda content: content.replace(b"\n", b"\r\n"),
    "a byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "both": lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_folds_saved_on_windows_are_the_same_folds(tmp_path: Path, name: str):
    _write(tmp_path, k=5, users=[])
    expected = folds.read_folds(tmp_path, sha256_lines(IMAGES))
    for file in ("folds.csv", "folds.json"):
        path = tmp_path / file
        path.write_bytes(WINDOWS[name](path.read_bytes()))
    fold, meta = folds.read_folds(tmp_path, sha256_lines(IMAGES))
    np.testing.assert_array_equal(fold, expected[0])
    assert meta == expected[1]
    assert not _write(tmp_path, k=5, users=["3dhg"])
    write_json(tmp_path / "runs/a/fold0/config.json", {"folds_sha256": meta.folds_sha256})
    assert runs_using_folds(tmp_path / "runs", tmp_path) == ["a"]
    assert hashes_now(None, tmp_path, [Provenance(folds_sha256="")]).folds_sha256 == meta.folds_sha256


ODD_NAMES = {  # the strategy that the names allow, and the names
    "upper case": ("subject", [f"S{subject}_Photo.1_{frame}.JPG" for subject in (1, 5) for frame in range(5)]),
    "no extension": ("subject", [f"S{subject}_Photo.1_{frame}" for subject in (1, 5) for frame in range(5)]),
    "missing values": ("sequence", [f"{word}_{frame}" for word in ("NA", "null", "nan", "None") for frame in range(5)]),
    "numbers": ("sequence", [f"{word}_{frame}.jpg" for word in ("1", "01", "1e5", "-1", "True") for frame in range(5)]),
    "punctuation": (
        "sequence",
        [f"{word}_{frame}" for word in ('a"b', "a,b", "a b", "#a", "=a") for frame in range(5)],
    ),
    "unicode": (
        "sequence",
        [f"{word}_{frame}.jpg" for word in ("日本", "Übung", "U\u0308bung", "é") for frame in range(5)],
    ),
    "only numbers": ("holdout", [f"{frame:06d}" for frame in range(12)]),
    "only missing values": (
        "holdout",
        ["NA", "null", "nan", "NaN", "None", "N-A", "#NA", "<NA>", "", "-nan", "1.#IND"],
    ),
    "one sequence": ("holdout", [f"img_{frame}.jpg" for frame in range(12)]),
}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_survive_the_csv(tmp_path: Path, name: str):
    best, images = ODD_NAMES[name]
    assert best_strategy(images) == best
    table = folds.make_folds(images, strategy=best)
    assert folds.write_folds(tmp_path, table, strategy=best, seed=0, users=[], force=False)
    fold, meta = folds.read_folds(tmp_path, sha256_lines(images))
    assert fold.tolist() == table["fold"].tolist()
    assert meta.k == {"subject": 2, "sequence": min(5, table["sequence"].nunique()), "holdout": 1}[best]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_impossible_strategies_name_one_that_works(name: str):
    best, images = ODD_NAMES[name]
    for strategy in folds.STRATEGIES[: folds.STRATEGIES.index(best)]:
        with pytest.raises(FoldsError) as caught:
            folds.make_folds(images, strategy=strategy)
        assert caught.value.command == Command("folds", {"strategy": best})
