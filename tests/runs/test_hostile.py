"""Untrusted files: no code in them is executed, and every fault is reported in one line."""

import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from competition.common.errors import RunError, UserError
from competition.common.files import parse_json
from competition.common.pose_csv import write_poses
from competition.common.records import from_json
from competition.runs.candidates import candidates
from competition.runs.folders import read_valid
from competition.runs.record import read_log
from tests.helpers import N_TEST, TINY, Command, Evil, assert_read_or_one_line_error, damaged

# arrays


def _npz(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return path


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


IDS, POSE = np.arange(1, 4), np.zeros((3, 17, 3), np.float32)
TEST_POSE = np.tile(10.0 * np.arange(17)[:, None], (N_TEST, 1, 3))
HUGE = _npy(np.zeros((3, 17, 3), np.float32)).replace(b"(3, 17, 3), }         ", b"(9000000000, 17, 3), }")
WRONG_ARRAYS: dict[str, dict[str, bytes]] = {
    "a pickled pose": {"id": _npy(IDS), "pose": _npy(np.array([Evil(Path("trap"))], object))},
    "pickled Ids": {"id": _npy(np.array([Evil(Path("trap"))], object)), "pose": _npy(POSE)},
    "no pose": {"id": _npy(IDS)},
    "a pose that is a raw pickle": {"id": _npy(IDS), "pose": pickle.dumps(Evil(Path("trap")))},
    "a pose that is text": {"id": _npy(IDS), "pose": b"0.0"},
    "a shape of terabytes": {"id": _npy(IDS), "pose": HUGE},
    "a pose of strings": {"id": _npy(IDS), "pose": _npy(np.full((3, 17, 3), "far"))},
    "a complex pose": {"id": _npy(IDS), "pose": _npy(POSE.astype(complex))},
    "a boolean pose": {"id": _npy(IDS), "pose": _npy(POSE > 0)},
    "a flat pose": {"id": _npy(IDS), "pose": _npy(POSE.reshape(3, 51))},
    "a scalar Id": {"id": _npy(np.array(1)), "pose": _npy(POSE)},
    "float Ids": {"id": _npy(IDS.astype(float)), "pose": _npy(POSE)},
    "a pose that is not finite": {"id": _npy(IDS), "pose": _npy(POSE + np.float32("nan"))},
    "a duplicate Id": {"id": _npy(np.array([1, 2, 2])), "pose": _npy(POSE)},
    "a header with code": {"id": _npy(IDS), "pose": _npy(POSE).replace(b"{'descr'", b"(id or '')")},
}


@pytest.mark.parametrize("name", WRONG_ARRAYS)
def test_invalid_arrays_are_rejected(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = _npz(tmp_path / "valid_epoch01.npz", **WRONG_ARRAYS[name])
    with pytest.raises(RunError, match=r"valid_epoch01\.npz: ") as caught:
        read_valid(path)
    assert "\n" not in str(caught.value)
    assert not Path("trap").exists()


@given(data=st.data())
def test_damaged_arrays_are_rejected_or_read(scratch: Path, data: st.DataObject):
    packed = io.BytesIO()
    (np.savez if data.draw(st.booleans()) else np.savez_compressed)(packed, id=IDS, pose=POSE)
    (scratch / "damaged.npz").write_bytes(damaged(packed.getvalue(), data))
    assert_read_or_one_line_error(lambda: read_valid(scratch / "damaged.npz"))


def test_the_board_rejects_a_decompression_bomb(command: Command, tmp_path: Path, monkeypatch, capsys):
    fold = tmp_path / "runs/bomb/fold0"
    fold.mkdir(parents=True)
    np.savez_compressed(fold / "valid_epoch01.npz", id=np.zeros(1000, int), pose=POSE)
    (fold / "test_epoch01.csv.gz").write_bytes(b"")
    (fold / "log.jsonl").write_text('{"epoch": 1, "valid_mpjpe": 60.0}\n')
    assert command("board") == 0
    monkeypatch.setattr("competition.runs.folders.MAX_NPZ_BYTES", 4000)
    assert command("board") == 2
    assert "valid_epoch01.npz: more than 0 MiB when decompressed" in capsys.readouterr().err


# JSON

WRONG_JSON = {
    "empty": "",
    "garbage": "\0\1\2",
    "truncated": '{"a": 1',
    "a list": "[1]",
    "nested a hundred thousand times": '{"a":' * 100_000,
    "lists nested a hundred thousand times": '{"a":' + "[" * 100_000,
    "not a number": '{"a": NaN}',
    "infinite": '{"a": -Infinity}',
    "out of range": '{"a": 1e999}',
    "ten thousand digits": '{"a": ' + "9" * 10_000 + "}",
    "trailing data": '{"a": 1} {"a": 2}',
}


@pytest.mark.parametrize("name", WRONG_JSON)
def test_json_is_parsed_strictly(command: Command, tmp_path: Path, name: str, capsys):
    blend, fold = tmp_path / "runs/other", tmp_path / "runs/run/fold0"
    blend.mkdir(parents=True)
    (blend / "blend.json").write_text(WRONG_JSON[name])
    fold.mkdir(parents=True)
    (fold / "config.json").write_text(WRONG_JSON[name])
    (fold / "done.json").write_text("{}")
    for arguments, file in ((("verify", str(fold)), "config.json"), (("verify", str(blend)), "blend.json")):
        capsys.readouterr()
        assert command(*arguments) == 2
        error = capsys.readouterr().err
        assert file in error
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert len(error) < 400
    assert command("board") == 2
    (fold / "log.jsonl").write_text(WRONG_JSON[name] + "\n")
    with pytest.raises(RunError, match=r"log\.jsonl is damaged"):
        read_log(fold)


@dataclass(frozen=True, kw_only=True)
class Claims:
    a: int
    b: int | None = None


def test_json_values_of_wrong_types_are_rejected():
    assert from_json(Claims, parse_json('{"a": 1}', "x"), "x") == Claims(a=1)
    for text, message in (
        ('{"a": "1"}', "x: 'a' is str, expected int"),
        ('{"a": null}', "x: 'a' is NoneType, expected int"),
        ("{}", "x lacks 'a'"),
        ('{"a": [1]}', "x: 'a' is list, expected int"),
    ):
        with pytest.raises(UserError, match=message):
            from_json(Claims, parse_json(text, "x"), "x")


def test_a_log_with_invalid_rows_is_rejected(tmp_path: Path):
    huge = f'{{"epoch": 1, "valid_mpjpe": {"9" * 400}}}'  # beyond the range of floats
    typed = ('{"epoch": "1", "valid_mpjpe": 3}', '{"epoch": 1, "valid_mpjpe": "3"}', '{"valid_mpjpe": 3}')
    for row in (*typed, huge, "3", ""):
        (tmp_path / "log.jsonl").write_text(row + "\n")
        with pytest.raises(RunError, match=r"log\.jsonl is damaged .line 1"):
            read_log(tmp_path)


# names


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "sub/file"])
def test_a_manifest_may_not_name_files_in_other_folders(command: Command, tmp_path: Path, name: str, capsys):
    fold = tmp_path / "runs/run/fold0"
    fold.mkdir(parents=True)
    (fold / "config.json").write_text("{}")
    (fold / "done.json").write_text(json.dumps({"best_epoch": 1, "valid_mpjpe": 1.0, "files": {name: "00"}}))
    assert command("verify", str(fold)) == 2
    assert f"'{name}' is a path, expected names of files" in capsys.readouterr().err


