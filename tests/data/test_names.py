"""File names of the known schemes are read by the right one; cameras of an instant share a sequence."""

import pytest

from competition.common.skeleton import ACTIONS
from competition.data.names import (
    NUMBERED_ACTIONS,
    ONE_CAMERA,
    SCHEMES,
    best_strategy,
    parse_name,
    parse_sequence,
    subjects_and_sequences,
)

# name: sequence, subject, action, camera, frame
KNOWN = {
    "S11_WalkTogether_1.54138969_000126.jpg": ("S11_WalkTogether_1", "S11", "WalkTogether", "54138969", 126),
    "S1_Photo.54138969_000001.jpg": ("S1_Photo", "S1", "Photo", "54138969", 1),
    "S1_Photo 1.54138969_000001.jpeg": ("S1_Photo_1", "S1", "Photo", "54138969", 1),
    "S1_Photo.54138969_000001.JPG": ("S1_Photo", "S1", "Photo", "54138969", 1),
    "S1_Photo.54138969_000001": ("S1_Photo", "S1", "Photo", "54138969", 1),
    "S1_Seq_1.video_0_000001.jpg": ("S1_Seq_1", "S1", "Seq", "video_0", 1),  # the competition's scheme comes first
    "S9_Directions-1_imageSequence_54138969_img_000001.jpg": (
        "S9_Directions_1", "S9", "Directions", "54138969", 1,
    ),
    "S9_Walking_60457274_000001.jpg": ("S9_Walking", "S9", "Walking", "60457274", 1),
    "s_01_act_02_subact_01_ca_01_002021.jpg": ("S1_Directions_1", "S1", "Directions", "01", 2021),
    "s_11_act_16_subact_02_ca_04_000001.JPG": ("S11_WalkTogether_2", "S11", "WalkTogether", "04", 1),
    "s_09_act_10_subact_02_ca_04_000001": ("S9_SittingDown_2", "S9", "SittingDown", "04", 1),
    "s_05_act_14_subact_01_ca_03_s_05_act_14_subact_01_ca_03_000001.jpg": ("S5_Walking_1", "S5", "Walking", "03", 1),
    "h36m_s_05_act_15_subact_01_ca_03_000001.jpg": ("S5_WalkDog_1", "S5", "WalkDog", "03", 1),
    "s_05_act_01_subact_01_ca_03_000001.jpg": ("S5_act01_1", "S5", "act01", "03", 1),
    "S1_Seq1_video_0_000123.jpg": ("S1_Seq1", "S1", "Seq1", "0", 123),
    "S1_Seq2_imageSequence_video_13_frame_000123.jpg": ("S1_Seq2", "S1", "Seq2", "13", 123),
    "S1-Seq1-imageFrames-video_0-frame_000123.jpg": ("S1_Seq1", "S1", "Seq1", "0", 123),
    "mpi_inf_3dhp__S8__Seq1__imageSequence__video_0__img_000123.jpg": ("S8_Seq1", "S8", "Seq1", "0", 123),
    "S4_Seq2_Cam8_000001.jpg": ("S4_Seq2", "S4", "Seq2", "8", 1),
    "img_S1_Seq1_V0_000001.jpg": ("S1_Seq1", "S1", "Seq1", "0", 1),
    "S1_Seq1_video_0_F12.jpg": ("S1_Seq1", "S1", "Seq1", "0", 12),
    "S1_Seq1_video_0.avi_000001.jpg": ("S1_Seq1", "S1", "Seq1", "0", 1),
    "S1_Seq1_4_000001.jpg": ("S1_Seq1", "S1", "Seq1", "4", 1),
    "S1_Seq1_000001.jpg": ("S1_Seq1", "S1", "Seq1", ONE_CAMERA, 1),
    "subject_01_sequence_02_camera_03_frame_000001.jpg": ("S1_sequence_02", "S1", "sequence_02", "03", 1),
    "TS1_imageSequence_img_000001.jpg": ("TS1", "TS1", "TS1", ONE_CAMERA, 1),
    "mpi_inf_3dhp_test_set_TS6_img_000001.jpg": ("TS6", "TS6", "TS6", ONE_CAMERA, 1),
    "TS3_000001.jpg": ("TS3", "TS3", "TS3", ONE_CAMERA, 1),
}  # fmt: skip
# name: sequence and camera, or None; none of them has a subject
OTHERS = {
    "clip_7_0042.jpg": ("clip_7", ""),
    "clip_7_0042.JPG": ("clip_7", ""),
    "clip_7_0042": ("clip_7", ""),
    "clip.left_0042.jpg": ("clip", "left"),
    "clip_cam7_0042.jpg": ("clip", "cam7"),
    "clip-camera-07-frame-0042.jpg": ("clip", "camera-07"),
    "cam7_clip_0042.jpg": ("clip", "cam7"),
    "S1_Walking_1_(C2)_0042.png": ("S1_Walking_1", "(C2)"),
    "cam7_0042.jpg": ("cam7", "cam7"),
    "scam7_0042.jpg": ("scam7", ""),
    "Sub1_Seq1b_0042.jpg": ("Sub1_Seq1b", ""),
    "s_1_act_2_ca_1_0042.jpg": ("s_1_act_2", "ca_1"),
    "TSX1_0042.jpg": ("TSX1", ""),
    "flip_S1_Seq1_video_0_0042.jpg": ("flip_S1_Seq1_video_0", ""),  # its pose is another one
    "flip_s_01_act_02_subact_01_ca_01_0042.jpg": ("flip_s_01_act_02_subact_01", "ca_01"),
    "video_3_0042.jpg": ("video_3", ""),
    "NA_0042.jpg": ("NA", ""),
    "日本_0042.jpg": ("日本", ""),
    "000001": None,
    "000001.jpg": None,
    "NA": None,
    "null": None,
    ".JPG": None,
    "holiday.jpg": None,
    "S1_Photo.54138969_" + 5000 * "9" + ".jpg": ("S1_Photo", "54138969"),  # more digits than int() accepts
}


