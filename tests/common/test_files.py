"""Files are written atomically; a lock ends with its holder."""

import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from competition.common import files
from competition.common.errors import UserError
from tests.helpers import failing, names_in


def test_a_full_disk_leaves_the_old_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a.json", "a.csv", "a.csv.gz"):
        files.write_text(tmp_path / name, "before")
        before = (tmp_path / name).read_bytes()
        with failing(monkeypatch, name, errno.ENOSPC), pytest.raises(OSError, match="No space left"):
            files.write_text(tmp_path / name, "after" * 100)
        assert (tmp_path / name).read_bytes() == before
    assert names_in(tmp_path) == {"a.json", "a.csv", "a.csv.gz"}


def test_a_file_is_renamed_after_it_is_complete_and_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, done = tmp_path / "a.json", []
    for name in ("fsync", "replace"):
        work = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, work=work, name=name: (done.append(name), work(*a)))
    files.write_text(path, "before")
    assert done == ["fsync", "replace", "fsync"]
    with open(path) as opened:
        files.write_text(path, "after")
        assert opened.read() == "before"  # a reader has the old or the new content, never a part
    with files.atomic(path) as one, files.atomic(path) as other:  # as two processes would
        one.write(b"one"), other.write(b"other")
    assert path.read_text() == "one"
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"loss": float("nan")})
    assert path.read_text() == "one"
    assert names_in(tmp_path) == {"a.json"}


def test_a_lock_ends_with_its_holder_even_if_forked_loaders_are_alive(tmp_path: Path):
    """After kill -9, loader processes notice only after seconds that their parent is gone."""
    context = multiprocessing.get_context("fork")
    started = context.Event()

    def load() -> None:
        started.set()
        time.sleep(60)

    with files.locked(tmp_path, "taken"):
        child = context.Process(target=load)
        child.start()
        assert started.wait(30)
        with pytest.raises(UserError, match="taken"), files.locked(tmp_path, "taken"):
            pass
    try:
        with files.locked(tmp_path, "taken"):
            assert child.is_alive()
    finally:
        child.kill()
        child.join()
    with open(tmp_path / "later", "wb") as later:  # may get the lock's file descriptor; a fork must not close it
        child = context.Process(target=os.write, args=(later.fileno(), b"x"))
        child.start()
        child.join()
    assert child.exitcode == 0