def test_verifying_a_manifest_that_names_a_device_does_not_hang(command: Command, tmp_path: Path, capsys):
    blend = tmp_path / "runs/blend"
    blend.mkdir(parents=True)
    (blend / "blend.json").write_text(json.dumps({"candidates": ["a:1"], "inputs": {"/dev/zero": "00"}}))
    assert command("verify", str(blend)) == 2
    assert "/dev/zero: is missing" in capsys.readouterr().out


INVALID_RUN_NAMES = ["..", "../up", "/tmp/up", "a/b", ".hidden", "-flag", "a\nb", "a b", "$(id)", "n" * 101]


@pytest.mark.parametrize("name", INVALID_RUN_NAMES)
def test_a_run_name_that_leaves_its_folder_is_rejected(command: Command, tmp_path: Path, name: str, capsys):
    assert command("folds", "--k", "2") == 0
    before = sorted(tmp_path.rglob("*"))
    for arguments in (("train", *TINY, "--run"), ("predict", "--run")):
        capsys.readouterr()
        assert command(*arguments[:-1], f"{arguments[-1]}={name}") == 2
        error = capsys.readouterr().err
        assert "expected letters, digits" in error
        assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    if name == "../up":
        assert command("train", *TINY, "--init", name) == 2
        assert "expected letters, digits" in capsys.readouterr().err


