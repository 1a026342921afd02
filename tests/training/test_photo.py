"""Photos are read upright, cropped as the competition's images are, and predicted like the test set."""

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from competition.common.choices import parse_box
from competition.common.errors import UserError
from competition.common.pose_csv import read_poses
from competition.data.images import read_image
from competition.data.labels import read_labels, read_test
from competition.training.photo import MARGIN, crop_photo, place_pose, read_photo
from tests.helpers import N_TEST, TINY, Command

UPRIGHT, TURNED = 1, 6  # EXIF orientations; 6: rotate clockwise by 90 degrees


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Return a smooth RGB image [60, 40, 3] with a different colour in each corner."""
    corners = np.array([[[250, 20, 20], [20, 250, 20]], [[20, 20, 250], [220, 220, 220]]], np.uint8)
    return cv2.resize(corners, (40, 60), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
def test_photos_of_any_format_are_read_as_rgb(picture: np.ndarray, tmp_path: Path, mode: str, kind: str):
    can_hold = {"jpeg": ("RGB", "L", "CMYK"), "png": ("RGB", "L", "P", "RGBA"), "tiff": ("RGB", "L", "P", "RGBA")}
    if mode not in can_hold[kind]:
        pytest.skip(f"{kind} holds no {mode}")
    Image.fromarray(picture).convert(mode).save(tmp_path / "photo", kind)
    read = read_photo(tmp_path / "photo")
    expected = np.asarray(Image.fromarray(picture).convert(mode).convert("RGB"))
    assert read.shape == (60, 40, 3)
    assert np.abs(read.astype(int) - expected).mean() < 6


def test_a_photo_is_rotated_upright_by_its_exif_orientation(picture: np.ndarray, tmp_path: Path):
    exif = Image.Exif()
    exif[0x112] = TURNED
    Image.fromarray(picture).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(read_photo(tmp_path / "photo.png"), np.rot90(picture, -1))


@pytest.mark.parametrize("content", ["empty", "text", "half"])
def test_an_incomplete_or_invalid_photo_is_rejected(picture: np.ndarray, tmp_path: Path, content: str, capfd):
    path = tmp_path / "photo.jpg"
    Image.fromarray(picture).save(path)
    path.write_bytes({"empty": b"", "text": b"not an image" * 9, "half": path.read_bytes()[:-400]}[content])
    with pytest.raises(UserError, match="expected a complete JPEG"):
        read_photo(path)
    assert capfd.readouterr().err == ""


def test_the_crop_of_a_competition_image_is_the_image(data: Path):
    image = read_image(data / "images" / read_test(data).images[0])
    np.testing.assert_array_equal(crop_photo(image, None, Path("photo")), image)


def test_the_crop_is_a_square_around_the_box_with_a_margin():
    photo = np.zeros((300, 500, 3), np.uint8)
    photo[100:200, 250:290] = 255  # 40 wide, 100 high
    crop = crop_photo(photo, (250, 100, 40, 100), Path("photo"))
    rows, columns = (np.flatnonzero(crop[..., 0].max(axis=axis) > 127) for axis in (1, 0))
    assert crop.shape == (256, 256, 3)
    assert len(rows) == pytest.approx(256 / (1 + MARGIN), abs=3)
    assert len(columns) == pytest.approx(0.4 * 256 / (1 + MARGIN), abs=3)
    assert rows.mean() == pytest.approx(127.5, abs=1.5)
    assert columns.mean() == pytest.approx(127.5, abs=1.5)


def test_the_edge_is_repeated_beyond_the_photo():
    photo = np.tile(np.arange(100, dtype=np.uint8)[:, None, None], (1, 50, 3))
    crop = crop_photo(photo, None, Path("photo"))  # 25 columns are missing on either side
    assert (np.ptp(crop[..., 0], axis=1) == 0).all()
    assert crop[0, 0, 0] == 0
    assert crop[-1, 0, 0] == 99


@pytest.mark.parametrize("box", [(-1, 0, 30, 30), (0, 0, 41, 30), (0, 31, 30, 30), (0, 0, 0, 30), (np.nan, 0, 30, 30)])
def test_a_box_outside_the_photo_is_rejected(picture: np.ndarray, box: tuple[float, float, float, float]):
    with pytest.raises(UserError, match="isn't inside photo, 40x60 px upright"):
        crop_photo(picture, box, Path("photo"))


def test_a_box_that_is_too_small_is_rejected(picture: np.ndarray):
    with pytest.raises(UserError, match="too small"):
        crop_photo(picture, (3, 3, 9, 9), Path("photo"))


def test_a_box_has_four_numbers():
    assert parse_box("1,2.5,30,40") == (1, 2.5, 30, 40)
    for text in ("1,2,3", "1,2,3,x", "1,2,3,nan", "1,2,inf,4", "1,2,3,4,5", ""):
        with pytest.raises(UserError, match="expected four numbers"):
            parse_box(text)


def test_true_poses_are_placed_near_their_pixels(data: Path):
    labels = read_labels(data)
    placed = np.array([place_pose(pose.astype(np.float64)) for pose in labels.pose_mm])
    assert np.median(np.linalg.norm(placed - labels.pose2d_px, axis=2)) < 8  # of 256; perspective is neglected


@pytest.fixture
def flipped(command: Command) -> None:
    """Train at an input size for which competition images aren't scaled while decoding, as photos never are."""
    assert command("folds", "--k", "2") == 0
    assert command("train", *TINY, "--epochs", "1", "--flip-test", "--input-size", "192", "--depths", "4") == 0


