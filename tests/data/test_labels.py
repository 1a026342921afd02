"""The competition's folder: what would make wrong results is refused before anything is computed."""

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from competition.cli.tables import faults_table
from competition.common.errors import DataError
from competition.common.skeleton import IMAGE_PX
from competition.data import labels as dataset
from competition.data.check import Findings, check
from competition.data.faults import pixel_faults
from competition.data.images import read_image, to_input_px
from tests.helpers import TINY, N

Command = Callable[..., int]
Damage = Callable[[Path], object]


def _list(change: Callable[[str], str | bytes]) -> Damage:
    def damage(root: Path) -> None:
        path = root / "annot/train_images.txt"
        changed = change(path.read_text())
        path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())

    return damage


def _lines(change: Callable[[list[str]], list[str]]) -> Damage:
    return _list(lambda text: "\n".join(change(text.splitlines())) + "\n")


def _labels(key: str, change: Callable[[np.ndarray], object], **options: object) -> Damage:
    def damage(root: Path) -> None:
        with h5py.File(root / "annot/train.h5", "r+") as file:
            value = change(file[key][:])
            del file[key]
            if isinstance(value, h5py.ExternalLink | h5py.SoftLink):
                file[key] = value
            else:
                file.create_dataset(key, data=value, **options)

    return damage


