"""Parse image file names: subject, action, sequence, camera and frame."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting", "SittingDown",
    "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether",
)  # fmt: skip
NUMBERED_ACTIONS: Final = {str(number): action for number, action in enumerate(_ACTIONS, start=2)}  # Human3.6M's
ONE_CAMERA: Final = "0"  # where names have none

_FLAGS: Final = re.ASCII | re.IGNORECASE
_END = r"(?:\.[a-z]\w*)?"  # the extension may be missing
_DIGITS = r"\d{1,18}"
_GAP = r"[ ._-]+"
# folders in front; words such as flip_ are not allowed, as the pose of such a copy is another one
_PREFIX = rf"(?:(?:h36m|human36m|mpi(?:_inf_3dhp)?|images?|img|train|test|val|valid){_GAP})*"
_FOLDER = rf"(?:image(?:sequence|frames|s)?{_GAP})?"
_FRAME = rf"(?:(?:frame|image|img|f)[ ._-]*)?(?P<frame>{_DIGITS}){_END}"

# All known schemes, by example. The first one that matches counts.
SCHEMES: Final = {
    # the competition's
    "S1_Directions_1.54138969_000001.jpg": re.compile(
        r"(?P<subject>S\d+)_(?P<action>[A-Za-z]+)(?:[ _](?P<take>\d+))?\.(?P<camera>\w+)"
        rf"_(?P<frame>{_DIGITS})(?i:{_END})",
        re.ASCII,
    ),
    # Human3.6M with other separators, such as S1_Directions-1_imageSequence_54138969_img_000001.jpg
    "S1_Directions_1_54138969_000001.jpg": re.compile(
        rf"(?P<subject>S\d+){_GAP}(?P<action>[a-z]+)(?:{_GAP}(?P<take>\d{{1,2}}))?{_GAP}{_FOLDER}"
        rf"(?P<camera>54138969|55011271|58860488|60457274){_GAP}{_FRAME}",
        _FLAGS,
    ),
    # Human3.6M, preprocessed, with numbers for the actions
    "s_01_act_02_subact_01_ca_01_000001.jpg": re.compile(
        rf"{_PREFIX}(?:s_\d+_act_\w+_ca_\d+{_GAP})?s_?(?P<subject>\d+){_GAP}act_?(?P<action>\d+){_GAP}"
        rf"subact_?(?P<take>\d+){_GAP}ca(?:m|mera)?_?(?P<camera>\d+){_GAP}{_FRAME}",
        _FLAGS,
    ),
    # MPI-INF-3DHP; also S1_Seq1_imageSequence_video_0_frame_000001.jpg, S1_Seq1_Cam0_000001.jpg, S1_Seq1_V0_F1.jpg
    "S1_Seq1_video_0_000001.jpg": re.compile(
        rf"{_PREFIX}s(?:ubject)?_?(?P<subject>\d+){_GAP}(?P<action>seq(?:uence)?_?\d+){_GAP}{_FOLDER}"
        rf"(?:(?:video|vid|v|camera|cam|c)?_?(?P<camera>\d+)(?:\.(?:avi|mp4))?{_GAP})?{_FRAME}",
        _FLAGS,
    ),
    # its test set, one sequence and camera per person; also TS1_imageSequence_img_000001.jpg
    "TS1_000001.jpg": re.compile(rf"{_PREFIX}(?:test_set_)?(?P<subject>TS\d+){_GAP}{_FOLDER}{_FRAME}", _FLAGS),
}
# Other names: no subject, but a sequence and maybe a camera, as in clip.7_0001.jpg or clip_cam7_0001.jpg.
_OTHER = re.compile(rf"(.+?)(?:\.(\w+))?[ ._-]\d+{_END}", _FLAGS)
_CAMERA = re.compile(
    rf"(?:^|[ ._-])((?:camera|cam|ca|view)[ ._-]?\d+|\(C\d+\))(?:{_GAP}(?:frame|image|img))?(?=[ ._-]|$)", _FLAGS
)


class ImageName(NamedTuple):
    """Parts of a file name such as S1_Directions_1.54138969_000001.jpg."""

    sequence: str  # subject_action_subaction, the same for all cameras
    subject: str
    action: str
    camera: str
    frame: int


def parse_name(name: str) -> ImageName | None:
    """Split a file name into its parts; return None when it follows none of the SCHEMES."""
    for scheme in SCHEMES.values():
        if (match := scheme.fullmatch(name)) is not None:
            return _image_name(**match.groupdict())
    return None


def _image_name(
    subject: str, frame: str, action: str = "", take: str | None = None, camera: str | None = None
) -> ImageName:
    if subject.isdigit():
        subject = f"S{subject.lstrip('0')}"
    if action.isdigit():
        action = NUMBERED_ACTIONS.get(action.lstrip("0"), f"act{action}")
    sequence = f"{subject}_{action}" if action else subject
    if take is not None:
        sequence = f"{sequence}_{take.lstrip('0') or '0'}"
    return ImageName(sequence, subject, action or subject, camera or ONE_CAMERA, int(frame))


def parse_sequence(name: str) -> tuple[str, str] | None:
    """Return the sequence and the camera, "" if unknown, of a name; None when it has no part before a frame number."""
    if (parsed := parse_name(name)) is not None:
        return parsed.sequence, parsed.camera
    if (match := _OTHER.fullmatch(name)) is None:
        return None
    sequence, camera = match[1], match[2] or ""
    if not camera and (found := _CAMERA.search(sequence)) is not None:
        rest = sequence[: found.start()] + sequence[found.end() :]
        sequence, camera = rest.strip(" ._-") or sequence, found[1]
    return sequence, camera


def subjects_and_sequences(images: Sequence[str]) -> tuple[list[str] | None, list[str] | None]:
    """Return the subjects and the sequences of images; None for either when a name doesn't contain it."""
    subjects = [parsed.subject for image in images if (parsed := parse_name(image)) is not None]
    sequences = [parts[0] for image in images if (parts := parse_sequence(image)) is not None]
    n = len(images)
    return subjects if len(subjects) == n else None, sequences if len(sequences) == n else None


def best_strategy(images: Sequence[str]) -> str:
    """Return the best strategy for folds that the names allow: subject, sequence or holdout."""
    for strategy, groups in zip(("subject", "sequence"), subjects_and_sequences(images), strict=True):
        if groups is not None and len(set(groups)) > 1:
            return strategy
    return "holdout"