def test_control_characters_and_markup_in_folder_names_are_printed_safely(command: Command, tmp_path: Path, capsys):
    names = ["[red]a", "[", ":smiley:", "b\x1b[2Jc", "line\nend", "$\\foo$"]
    for name in names:
        fold = tmp_path / "runs" / name / "fold0"
        fold.mkdir(parents=True)
        np.savez(fold / "valid_epoch01.npz", id=IDS, pose=POSE + np.arange(17)[:, None])
        write_poses(fold / "test_epoch01.csv.gz", range(1, N_TEST + 1), TEST_POSE)
    assert {candidate.run for candidate in candidates(tmp_path / "runs")} == set(names)
    assert command("board") == 0
    assert command("blend", "--method", "mean", "--epochs", "last") == 0
    assert command("board") == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    before, unverified, _ = printed.partition(": their folds can't be verified")
    assert unverified
    line = before[-80:]
    for name in ("[red]a", ":smiley:"):
        assert name in line  # in the warning, not only in the table
    for name in ("[red]a", ":smiley:", "b?[2Jc", "$\\foo$"):
        assert name in printed
    assert command("blend", "--runs", "x\x1b[2J\n") == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert error.count("\n") == 1


def test_files_of_an_earlier_blend_are_replaced_without_being_read(
    command: Command, data: Path, tmp_path: Path, trap: Path
):
    """The journal, weights and blend.json of the earlier blend are pickles that would execute code."""
    out = tmp_path / "runs/blend"
    out.mkdir(parents=True)
    for name in ("study.journal", "weights.csv", "weights.png", "blend.json"):
        (out / name).write_bytes(pickle.dumps(Evil(trap)))
    file = tmp_path / "a.csv"
    write_poses(file, range(1, N_TEST + 1), TEST_POSE)
    assert command("blend", "--files", str(file), "--out", str(out)) == 0
    assert sorted(path.name for path in out.iterdir()) == ["blend.json", "submission.csv.gz"]
    assert not trap.exists()


def test_credentials_are_never_written_or_printed(command: Command, tmp_path: Path, monkeypatch, capfd):
    secret = "KGAT_5ecret0fTheEnvironment"
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("HTTPS_PROXY", f"http://someone:{secret}@127.0.0.1:9")
    assert command("folds", "--k", "2") == 0
    assert command("train", *TINY, "--epochs", "1", "--fold", "0") == 0
    file = tmp_path / "a.csv"
    poses = np.random.default_rng(0).normal(0, 300, (N_TEST, 17, 3))
    poses[:, 0] = 0
    write_poses(file, range(1, N_TEST + 1), poses)
    sent = ("submit", "--file", str(file), "--competition", "x", "--message", "x", "--yes", "--debug")
    with monkeypatch.context() as patch:
        patch.setattr("competition.leaderboard.submit.call", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            command(*sent)
    assert command("train", *TINY, "--epochs", "1", "--fold", "9", "--debug") == 2
    printed = capfd.readouterr()
    assert secret not in printed.out + printed.err
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) > 10
    assert not [path for path in found if secret.encode() in path.read_bytes()]
