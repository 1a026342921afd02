"""Files of out-of-fold poses."""

from pathlib import Path

import numpy as np
import pytest

from competition.common.errors import RunError
from competition.runs.folders import read_valid


def test_an_npz_file_too_large_when_decompressed_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez_compressed(tmp_path / "bomb.npz", id=np.arange(9), pose=np.zeros((9, 17, 3)))
    assert len(read_valid(tmp_path / "bomb.npz").id) == 9
    monkeypatch.setattr("competition.runs.folders.MAX_NPZ_BYTES", 1000)
    with pytest.raises(RunError, match="when decompressed"):
        read_valid(tmp_path / "bomb.npz")