def test_a_test_image_gets_the_pose_of_the_submission(
    command: Command, flipped: None, data: Path, tmp_path: Path, capsys
):
    photo = data / "images" / read_test(data).images[3]
    assert command("predict", "--run", "3dhg-small", "--image", str(photo)) == 0
    output = capsys.readouterr().out
    assert "trained on the 40 images" in output
    assert "synthetic images" in output
    assert "relative to the pelvis" in output
    folder = tmp_path / "runs/3dhg-small/photos"
    with open(folder / f"{photo.stem}_pose.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["joint"] for row in rows][:2] == ["Hip", "RHip"]
    pose_mm = np.array([[float(row[axis]) for axis in "xyz"] for row in rows])
    submitted = read_poses(tmp_path / "runs/3dhg-small/submission.csv.gz", range(1, N_TEST + 1)).pose_mm
    np.testing.assert_allclose(pose_mm, submitted[3], atol=0.05)  # in bf16, rounding depends on the batch
    assert read_photo(folder / f"{photo.stem}_pose.png").shape[1] > 1000
    assert str(folder / f"{photo.stem}_pose.html") in output
    page = (folder / f"{photo.stem}_pose.html").read_text()
    assert f"<h1>{photo.name}</h1>" in page
    assert "trained on the 40 images" in page

    # the same image inside a larger photo, with its box
    image = read_image(photo)
    large = cv2.copyMakeBorder(image, 40, 40, 100, 100, cv2.BORDER_REPLICATE)
    Image.fromarray(large).save(tmp_path / "large.png")
    inner = 256 / (1 + MARGIN)
    box = [100 + (256 - inner) / 2, 40 + (256 - inner) / 2, inner, inner]
    arguments = ["--image", str(tmp_path / "large.png"), "--box", ",".join(map(str, box)), "--out", str(tmp_path / "o")]
    assert command("predict", "--run", "3dhg-small", *arguments) == 0
    (table,) = (tmp_path / "o").glob("*.csv")
    again = np.array([line.split(",")[1:] for line in table.read_text().splitlines()[1:]], np.float64)
    np.testing.assert_allclose(again, pose_mm, atol=0.002)


def test_a_run_or_box_that_cannot_be_used_is_reported_in_one_line(
    command: Command, run: Path, data: Path, tmp_path: Path, capsys
):
    photo = str(data / "images" / read_test(data).images[0])
    shutil.rmtree(run / "fold1")
    (tmp_path / "runs/mate/fold0").mkdir(parents=True)
    wrong = {
        ("--run", "nobody"): "no run at",
        ("--run", "3dhg-small"): "run 3dhg-small is not completely trained: 1 of 2",
        ("--run", "mate"): "contains no networks, expected a trained run; next: `make train MODEL=<name> RUN=mate ",
        ("--run", "mate", "--image", "none.jpg"): "no such file: none.jpg",
        ("--run", "3dhg-small", "--box", "900,0,40,40"): "isn't inside",
        ("--run", "3dhg-small", "--box", "1,2,3"): "expected four numbers",
    }
    for arguments, message in wrong.items():
        capsys.readouterr()
        assert command("predict", "--image", photo, *arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert command("predict", "--run", "3dhg-small", "--box", "1,2,3,4") == 2
    assert "without --image" in capsys.readouterr().err
    (tmp_path / "runs/3dhg-small/fold0/done.json").unlink()
    (tmp_path / "folds/folds.json").unlink()  # the number of folds is unknown
    assert command("predict", "--image", photo, "--run", "3dhg-small") == 2
    assert "fold0 (of 1 folds) unfinished" in capsys.readouterr().err
