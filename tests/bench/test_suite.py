"""Benchmarks: they run, tell what they compare, and refuse unknown names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from competition.bench import blending
from competition.bench.engine import render
from competition.bench.measure import extra_mib, in_turn
from competition.bench.suite import BENCHMARKS, run
from competition.cli.main import main
from competition.common.errors import UserError
from models.heatmaps import gaussian_squares


def test_rows_are_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "--only", "csv,decoders", "--json", str(tmp_path / "bench.json")]) == 0
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert [row["name"] for row in rows] == ["csv-write", "csv-read", "decoder-dark", "decoder-local"]
    for row in rows:
        assert set(row) == {"name", "ours", "reference", "ratio", "unit", "note"}
        assert row["ratio"] == pytest.approx(row["reference"] / row["ours"])
    assert rows[3]["ratio"] > 3  # a decoder without quantisation against the highest voxel: no matter of speed
    assert "decoder-local" in capsys.readouterr().out


def test_an_unknown_benchmark_is_refused():
    with pytest.raises(UserError, match="unknown benchmark 'cvs': did you mean 'csv'"):
        list(run(["cvs"]))
    assert {"train-2dhg-x1", "train-3dhg", "loader", "predict", "volume-loss", "blend-objective", "blend-fresh"} <= set(
        BENCHMARKS
    )


def test_the_rendered_target_is_the_one_of_the_closed_form():
    positions = 3 + 6 * torch.rand(2, 17, 3)
    volume = render(positions, (14, 12, 13), 2.0)
    assert volume.shape == (2, 17, 14, 12, 13)
    assert float(gaussian_squares(volume, positions, (2.0, 2.0, 2.0))) == pytest.approx(0, abs=1e-5)


def test_memory_is_that_beyond_what_was_there():
    size = 80 * 2**20  # larger than what the allocator keeps
    found = extra_mib(lambda: np.ones(size, np.uint8), torch.device("cpu"))
    assert found == 0 or 70 < found < 110  # 0 where the system doesn't tell


def test_a_draw_tells_what_a_blend_gives_on_fresh_sequences():
    draw = blending._draw(240, 8, 0)
    assert 70 < draw.mean_mm < 110
    assert draw.shipped_mm in (0, draw.chosen_mm)
    assert draw.exact_mm > 0


def test_both_ways_are_run_in_turn():
    calls: list[str] = []
    seconds = in_turn(lambda: calls.append("ours"), lambda: calls.append("theirs"), repeats=2)
    assert calls == ["ours", "theirs"] * 3
    assert np.all(np.array(seconds) >= 0)
