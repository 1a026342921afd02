"""The 17 joints of the competition, in the order of every file and tensor.

Joints 1-3 are named the right leg. In the real competition's files they are the subject's left leg; only the names
depend on it (see `check`).
"""

from typing import Final

JOINTS: Final = (
    "Hip", "RHip", "RKnee", "RFoot", "LHip", "LKnee", "LFoot", "Spine", "Thorax",
    "Neck/Nose", "Head", "LShoulder", "LElbow", "LWrist", "RShoulder", "RElbow", "RWrist",
)  # fmt: skip
AXES: Final = ("x", "y", "z")  # camera axes: x right, y down, z away from the camera
ROOT: Final = 0

PARENTS: Final = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
BONES: Final = tuple((parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0)

# index of the joint that each joint takes its value from when left and right are swapped
MIRROR: Final = (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)

LEFT: Final = (4, 5, 6, 11, 12, 13)
RIGHT: Final = (1, 2, 3, 14, 15, 16)

ACTIONS: Final = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether",
)  # fmt: skip
TRAIN_SUBJECTS: Final = ("S1", "S5", "S6", "S7", "S8")
TEST_SUBJECTS: Final = ("S9", "S11")
CAMERAS: Final = ("54138969", "55011271", "58860488", "60457274")

IMAGE_PX: Final = 256  # width and height of every image of the competition

# of the limbs in every picture, as in page.css; colour-blind-safe (Okabe and Ito 2008)
LEFT_COLOUR, RIGHT_COLOUR, MIDDLE_COLOUR = "#0072B2", "#D55E00", "#1d2125"


def side_colour(joint: int) -> str:
    """Return the colour of a joint and of the bone from its parent."""
    return LEFT_COLOUR if joint in LEFT else RIGHT_COLOUR if joint in RIGHT else MIDDLE_COLOUR
