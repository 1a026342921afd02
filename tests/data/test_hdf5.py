"""Labels that a notebook has open, or that need a filter which isn't installed: the cause and the fix."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from competition.common.errors import DataError
from competition.data import labels
from competition.data.labels import read_labels

FILTERS = {32001: "blosc", 32026: "blosc2", 32015: "zstd", 300: "filter"}
NOTEBOOK = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'{}); print('open', flush=True); sys.stdin.read()"


def _fault(data: Path) -> str:
    with pytest.raises(DataError) as raised:
        read_labels(data)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("code", FILTERS)
@pytest.mark.parametrize("key", ["pose2d", "pose3d"])
def test_a_missing_filter_is_named(own_data: Path, code: int, key: str):
    with h5py.File(own_data / "annot/train.h5", "r+") as file:
        shape = file[key].shape
        del file[key]
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk(shape)
        settings.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 40))
        h5py.h5d.create(file.id, key.encode(), h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple(shape), settings)
    fault = _fault(own_data)
    assert f"{key} is compressed with an HDF5 filter that isn't installed: {FILTERS[code]} ({code})" in fault
    assert "gzip" in fault
    assert "copy it again" not in fault


@pytest.mark.parametrize("settings", [{"compression": "gzip", "shuffle": True}, {"compression": "lzf"}, {}])
def test_filters_of_every_installation_are_read(own_data: Path, settings: dict[str, object]):
    before = read_labels(own_data)
    with h5py.File(own_data / "annot/train.h5", "w") as file:
        file.create_dataset("pose2d", data=before.pose2d_px, **settings)
        file.create_dataset("pose3d", data=before.pose_mm, **settings)
    np.testing.assert_array_equal(read_labels(own_data).pose_mm, before.pose_mm)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", "locked by another program, such as a notebook"),
        (", libver='latest', locking=False", "open for writing in"),
    ],
)
def test_a_file_that_a_notebook_has_open_is_not_called_damaged(own_data: Path, options: str, expected: str):
    path = own_data / "annot/train.h5"
    if options:
        with h5py.File(path, "r") as old, h5py.File(own_data / "new.h5", "w", libver="latest") as new:
            for key in old:
                new[key] = old[key][:]
        (own_data / "new.h5").rename(path)
    command = [sys.executable, "-c", NOTEBOOK.format(options), str(path)]
    notebook = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert notebook.stdin is not None
    assert notebook.stdout is not None
    assert notebook.stdout.readline() == b"open\n"
    fault = _fault(own_data)
    notebook.stdin.close()
    assert notebook.wait() == 0
    notebook.stdout.close()
    assert expected in fault
    assert "close it there" in fault
    assert read_labels(own_data).images


def _refusing(error: OSError, only_with_lock: bool) -> Callable[..., h5py.File]:
    work = h5py.File

    def opened(path: Path, mode: str, locking: bool | None = None) -> h5py.File:
        if only_with_lock and locking is False:
            return work(path, mode, locking=False)
        raise error

    return opened


def test_a_file_system_without_locks_is_read_without_them(data: Path, monkeypatch: pytest.MonkeyPatch):
    error = OSError(
        37, "Unable to synchronously open file (unable to lock file, errno = 37, error message = 'No locks')"
    )
    expected = read_labels(data)
    monkeypatch.setattr(labels.h5py, "File", _refusing(error, only_with_lock=True))
    np.testing.assert_array_equal(read_labels(data).pose_mm, expected.pose_mm)


def test_missing_permissions_are_named(data: Path, monkeypatch: pytest.MonkeyPatch):
    error = PermissionError(13, "Unable to synchronously open file (errno = 13, error message = 'Permission denied')")
    monkeypatch.setattr(labels.h5py, "File", _refusing(error, only_with_lock=False))
    assert "train.h5: can't be read (permission denied): change its permissions" in _fault(data)
