"""Reading files, and writing them atomically: a temporary file in the same folder, fsync, rename.

No other module renames files.
"""

import codecs
import errno
import fcntl
import gzip
import hashlib
import json
import logging
import math
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from competition.common.errors import UserError

log = logging.getLogger(__name__)

AnyPath: TypeAlias = str | os.PathLike[str]
MAX_TEXT_BYTES = 1 << 29  # 312,188 poses with all digits of a double take 325 MB; decompression bombs take more
TIMINGS = ("seconds", "images_per_second")
_NOT_TEXT = {  # by the first bytes: what it is, and what to do
    b"PK\x03\x04": ("a zip archive", "unpack it"),
    b"\x1f\x8b": ("gzip data", "unpack it, or give it a name that ends in .gz"),
    b"\xff\xfe": ("UTF-16 text", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "save it as UTF-8"),
}
_AGAIN = "write or download it again"
# by network drives, and by drivers of user programs (FUSE, 9p), for what they don't support
_REFUSED: Final = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)


def to_path(path: AnyPath) -> Path:
    """Return a path in which a leading ~ is the home folder; raise UserError for an empty one or an unknown user."""
    if not os.fspath(path):
        raise UserError("an empty path: expected the name of a file or folder")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        fix = f"write ./{path} for a file or folder of that name"
        raise UserError(f"{path}: there is no such user, whose home folder it would be", fix=fix) from None


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that is renamed to `path` when the block ends without an error, and deleted otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def rename_folder(folder: Path, target: Path) -> None:
    """Rename a folder within its parent; raise OSError where `target` exists, unless it is an empty folder."""
    os.rename(folder, target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (*_REFUSED, errno.EACCES, errno.EPERM):
            raise


@contextmanager
def locked(folder: Path, error: str | None = None) -> Iterator[None]:
    """Hold a folder's lock while the block runs; raise UserError(error) when another process holds it.

    Without `error`, wait for the lock. The system releases it when the process ends, even by a kill; data loader
    processes forked meanwhile don't keep it. Warn where the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    held = [handle]

    def close_in_child() -> None:
        while held:
            os.close(held.pop())

    os.register_at_fork(after_in_child=close_in_child)
    try:
        _lock(handle, folder, error)
        yield
    finally:
        held.clear()
        os.close(handle)


def _lock(handle: int, folder: Path, error: str | None) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if error else 0))
    except BlockingIOError:
        raise UserError(error or "") from None
    except OSError as refused:
        if refused.errno not in (*_REFUSED, errno.ENOLCK):
            raise
        advice = "run one command on this folder at a time"
        log.warning(f"{folder}: its file system has no locks ({refused.strerror}): {advice}")


def is_locked(folder: Path) -> bool | None:
    """Return whether a process holds a folder's lock; None where the file system has no locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic(path) as handle:
        handle.write(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as given; compress it when the name ends in .gz, without a timestamp or file name."""
    content = text.encode()
    write_bytes(path, gzip.compress(content, compresslevel=6, mtime=0) if path.suffix == ".gz" else content)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON; raise ValueError for NaN and infinity, which JSON doesn't have."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_bytes(path: Path, *, what: str, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Read a file, decompressing .gz; raise UserError when it is missing, damaged or larger than `limit` bytes."""
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as handle:
            chunks = list(_bounded(handle, limit))
    except FileNotFoundError:
        raise UserError(f"{what}: no such file: {path}") from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{what}: {path} is not a complete gzip file ({error})", fix=_AGAIN) from None
    except zlib.error as error:
        raise UserError(f"{what}: {path} is damaged ({error})", fix=_AGAIN) from None
    except OSError as error:
        raise UserError(f"{what}: can't read {path}: {error.strerror or error}") from None
    if sum(map(len, chunks)) > limit:
        found = f"contains more than {limit:,} bytes (after decompression, if compressed)"
        raise UserError(f"{what}: {path} {found}", fix="is it the right file?")
    return b"".join(chunks)


def _bounded(handle: IO[bytes] | gzip.GzipFile, limit: int) -> Iterator[bytes]:
    """Read in chunks and stop after the first one beyond `limit` bytes."""
    read = 0
    while read <= limit and (chunk := handle.read(1 << 20)):
        read += len(chunk)
        yield chunk


def read_text(path: Path, *, what: str) -> str:
    """Read UTF-8 text, decompressing .gz; drop a byte order mark and convert CRLF to LF. Raise UserError."""
    content = read_bytes(path, what=what)
    for start, (kind, fix) in _NOT_TEXT.items():
        if content.startswith(start):
            raise UserError(f"{what}: {path} is {kind}", fix=fix)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{what}: {path} is not UTF-8 text (byte {error.start})", fix="save it as UTF-8") from None
    return text.replace("\r\n", "\n")


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """Read a JSON object; raise UserError when it is missing or damaged."""
    return parse_json(read_text(path, what=what), f"{what}: {path}")


def parse_json(text: str, where: str) -> dict[str, Any]:
    """Parse a JSON object as `read_json` does; error messages begin with `where`."""
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets nested too deeply
        raise UserError(f"{where} is not valid JSON ({str(error)[:100]})") from None
    if not isinstance(value, dict):
        raise UserError(f"{where} holds {type(value).__name__}, expected a JSON object")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_text(path: Path) -> str:
    """Return the SHA-256 of a text file, the same with CRLF and a byte order mark, as saved on Windows."""
    content = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value without its timings, which differ between repetitions."""

    def without_timings(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: without_timings(item) for key, item in part.items() if key not in TIMINGS}
        return [without_timings(item) for item in part] if isinstance(part, list | tuple) else part

    return hashlib.sha256(json.dumps(without_timings(value), sort_keys=True).encode()).hexdigest()


def sha256_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of a list of names, joined by LF."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
