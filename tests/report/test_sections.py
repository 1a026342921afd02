"""The report's sections: computation and escaping."""

from pathlib import Path

import numpy as np
import pytest

from competition.common.errors import UserError
from competition.common.metrics import mpjpe
from competition.report.charts import plain
from competition.report.gallery import choose_rows
from competition.report.rare import nearest_of_others
from competition.report.rarity import quantile_bins
from competition.runs.blends import read_weights, weights_csv


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
