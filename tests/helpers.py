"""Shared helpers: the size of the small competition, flags of a tiny network, comparison of folders, write faults."""

import errno
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import strategies as st

from competition.common import files
from competition.common.errors import UserError

Command: TypeAlias = Callable[..., int]  # the fixture `command`: subcommand and arguments -> exit code

N, N_TEST = 40, 12

# flags of a network that trains in a second
TINY = ["--model", "3dhg-small", "--channels", "16", "--depths", "1,8", "--input-size", "64", "--batch", "8"]
TINY += ["--optimizer", "adam", "--schedule", "constant", "--lr", "1e-3", "--ema", "none", "--precision", "fp32"]
TINY += ["--no-augment", "--augmentation", "full", "--no-flip-test"]
TIMINGS = ("seconds", "images_per_second")


def without_make() -> dict[str, str]:
    """Return the environment without the variables of a make that runs the tests."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}


def contents(folder: Path) -> dict[str, object]:
    """Return every file's bytes by path; the log and the manifest are parsed, without timings."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.name in ("log.jsonl", "done.json"):
            rows = [json.loads(line) for line in path.read_text().replace("\n  ", "").replace("\n}", "}").splitlines()]
            found[path.name] = [{k: v for k, v in row.items() if k not in TIMINGS} for row in rows]
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """Change some bytes, and maybe cut off the end."""
    changed = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        changed[place] = data.draw(st.integers(0, 255))
    return bytes(changed[: data.draw(st.integers(0, 2 * len(content)))])


def assert_read_or_one_line_error(read: Callable[[], object]) -> None:
    """Check that `read` returns or raises UserError with a message of one line."""
    message = ""
    try:
        read()
    except UserError as error:
        message = str(error)
    assert "\n" not in message


class FullDisk(io.FileIO):
    """Writes seven bytes, then raises OSError."""

    code = errno.ENOSPC

    def write(self, content: object, /) -> int:
        super().write(memoryview(content)[:7])  # type: ignore[arg-type]
        raise OSError(self.code, os.strerror(self.code))


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> Iterator[None]:
    """Let every write of files called `name` fail: on opening without permission, otherwise after a few bytes."""

    def opened(path: Path, mode: str = "r", **keywords: object) -> object:
        if "x" not in mode or not Path(path).name.startswith(f".{name}."):
            return open(path, mode, **keywords)  # type: ignore[call-overload]
        if code in (errno.EACCES, errno.EROFS):
            raise OSError(code, os.strerror(code), str(path))
        handle = FullDisk(path, "xb")
        handle.code = code
        return handle

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", opened, raising=False)
        yield


def names_in(folder: Path) -> set[str]:
    """Return the names of all files in a folder and its subfolders."""
    return {path.name for path in folder.rglob("*") if path.is_file()}
