"""Lists whose whole parts or cameras are exchanged, where the cameras of an instant and neighbouring frames agree."""

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from competition.common.arrays import Float32
from competition.common.skeleton import CAMERAS
from competition.data.faults import Fault
from competition.data.names import parse_name
from competition.data.row_order import find_order_faults, order_facts
from competition.data.viewpoints import exchanged_cameras
from competition.synthetic.bones import draw_bones
from competition.synthetic.cameras import make_cameras
from competition.synthetic.poses import FRAME_STEP, Take
from tests.data.damage import change_lines, check_all

Set = tuple[list[str], Float32]  # names and poses [N, 17, 3]
Rows = Callable[[list[str]], list[int]]
ACTIONS = ("Directions", "Sitting", "SittingDown", "Walking")
ANONYMOUS = dict(zip(CAMERAS, ("c2", "c0", "c3", "c1"), strict=True))
FRAMES = (26, 34, 22, 30)  # of the takes of a subject


@pytest.fixture(scope="module")
def film() -> Set:
    """Return three people in four takes of different length, seen by four cameras, sorted by name."""
    images = []
    for turn, subject in enumerate(("S1", "S5", "S6")):
        cameras = make_cameras(0, subject)
        for number, action in enumerate(ACTIONS):
            take = Take(0, subject, action, "1", draw_bones(0, subject))
            for frame in range(FRAMES[(number + turn) % 4] + 3 * turn):
                joints_mm = take.posture(frame).joints_mm
                for camera in CAMERAS:
                    seen_mm = cameras[camera].to_camera(joints_mm)
                    name = f"{subject}_{action}_1.{camera}_{FRAME_STEP * frame:06d}.jpg"
                    images.append((name, seen_mm - seen_mm[0]))
    names, poses = zip(*sorted(images, key=lambda image: image[0]), strict=True)
    return list(names), np.array(poses, np.float32)


def only(film: Set, keep: Callable[[str, int], bool]) -> Set:
    rows = [row for row, name in enumerate(film[0]) if keep(name, row)]
    return [film[0][row] for row in rows], film[1][rows]


def anonymous(film: Set) -> Set:
    return [name.replace(camera := name.split(".")[1][:8], ANONYMOUS[camera]) for name in film[0]], film[1]


def moving(film: Set) -> Set:
    frame = np.array([int(name[-10:-4]) for name in film[0]])
    camera = np.array([CAMERAS.index(name[-19:-11]) for name in film[0]])
    x, y, z = np.moveaxis(film[1], 2, 0)
    cosine, sine = (turn(0.01 * frame * (1 + camera))[:, None] for turn in (np.cos, np.sin))
    return film[0], np.stack([cosine * x + sine * z, y, cosine * z - sine * x], axis=2).astype(np.float32)


def noisy(film: Set) -> Set:
    noise_mm = np.random.default_rng(0).normal(0, 15, film[1].shape)
    noise_mm[:, 0] = 0
    return film[0], (film[1] + noise_mm).astype(np.float32)


SETS: dict[str, Callable[[Set], Set]] = {
    "all": lambda film: film,
    "one camera": lambda film: only(film, lambda name, row: CAMERAS[1] in name),
    "two cameras": lambda film: only(film, lambda name, row: name.split(".")[1][:8] in CAMERAS[1:3]),
    "every third": lambda film: only(film, lambda name, row: row % 3 == 0),
    "random rows": lambda film: only(film, lambda name, row: crc32(name.encode()) % 5 < 2),
    "one subject": lambda film: only(film, lambda name, row: name.startswith("S5")),
    "cameras renamed": anonymous,
    "subjects renamed": lambda film: ([name.replace("S1_", "S7_") for name in film[0]], film[1]),
    "one name for all people": lambda film: (["S1_" + name.replace("_", "", 1) for name in film[0]], film[1]),
    "moving cameras": moving,
    "estimated poses": noisy,
    "sorted by frame": lambda film: (
        lambda order: ([film[0][row] for row in order], film[1][order])
    )(sorted(range(len(film[0])), key=lambda row: (film[0][row].split(".")[0], film[0][row].rsplit("_", 1)))),
}  # fmt: skip


def exchange(a: str, b: str, where: Callable[[str], bool]) -> Rows:
    """Exchange the rows of two cameras in the instants that are chosen by the name without the camera."""

    def order(names: list[str]) -> list[int]:
        row = {name: number for number, name in enumerate(names)}
        other = {a: b, b: a}
        cameras = [name.split(".")[1].split("_")[0] for name in names]
        return [
            row[name.replace(camera, other[camera])]
            if camera in other and where(name.replace(camera, ""))
            else row[name]
            for name, camera in zip(names, cameras, strict=True)
        ]

    return order


def resorted(key: Callable[[str], object]) -> Rows:
    return lambda names: sorted(range(len(names)), key=lambda row: (key(names[row]), row))


