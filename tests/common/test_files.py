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


REFUSED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM)


@pytest.mark.parametrize(("codes", "written"), [(REFUSED, True), ((errno.EIO, errno.ENOSPC, errno.EDQUOT), False)])
@pytest.mark.parametrize(("call", "on_folder"), [("fsync", True), ("open", True), ("fsync", False)])
def test_only_a_refused_sync_of_a_folder_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: tuple[int, ...], written: bool, call: str, on_folder: bool
):
    """Network drives and drivers of user programs don't sync folders; some folders can't be opened for reading."""
    work = getattr(os, call)
    for code in codes:
        with monkeypatch.context() as patch:

            def refuse(target: object, *arguments: int, code: int = code) -> object:
                is_folder = os.path.isdir(target) if call == "open" else os.path.isdir(f"/proc/self/fd/{target}")
                if is_folder == on_folder:
                    raise OSError(code, os.strerror(code))
                return work(target, *arguments)

            patch.setattr(os, call, refuse)
            if on_folder and written:
                files.write_text(tmp_path / f"{code}.json", "new")
                (tmp_path / f"{code}").mkdir()
                files.rename_folder(tmp_path / f"{code}", tmp_path / f"{code}-renamed")
                assert (tmp_path / f"{code}-renamed").is_dir()
            else:
                with pytest.raises(OSError) as raised:
                    files.write_text(tmp_path / f"{code}.json", "new")
                assert raised.value.errno == code
        assert (tmp_path / f"{code}.json").exists() == on_folder  # it was renamed before


@pytest.mark.parametrize("error", [None, "taken"])
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EBADF])
def test_a_file_system_without_locks_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, code: int, error: str | None
):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with files.locked(tmp_path, error):
        files.write_text(tmp_path / "a.json", "new")
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: its file system has no locks")


def test_an_error_while_a_lock_is_held_is_not_taken_for_the_locks(tmp_path: Path):
    with pytest.raises(BlockingIOError), files.locked(tmp_path, "taken"):
        raise BlockingIOError


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.to_path("~/a b") == tmp_path / "a b"
    assert files.to_path(Path("~")) == tmp_path
    assert files.to_path("a/~/b~") == Path("a/~/b~")
    for path, message in (("", "an empty path"), ("~no_such_user/a", "no_such_user.*write ./~no_such_user/a")):
        with pytest.raises(UserError, match=message):
            files.to_path(path)


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