def _put(value: float, *place: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return change


def _turned(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array * np.where(np.arange(3) == axis, -1, 1).astype(np.float32)


def _image_path(root: Path, row: int = 0) -> Path:
    return root / "images" / (root / "annot/train_images.txt").read_text().splitlines()[row]


def _image(change: Callable[[bytes], bytes], row: int = 0) -> Damage:
    def damage(root: Path) -> None:
        path = _image_path(root, row)
        content = path.read_bytes()
        path.unlink()  # a link to the shared one
        path.write_bytes(change(content))

    return damage


def _saved(content: bytes, mode: str = "RGB", kind: str = "JPEG", orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x112] = orientation
    out = io.BytesIO()
    Image.open(io.BytesIO(content)).convert(mode).save(out, kind, exif=exif)
    return out.getvalue()


def _blank(height: int, width: int) -> bytes:
    return cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def _png16() -> bytes:
    return cv2.imencode(".png", np.zeros((256, 256, 3), np.uint16))[1].tobytes()


def _exif(orientation: int) -> bytes:
    tag = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00" + bytes([orientation])
    return b"\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + tag + bytes(6)


def _elsewhere(create: Callable[[h5py.File, Path, np.ndarray], object]) -> Damage:
    """Keep the values of pose2d outside of the file; `create` makes what stands in their place."""

    def damage(root: Path) -> None:
        with h5py.File(root / "annot/train.h5", "r+") as file:
            values = file["pose2d"][:]
            del file["pose2d"]
            create(file, root / "annot/other", values)

    return damage


def _external(file: h5py.File, other: Path, values: np.ndarray) -> None:
    file.create_dataset("pose2d", data=values, external=[(str(other), 0, values.nbytes)])


def _virtual(file: h5py.File, other: Path, values: np.ndarray) -> None:
    with h5py.File(other, "w") as source:
        source["pose2d"] = values
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource(str(other), "pose2d", values.shape)
    file.create_virtual_dataset("pose2d", layout)


def _unknown_float(file: h5py.File, _: Path, values: np.ndarray) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(1 << 20)  # whose exponents no type of NumPy has
    h5py.h5d.create(file.id, b"pose2d", kind, h5py.h5s.create_simple(values.shape))


def _byte(place: int, value: int) -> Damage:
    def damage(root: Path) -> None:
        path = root / "annot/train.h5"
        content = bytearray(path.read_bytes())
        content[place] = value
        path.write_bytes(content)

    return damage


def _cut(share: float) -> Damage:
    def damage(root: Path) -> None:
        path = root / "annot/train.h5"
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return damage


BAD_LISTS: dict[str, tuple[Damage, str]] = {
    "no list": (lambda root: (root / "annot/train_images.txt").unlink(), "no competition at .* is missing"),
    "an empty list": (_list(lambda text: ""), "lists no images"),
    "not UTF-8": (_list(lambda text: text.encode("utf-16")), r"txt: holds UTF-16 text: save it as UTF-8"),
    "old line ends": (_list(lambda text: text.replace("\n", "\r")), "a path or control characters"),
    "a line too few": (_lines(lambda lines: lines[1:]), "has 40 rows, but train_images.txt has 39 lines"),
    "a line twice": (_lines(lambda lines: [*lines, lines[0]]), "stand twice .1, the first is line 41 .* as line 1"),
    "a blank line": (_lines(lambda lines: ["", *lines]), "blank lines, .* .1, the first is line 1"),
    "a line of blanks": (
        _lines(lambda lines: [lines[0], " \t", *lines[1:]]),
        "blank lines, .* .1, the first is line 2",
    ),
    "a path up": (_list(lambda text: "../" + text), r"a path .* line 1 '../S\d"),
    "two dots": (_lines(lambda lines: [*lines[:-1], ".."]), "a path .* line 40 '..'"),
    "a dot": (_lines(lambda lines: [*lines[:-1], "."]), "a path .* line 40 '.'"),
    "a folder within": (_list(lambda text: "more/" + text), r"a path .* line 1 'more/S\d"),
    "a path in the test list": (
        lambda root: (root / "annot/valid_images.txt").write_text("../up.jpg\n"),
        "valid_images.txt: a path .* line 1 '../up.jpg'",
    ),
    "an absolute path": (_list(lambda text: "/etc/" + text), "a path"),
    "a Windows path": (_list(lambda text: "images\\" + text), "a path"),
    "a terminal's commands": (_list(lambda text: "\x1b[2J" + text), r"line 1 '\\x1b\[2J"),
}
BAD_LABELS: dict[str, tuple[Damage, str]] = {
    "no labels": (lambda root: (root / "annot/train.h5").unlink(), "no labels"),
    "no HDF5": (lambda root: (root / "annot/train.h5").write_bytes(b"pose"), "can't be read as HDF5"),
    "an empty file": (_cut(0), "can't be read as HDF5"),
    "half a file": (_cut(0.5), "can't be read as HDF5"),
    "a byte too few": (_cut(0.9999), "can't be read as HDF5"),
    "a wrong end": (_byte(16, 0xD6), "can't be read as HDF5"),
    "a wrong size": (_byte(24, 0x2C), "can't be read as HDF5"),
    "an unknown float": (_elsewhere(_unknown_float), "can't be read as HDF5"),
    "a key too few": (lambda root: _drop(root, "pose2d"), "no data set 'pose2d', found 'pose3d'"),
    "another file's": (_labels("pose2d", lambda a: h5py.ExternalLink("other.h5", "pose2d")), "not a data set of this"),
    "a soft link": (_labels("pose2d", lambda a: h5py.SoftLink("/pose3d")), "pose2d is not a data set of this"),
    "a group": (_elsewhere(lambda file, *_: file.create_group("pose2d")), "pose2d is not a data set of this"),
    "values in another file": (_elsewhere(_external), "pose2d is not a data set of this"),
    "values of another file": (_elsewhere(_virtual), "pose2d is not a data set of this"),
    "no shape": (_labels("pose3d", lambda a: h5py.Empty("f4")), r"shape None, expected \(N, 17, 3\)"),
    "an axis too few": (_labels("pose3d", lambda a: a[..., :2]), r"shape \(40, 17, 2\), expected \(N, 17, 3\)"),
    "fewer rows of one": (_labels("pose2d", lambda a: a[:30]), "pose2d has 30 rows, but .* 40 lines"),
    "too few joints": (_labels("pose3d", lambda a: a[:, :5]), r"shape \(40, 5, 3\), expected \(N, 17, 3\)"),
    "flat": (_labels("pose3d", lambda a: a.reshape(40, 51)), r"shape \(40, 51\)"),
    "axes exchanged": (_labels("pose2d", lambda a: a.transpose(0, 2, 1)), r"shape \(40, 2, 17\)"),
    "whole numbers": (_labels("pose3d", lambda a: a.astype(np.int32)), "type int32, expected float32"),
    "half precision": (_labels("pose3d", lambda a: a.astype(np.float16)), "type float16"),
    "text": (_labels("pose2d", lambda a: a.astype("S8")), "type |S8"),
    "NaN": (_labels("pose3d", _put(np.nan, 7, 3, 1)), r"NaN .*the first is Id 8\): [\w ]+ of the list$"),
    "NaN alone": (_labels("pose3d", lambda a: a * np.nan), r"pose3d has NaN .*\(40, the first is Id 1"),
    "infinite pixels": (_labels("pose2d", _put(np.inf, 0, 0, 0)), "pose2d has NaN or infinite"),
    "too large a number": (
        _labels("pose3d", lambda a: _put(1e300, 0, 5, 0)(a.astype(float))),
        "pose3d has NaN or infin",
    ),
    "metres": (_labels("pose3d", lambda a: a / 1000), r"no person's size.*\(40, the first is Id 1\): metres\?"),
    "centimetres": (_labels("pose3d", lambda a: a / 10), r"centimetres\?"),
    "an empty row": (_labels("pose3d", _put(0, 6)), r"\(1, the first is Id 7\): empty rows\?"),
    "not root-centred": (_labels("pose3d", lambda a: a + 100), r"off \(0, 0, 0\), by 100 mm at most"),
    "a root hardly off": (
        _labels("pose3d", _put(-0.01, 3, 0, 2)),
        r"off \(0, 0, 0\), by 0.01 mm at most \(1, the first is Id 4\)",
    ),
    "micrometres": (_labels("pose3d", lambda a: a * 1000), r"no person's size.*\(40, .*another unit\?"),
    "y upwards": (_labels("pose3d", _turned(1)), "y doesn't follow pose2d's .* expected y down: multiply y by -1"),
    "mirrored": (_labels("pose3d", _turned(0)), "x doesn't follow pose2d's"),
    "rows mixed up": (_labels("pose3d", lambda a: a[np.random.default_rng(0).permutation(40)]), "rows mixed up"),
    "pixels of 0 to 1": (_labels("pose2d", lambda a: a / 256), "pose2d of people smaller than 8 px"),
    "pixels of -1 to 1": (_labels("pose2d", lambda a: a / 128 - 1), "pose2d of people smaller than 8 px"),
    "pixels around the middle": (_labels("pose2d", lambda a: a - 128), "of pose2d lies outside the image"),
    "pixels far to the right": (
        _labels("pose2d", lambda a: a + np.float32([200, 0])),
        "of pose2d lies outside the image",
    ),
    "pixels of the video": (_labels("pose2d", lambda a: a * 4), "of pose2d lies outside the image"),
}
BAD_IMAGES: dict[str, tuple[Damage, str]] = {
    "missing": (lambda root: _image_path(root).unlink(), "missing"),
    "no folder": (lambda root: shutil.rmtree(root / "images"), "no (such )?folder"),
    "empty": (_image(lambda content: b""), "an empty file"),
    "text": (_image(lambda content: b"hello"), "not a JPEG"),
    "a folder": (
        lambda root: (_image_path(root).unlink(), _image_path(root).mkdir()),
        r"can't be read.*\(Is a directory\)",
    ),
    "broken off": (_image(lambda content: content[:2000]), ": broken off"),
    "the last one broken off": (_image(lambda content: content[:2000], row=-1), ": broken off"),
    "broken off behind another's end": (
        _image(lambda content: content[:2] + b"\xff\xfe\x00\x04\xff\xd9" + content[2:-500]),
        ": broken off",
    ),
    "no picture": (
        _image(lambda content: content[: content.index(b"\xff\xda")] + b"\xff\xd9"),
        "can't be decoded as an image",
    ),
    "its head only": (_image(lambda content: content[:100]), "can't be decoded|can't be read"),
    "noise": (_image(lambda content: b"\xff\xd8hello\xff\xd9"), "can't be decoded"),
    "CMYK": (_image(lambda content: _saved(content, "CMYK")), "CMYK, expected RGB"),
    "greyscale": (_image(lambda content: _saved(content, "L")), "greyscale, expected RGB"),
    "PNG": (_image(lambda content: _saved(content, kind="PNG")), "not a JPEG"),
    "16 bits": (_image(lambda content: _png16()), "not a JPEG"),
    "to be turned": (_image(lambda content: _saved(content, orientation=6)), r"EXIF orientation\).*\(6\)"),
    "to be mirrored": (_image(lambda content: content[:2] + _exif(2) + content[2:]), r"EXIF orientation\).*\(2\)"),
    "low": (_image(lambda content: _blank(200, 256)), r"not 256x256 px.*\(256x200\)"),
    "narrow": (_image(lambda content: _blank(256, 200)), r"not 256x256 px.*\(200x256\)"),
    "huge": (_image(lambda content: _blank(256, 256).replace(b"\x01\x00\x01\x00", b"\xff\xff\xff\xff")), "65535x65535"),
}
BAD = {
    f"{kind}: {name}": damage
    for kind, cases in (("list", BAD_LISTS), ("labels", BAD_LABELS), ("image", BAD_IMAGES))
    for name, damage in cases.items()
}


def _drop(root: Path, key: str) -> None:
    with h5py.File(root / "annot/train.h5", "r+") as file:
        del file[key]


def _check(root: Path) -> Findings:
    return check(root, root.parent / "folds", everything=True, advance=lambda count, text: None)


@pytest.fixture
def refuse_to_train(command: Command, own_data: Path, capsys) -> Callable[[], str]:
    """Make folds of the sound data, and return what trains on it when it is damaged: to its one line of refusal."""
    assert command("folds", "--k", "2", data=own_data) == 0

    def train() -> str:
        capsys.readouterr()
        assert command("train", *TINY, "--epochs", "1", data=own_data) == 2
        error: str = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    return train


@pytest.mark.parametrize("name", BAD)
def test_training_and_check_refuse_bad_data(refuse_to_train: Callable[[], str], own_data: Path, name: str):
    damage, message = BAD[name]
    damage(own_data)
    error = refuse_to_train()
    assert re.search(message, error), error
    problems = [str(problem) for problem in _check(own_data).problems]
    assert any(re.search(message, problem) for problem in problems), problems


def test_check_tells_all_faults_at_once_and_ten_places_of_each(command: Command, own_data: Path, capsys):
    images = [own_data / "images" / name for name in (own_data / "annot/train_images.txt").read_text().split()]
    for number, path in enumerate(images[10:30]):
        path.unlink()
        if number >= 12:  # the first twelve go missing
            path.write_bytes((b"", b"hello", _blank(256, 200), _saved(_blank(256, 256), "CMYK"))[number % 4])
    _lines(lambda lines: ["", f"/tmp/{lines[1]}", lines[5], "", *lines[4:]])(own_data)
    _labels("pose2d", _put(np.nan, 2))(own_data)
    _labels("pose3d", lambda a: a[:39] / 1000)(own_data)
    (own_data / "annot/valid_images.txt").write_text(f"{images[35].name}\n[bold].jpg\n")
    assert command("check", "--all", data=own_data) == 2
    told = capsys.readouterr().out
    for kind in (
        "blank lines", "a path", "stand twice", "training images as test images", "pose3d has 39 rows",
        "pose2d has NaN", "metres?", "missing images", "an empty file", "not a JPEG", "not 256x256 px", "CMYK",
        "names not like", "[bold].jpg",
    ):  # fmt: skip
        assert kind in told, told
    found = _check(own_data)
    (missing,) = (problem for problem in found.problems if problem.what == "missing images")
    assert len(missing.places) == 13  # [bold].jpg, too
    where = next(iter(faults_table([missing], [], own_data, str).columns[2].cells)).plain
    assert where.startswith("images, 13: ")
    assert where.endswith(" and 3 more")
    assert where.count(".jpg") == 10
    assert str(own_data) not in where


HARMLESS: dict[str, Damage] = {
    "CRLF": _list(lambda text: text.replace("\n", "\r\n")),
    "a byte order mark": _list(lambda text: text.encode("utf-8-sig")),
    "no last line end": _list(lambda text: text.rstrip("\n")),
    "blank last lines": _list(lambda text: text + "\n \n\n"),
    "blanks at a line's end": _list(lambda text: text.replace("\n", " \t\n")),
    "double precision": _labels("pose3d", lambda a: a.astype(np.float64)),
    "other byte order": _labels("pose2d", lambda a: a.astype(">f4")),
    "compressed": _labels("pose3d", lambda a: a, compression="gzip", chunks=(7, 17, 3)),
    "an upright image": _image(lambda content: content[:2] + _exif(1) + content[2:]),
    "an image of no orientation": _image(lambda content: content[:2] + _exif(0) + content[2:]),
    "zeros behind an image": _image(lambda content: content + bytes(8)),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_variants_give_the_same_data(data: Path, own_data: Path, name: str):
    HARMLESS[name](own_data)
    expected, labels = dataset.read_labels(data), dataset.read_labels(own_data)
    assert labels.images == expected.images
    assert labels.images_sha256 == expected.images_sha256
    for key in ("id", "pose2d_px", "pose_mm"):
        np.testing.assert_array_equal(getattr(labels, key), getattr(expected, key))
        assert getattr(labels, key).dtype == getattr(expected, key).dtype
    np.testing.assert_array_equal(*(read_image(root / "images" / labels.images[0]) for root in (own_data, data)))
    assert not _check(own_data).problems


def test_a_sound_folder_passes_the_check(command: Command, data: Path, capsys):
    assert command("check", data=data) == 0
    out = capsys.readouterr().out
    assert "as named" in out
    assert "none yet: `make folds" in out
    found = _check(data)
    assert not found.problems
    assert not found.oddities
    assert found.facts["training"]["images"] == str(N)
    assert found.facts["training"]["subjects"].startswith("S1 8, S5 8")
    assert found.facts["images"]["decoded"] == "52 of 52"
    assert found.facts["images"]["same bytes as another"] == "0"


def test_a_large_folder_is_sampled_unless_all_is_asked_for(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("competition.data.check.SAMPLE", 10)
    found = check(data, data / "folds", everything=False, advance=lambda count, text: None)
    assert found.facts["images"]["decoded"] == '9 of 52 (all by ARGS="--all")'
    assert _check(data).facts["images"]["decoded"] == "52 of 52"


@pytest.mark.parametrize("there", ["nothing", "pictures"])
def test_a_folder_of_something_else_is_told_in_one_line(command: Command, tmp_path: Path, there: str, capsys):
    if there == "pictures":
        (tmp_path / "images").mkdir()
        (tmp_path / "images/cat.jpg").write_bytes(_blank(256, 256))
    assert command("check", data=tmp_path) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"error: no competition at .*: expected images/\*.jpg, annot/train_images.txt, .*\n", told.err)


def test_check_warns_of_what_is_odd(own_data: Path):
    names = (own_data / "annot/train_images.txt").read_text().split()
    images = own_data / "images"
    (images / "holiday.jpg").write_bytes((images / names[4]).read_bytes())
    _lines(lambda lines: ["holiday.jpg", *lines[1:]])(own_data)
    _labels("pose3d", lambda a: a * np.where(np.arange(N) == 5, 1.3, 1).astype(np.float32)[:, None, None])(own_data)
    found = _check(own_data)
    assert not found.problems
    assert not found.names_parse
    odd = {oddity.what: list(oddity.places) for oddity in found.oddities}
    assert odd["names not like S1_Directions_1.54138969_000001.jpg"] == ["holiday.jpg"]
    assert odd["images with the same bytes as another"] == [f"holiday.jpg as {names[4]}"] or odd[
        "images with the same bytes as another"
    ] == [f"{names[4]} as holiday.jpg"]
    (loose,) = odd["bones that change their length within a subject"]
    assert re.fullmatch(r"S\d+ by 1\d\d mm", loose)
    assert found.facts["images"]["in no list"] == "1"  # whose name holiday.jpg took


def test_check_finds_what_leaks_between_folds(command: Command, own_data: Path, tmp_path: Path):
    def leaks(*arguments: str) -> list[str]:
        assert command("folds", "--force", *arguments, data=own_data) == 0
        found = check(own_data, tmp_path / "folds", everything=True, advance=lambda count, text: None)
        assert not found.problems
        return [oddity.what for oddity in found.oddities]

    assert leaks() == []
    assert [what.split()[1] for what in leaks("--strategy", "holdout")] == ["images"]
    rows = dataset.read_labels(own_data).images
    first, other = (next(i for i, name in enumerate(rows) if name.startswith(s)) for s in ("S1_", "S5_"))

    def copy(array: np.ndarray) -> np.ndarray:
        array[other, 1:] = array[first, 1:] + 0.3
        return array

    _labels("pose3d", copy)(own_data)
    assert "held-out poses within 1 mm of one that is trained on: scores flatter" in leaks()
    (own_data / "annot/train_images.txt").write_text("\n".join([*rows[:-2], rows[-1], rows[-2]]))
    found = check(own_data, tmp_path / "folds", everything=True, advance=lambda count, text: None)
    assert "lists other images" in next(iter(found.facts["folds"].values()))


def test_images_are_decoded_at_the_size_that_is_asked_for(data: Path):
    path = _image_path(data)
    full = read_image(path).astype(float)
    assert full.shape == (256, 256, 3)
    for size, tolerance in ((128, 3), (64, 3), (96, 4)):
        small = read_image(path, size).astype(float)
        assert small.shape == (size, size, 3)
        expected = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
        assert np.abs(small - expected).mean() < tolerance
    red = path.parent / "red.jpg"
    cv2.imwrite(str(red), np.full((256, 256, 3), (0, 0, 250), np.uint8))  # OpenCV writes blue, green, red
    assert read_image(red)[0, 0, 0] > 240
    red.unlink()
    turned = path.parent / "turned.jpg"
    turned.write_bytes(path.read_bytes()[:2] + _exif(6) + path.read_bytes()[2:])
    for size in (256, 128):  # as stored, as the labels fit it
        np.testing.assert_array_equal(read_image(turned, size), read_image(path, size))
    turned.unlink()


def test_pixel_positions_follow_the_image_down():
    np.testing.assert_allclose(to_input_px(np.array([[0, 255]], np.float32), 128), [[-0.25, 127.25]])


def test_a_missing_image_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "none.jpg")


def test_labels_without_a_list_are_read_up_to_a_number(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset, "MOST_ROWS", 10)
    pose2d_px, pose_mm, faults = dataset.look_at_labels(data, None)
    assert pose2d_px is not None
    assert pose_mm is not None
    assert (len(pose2d_px), len(pose_mm), faults) == (10, 10, [])


def test_a_person_that_is_narrow_is_no_dot(data: Path):
    pose2d_px = dataset.read_labels(data).pose2d_px * np.float32([0.02, 1])
    assert not pixel_faults(data, pose2d_px, IMAGE_PX)


def test_a_fifth_of_the_joints_may_lie_outside_the_image(data: Path):
    pose2d_px = dataset.read_labels(data).pose2d_px
    pose2d_px[:, :3] -= 300
    assert not pixel_faults(data, pose2d_px, IMAGE_PX)
    pose2d_px[:, :4] -= 300
    assert len(pixel_faults(data, pose2d_px, IMAGE_PX)) == 1