@pytest.mark.parametrize("name", [*KNOWN, *SCHEMES])
def test_names_of_known_schemes_are_split_into_their_parts(name: str):
    parsed = parse_name(name)
    assert parsed is not None
    assert tuple(parsed) == KNOWN.get(name, tuple(parsed))
    assert parse_sequence(name) == (parsed.sequence, parsed.camera)


@pytest.mark.parametrize("name", OTHERS)
def test_other_names_have_no_subject_but_maybe_a_sequence_and_a_camera(name: str):
    assert parse_name(name) is None
    assert parse_sequence(name) == OTHERS[name]


def test_each_example_is_matched_by_its_own_scheme_first():
    for example, scheme in SCHEMES.items():
        assert next(one for one in SCHEMES.values() if one.fullmatch(example)) is scheme


def test_the_numbers_of_actions_are_those_of_human36m():
    assert list(NUMBERED_ACTIONS) == [str(number) for number in range(2, 17)]
    assert set(NUMBERED_ACTIONS.values()) == set(ACTIONS)
    assert (NUMBERED_ACTIONS["12"], NUMBERED_ACTIONS["15"]) == ("Photo", "WalkDog")  # not in alphabetical order


@pytest.mark.parametrize(
    "camera",
    [
        "S1_Eating_1.{}_000006.jpg", "s_01_act_04_subact_01_ca_{}_000006.jpg", "S1_Seq2_video_{}_000006.jpg",
        "S1_Seq2_imageSequence_video_{}_frame_000006.JPG", "clip_cam{}_000006.jpg", "clip.{}_000006",
    ],
)  # fmt: skip
def test_all_cameras_of_an_instant_have_one_sequence(camera: str):
    parts = [parse_sequence(camera.format(f"{number:02d}")) for number in range(14)]
    assert len({sequence for sequence, _ in parts}) == 1
    assert len({camera for _, camera in parts}) == 14


def test_subjects_and_sequences_come_from_the_names():
    names = ["S1_Eating.54138969_000001.jpg", "S5_Posing_1.60457274_000006.jpg"]
    assert subjects_and_sequences(names) == (["S1", "S5"], ["S1_Eating", "S5_Posing_1"])
    assert subjects_and_sequences([names[0], "clip_7_0042.jpg"]) == (None, ["S1_Eating", "clip_7"])
    assert subjects_and_sequences([names[0], "portrait.jpg"]) == (None, None)


@pytest.mark.parametrize(
    ("names", "strategy"),
    [
        (["S1_Eating.1_1.jpg", "S5_Eating.1_1.jpg"], "subject"),
        (["S1_Eating.1_1.jpg", "S1_Photo.1_1.jpg"], "sequence"),
        (["S1_Eating.1_1.jpg", "S1_Eating.2_1.jpg"], "holdout"),
        (["a_1.jpg", "b_1.jpg"], "sequence"),
        (["img_1.jpg", "img_2.jpg"], "holdout"),
        (["000001", "NA"], "holdout"),
        ([], "holdout"),
    ],
)
def test_the_best_strategy_is_one_that_the_names_allow(names: list[str], strategy: str):
    assert best_strategy(names) == strategy
