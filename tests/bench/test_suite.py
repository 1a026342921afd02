"""Benchmarks: they run, return complete rows, and reject unknown names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from competition.bench import blending, suite
from competition.bench.engine import render
from competition.bench.measure import extra_mib, time_both
from competition.bench.suite import BENCHMARKS, run
from competition.cli.main import main
from competition.common.errors import UserError
from models.heatmaps import gaussian_squares


def test_rows_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "--only", "csv,decoders", "--json", str(tmp_path / "bench.json")]) == 0
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert [row["name"] for row in rows] == ["csv-write", "csv-read", "decoder-dark", "decoder-local"]
    for row in rows:
        assert set(row) == {"name", "ours", "reference", "ratio", "unit", "note"}
        assert row["ratio"] == pytest.approx(row["reference"] / row["ours"])
    assert rows[3]["ratio"] > 3  # subvoxel decoding against the highest voxel: independent of speed
    assert "decoder-local" in capsys.readouterr().out


def test_an_unknown_benchmark_is_rejected():
    with pytest.raises(UserError, match="unknown benchmark 'cvs': did you mean 'csv'"):
        list(run(["cvs"]))
    assert {"train-2dhg-x1", "train-3dhg", "loader", "predict", "volume-loss", "blend-objective", "blend-fresh"} <= set(
        BENCHMARKS
    )


def test_slow_benchmarks_run_only_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(suite, "BENCHMARKS", dict.fromkeys(BENCHMARKS, list))
    assert {"blend-stack", "blend-views"} == {*BENCHMARKS} - {name for name, _ in run()}
    assert [name for name, _ in run(["blend-views"])] == ["blend-views"]


def test_the_rendered_target_matches_the_closed_form():
    positions = 3 + 6 * torch.rand(2, 17, 3)
    volume = render(positions, (14, 12, 13), 2.0)
    assert volume.shape == (2, 17, 14, 12, 13)
    assert float(gaussian_squares(volume, positions, (2.0, 2.0, 2.0))) == pytest.approx(0, abs=1e-5)


def test_extra_memory_excludes_earlier_allocations():
    size = 80 * 2**20  # larger than the free memory that the allocator keeps
    found = extra_mib(lambda: np.ones(size, np.uint8), torch.device("cpu"))
    assert found == 0 or 70 < found < 110  # 0 on systems that don't report memory


def test_a_draw_evaluates_a_blend_on_fresh_sequences():
    draw = blending._draw(240, 8, 0)
    assert 70 < draw.mean_mm < 110
    assert draw.shipped_mm in (0, draw.chosen_mm)
    assert draw.exact_mm > 0


def test_time_both_alternates():
    calls: list[str] = []
    seconds = time_both(lambda: calls.append("a"), lambda: calls.append("b"), repeats=2)
    assert calls == ["a", "b"] * 3
    assert np.all(np.array(seconds) >= 0)


def test_a_draw_with_other_cameras_is_evaluated_on_other_subjects():
    draw = blending._draw_views(160, 8, 0, fresh=16)
    assert 70 < draw.mean_mm < 120
    assert draw.nested_gain.option.method.name == "views"
    assert draw.chosen_mm > draw.exact_mm
    assert draw.nested_gain.gain_mm == pytest.approx(draw.chosen_mm, abs=4 * draw.nested_gain.gain_se_mm)
