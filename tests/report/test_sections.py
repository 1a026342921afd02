"""The report's sections: computation and escaping."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from competition.common.errors import UserError
from competition.common.metrics import mpjpe
from competition.common.workspace import Workspace
from competition.report.blocks import Paragraph
from competition.report.charts import plain
from competition.report.evidence import Evidence, gather
from competition.report.gallery import choose_rows
from competition.report.rare import nearest_of_others
from competition.report.rarity import quantile_bins
from competition.report.studies import studies
from competition.report.study_picture import study_picture
from competition.runs.blends import read_weights, weights_csv
from competition.runs.studies import read_study
from tests.studies import make_study


def test_nearest_of_others_is_the_lowest_mpjpe_to_another_subject():
    draw = np.random.default_rng(0)
    pose_mm, reference_mm = (draw.normal(0, 300, (rows, 17, 3)).astype(np.float32) for rows in (4, 7))
    subject, reference = np.array(["S1", "S1", "S5", "S6"]), np.array(["S1", "S1", "S1", "S5", "S5", "S1", "S5"])
    expected = [
        min(mpjpe([pose], [other]) for other, name in zip(reference_mm, reference, strict=True) if name != own)
        for pose, own in zip(pose_mm, subject, strict=True)
    ]
    np.testing.assert_allclose(nearest_of_others(pose_mm, subject, reference_mm, reference), expected, rtol=1e-5)
    assert np.isinf(nearest_of_others(pose_mm[:1], subject[:1], reference_mm[:2], reference[:2]))[0]


def test_quantile_bins_have_equal_sizes():
    values = np.random.default_rng(0).permutation(12) * 1.5
    np.testing.assert_array_equal(quantile_bins(values, 4), values // 1.5 // 3)


def test_gallery_rows_have_the_lowest_median_and_highest_errors():
    error_mm = np.array([5, 1, 4, 2, 8, 7, 3, 6, 9.0])
    assert choose_rows(error_mm, 1) == {"Best": [1], "Median": [0], "Worst": [8]}
    assert choose_rows(error_mm)["Worst"] == [8, 4, 5]  # with few rows, a third of each kind
    assert choose_rows(error_mm[:2])["Best"] == []


def test_plain_escapes_and_shortens_names():
    assert plain("<a href='x'>&") == "&lt;a href='x'&gt;&amp;"
    assert len(plain("x" * 99)) == 28


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("Hip,x", "Hop,x", "51 rows"), (",0.5\n", "\n", "numbers"), (",0.5\n", ",nan\n", "finite")],
)
def test_damaged_weights_are_rejected(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "weights.csv"
    text = weights_csv(["a:1", "b:2"], np.full((17, 3, 2), 0.5))
    path.write_text(text)
    names, values = read_weights(path)
    assert names == ["a:1", "b:2"]
    assert values.shape == (17, 3, 2)
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_weights(path)


def test_a_study_has_a_history_slices_and_importance(tmp_path: Path, evidence_of: Callable[[Path], Evidence]):
    make_study(tmp_path / ".tune/mine", [150.0, 140.0, None, 160.0, 130.5, 900.0, 145.0])
    section = studies(evidence_of(tmp_path))
    figures = section.figures
    names = {"study0history", "study0importance", *(f"study0slice{place}" for place in range(4))}
    assert set(figures) == names - {"study0slice3"} or set(figures) == names
    assert figures["study0history"].data[0]["y"] == [150.0, 140.0, 160.0, 130.5, 900.0, 145.0]
    assert figures["study0history"].data[0]["x"] == [0, 1, 3, 4, 5, 6]
    low, high = figures["study0history"].yaxis["range"]  # type: ignore[misc]
    assert low < 130.5 < high == 261
    text = " ".join(block.text for block in section.blocks if isinstance(block, Paragraph))
    assert "7 trials of 3dhg-small (6 complete, 1 failed), judged by the out-of-fold error of fold 0" in text
    assert "The best is trial 4 with 130.50 mm; the recipe's own values have 150.00 mm" in text
    assert "optimistic" in text


def test_studies_that_cannot_be_drawn_are_named(tmp_path: Path, evidence_of: Callable[[Path], Evidence]):
    assert "the command tune" in str(studies(evidence_of(tmp_path)).blocks)
    make_study(tmp_path / ".tune/failed", [None, None])
    make_study(tmp_path / ".tune/torn", [120.0])
    (tmp_path / ".tune/torn/study.json").write_text("{")
    section = studies(evidence_of(tmp_path))
    assert section.figures == {}
    assert "2 trials of 3dhg-small (2 failed)" in str(section.blocks)
    assert "torn can't be read" in str(section.blocks)


@pytest.mark.parametrize("errors_mm", [[120.0], [None, 150.0], [150.0, 140.0, 160.0, 130.5, 900.0]])
def test_a_picture_is_drawn_of_any_study(tmp_path: Path, errors_mm: list[float | None]):
    make_study(tmp_path / "mine", errors_mm)
    assert study_picture(read_study(tmp_path / "mine")).startswith(b"\x89PNG")


@pytest.fixture
def evidence_of(data: Path) -> Callable[[Path], Evidence]:
    """Return a function that gathers the evidence of a folder of submissions."""
    return lambda submissions: gather(Workspace(data=data, folds=submissions / "folds", submissions=submissions))