def backwards(names: list[str]) -> list[int]:
    return [*range(len(names))][::-1]


def is_second(name: str) -> bool:
    return name.startswith("S5")


def is_eighth(name: str) -> bool:
    return crc32(name.encode()) % 8 == 0


EXCHANGED = "poses of cameras are exchanged"
ONE, TWO, THREE, FOUR = CAMERAS
BAD: dict[str, tuple[str, Rows, str]] = {  # the list, its order, and what is found
    "reversed": ("all", backwards, "reversed"),
    "reversed, one camera": ("one camera", backwards, "reversed"),
    "reversed, frames first": ("sorted by frame", backwards, "reversed"),
    "each subject reversed": ("one camera", lambda names: sorted(backwards(names), key=lambda row: names[row][:2]),
                              "reversed"),
    "moved by a third": ("one camera", lambda names: [*range(270, len(names)), *range(270)], "bone lengths"),
    "takes in another order": ("one camera", resorted(lambda name: (name[:2], "WSD".index(name[3]), name)), "jump"),
    "two cameras of one subject": ("all", exchange(ONE, TWO, is_second), EXCHANGED),
    "two opposite cameras of one subject": ("all", exchange(ONE, FOUR, is_second), EXCHANGED),
    "two cameras in an eighth": ("all", exchange(TWO, THREE, is_eighth), EXCHANGED),
    "two cameras in an eighth, frames first": ("sorted by frame", exchange(ONE, THREE, is_eighth), EXCHANGED),
    "the only two cameras in an eighth": ("two cameras", exchange(TWO, THREE, is_eighth), EXCHANGED),
    "two cameras everywhere": ("all", exchange(ONE, TWO, bool), EXCHANGED),
    "unknown cameras in an eighth": ("cameras renamed", exchange("c0", "c2", is_eighth), EXCHANGED),
}  # fmt: skip


def faults(names: list[str], pose_mm: Float32) -> tuple[list[Fault], list[Fault]]:
    return find_order_faults(Path("list"), names, order_facts([parse_name(name) for name in names], pose_mm))


@pytest.mark.parametrize("name", BAD)
def test_lists_with_exchanged_parts_or_cameras_are_rejected(film: Set, name: str):
    kind, order, expected = BAD[name]
    names, pose_mm = SETS[kind](film)
    rows = order(names)
    problems, warnings = faults(names, pose_mm[rows])
    assert [expected in problem.what for problem in problems] == [True], (problems, warnings)
    instants = {(one.split(".")[0], one[-10:]) for row, one in enumerate(names) if rows[row] != row}
    found = [(place.split()[2].split(".")[0], place[-10:]) for place in problems[0].places]
    assert np.mean([instant in instants for instant in found]) > 0.9


@pytest.mark.parametrize("within", [lambda name: "", lambda name: name[:2]])
def test_a_shuffled_list_of_one_camera_is_an_error_although_people_sit_unlike_the_names(
    film: Set, within: Callable[[str], str]
):
    names, pose_mm = SETS["one camera"](film)
    shuffled = sorted(range(len(names)), key=lambda row: (within(names[row]), crc32(names[row].encode())))
    order = np.empty(len(names), int)
    order[sorted(range(len(names)), key=lambda row: (within(names[row]), row))] = shuffled
    problems, _ = faults(names, pose_mm[order])
    assert len(problems) == 1
    assert "in another order than train.h5" in problems[0].what


@pytest.mark.parametrize("kind", SETS)
def test_lists_in_order_pass(film: Set, kind: str):
    assert faults(*SETS[kind](film)) == ([], [])


def test_doubtful_exchanges_are_only_a_warning(film: Set):
    names, pose_mm = noisy(anonymous(film))
    for where in (is_eighth, is_second):
        problems, warnings = faults(names, pose_mm[exchange("c0", "c2", where)(names)])
        assert problems == []
        assert [EXCHANGED in warning.what for warning in warnings] == [True]
    everywhere = exchange("c0", "c2", bool)(names)
    assert faults(names, pose_mm[everywhere]) == ([], [])  # unknown cameras may stand like that


def test_the_exchanged_cameras_are_named():
    layout = {camera: view.rotation for camera, view in make_cameras(3, "S8").items()}
    other = dict(layout, **{CAMERAS[1]: layout[CAMERAS[0]], CAMERAS[0]: layout[CAMERAS[1]]})
    assert exchanged_cameras(other, layout) == {CAMERAS[0]: CAMERAS[1], CAMERAS[1]: CAMERAS[0]}
    assert exchanged_cameras(layout, layout) == {}


def test_check_rejects_a_list_with_exchanged_cameras(own_data: Path):
    change_lines(lambda lines: [lines[row] for row in exchange(CAMERAS[0], CAMERAS[2], bool)(lines)])(own_data)
    assert [EXCHANGED in problem.what for problem in check_all(own_data).problems] == [True]
