"""Files of out-of-fold poses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from competition.common.errors import RunError, SubmissionError, UserError
from competition.common.pose_csv import read_poses
from competition.runs.folders import read_valid


def test_an_npz_file_too_large_when_decompressed_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez_compressed(tmp_path / "bomb.npz", id=np.arange(9), pose=np.zeros((9, 17, 3)))
    assert len(read_valid(tmp_path / "bomb.npz").id) == 9
    monkeypatch.setattr("competition.runs.folders.MAX_NPZ_BYTES", 1000)
    with pytest.raises(RunError, match="when decompressed"):
        read_valid(tmp_path / "bomb.npz")


@pytest.mark.parametrize(("read", "kind"), [(read_poses, SubmissionError), (read_valid, RunError)])
def test_an_error_keeps_its_advice_in_another_class(
    tmp_path: Path, read: Callable[[Path], object], kind: type[UserError]
):
    (tmp_path / "valid_epoch01.csv.gz").write_bytes(b"PK\x03\x04")
    with pytest.raises(kind, match="is not a complete gzip file") as caught:
        read(tmp_path / "valid_epoch01.csv.gz")
    assert caught.value.fix == "write or download it again"
    assert caught.value.fix not in caught.value.what
