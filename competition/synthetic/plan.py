"""Plan a competition's images: evenly over subjects, actions, takes and time, each instant by all cameras."""

from dataclasses import dataclass

from competition.common.seeds import derive
from competition.common.skeleton import ACTIONS, CAMERAS
from competition.synthetic.poses import FRAME_STEP, TAKE_FRAMES

PARTS = 2  # takes per subject and action; more when these have too few frames
ACTION_STRIDE = 4  # offset of the first action between subjects, for variety in small sets


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One instant of a take and the cameras that see it."""

    frame: int  # frame of the take, from 0
    cameras: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TakePlan:
    """The images of one take."""

    subject: str
    action: str
    part: str
    shots: tuple[Shot, ...]

    @property
    def name(self) -> str:
        """Return the take's name, the prefix of its image names."""
        return f"{self.subject}_{self.action}_{self.part}"

    def images(self) -> list[tuple[int, str, str]]:
        """List the images in order as (index of the shot, camera, file name)."""
        return [
            (number, camera, f"{self.name}.{camera}_{1 + FRAME_STEP * shot.frame:06d}.jpg")
            for number, shot in enumerate(self.shots)
            for camera in shot.cameras
        ]


def plan_takes(seed: int, n: int, subjects: tuple[str, ...]) -> list[TakePlan]:
    """Plan exactly n images of these subjects."""
    instants = max(-(-n // len(CAMERAS)), min(n, len(subjects)))
    parts = max(PARTS, -(-instants // (len(subjects) * len(ACTIONS) * TAKE_FRAMES)))
    takes = [
        (subject, ACTIONS[(turn + ACTION_STRIDE * place) % len(ACTIONS)], str(part + 1))
        for part in range(parts)
        for turn in range(len(ACTIONS))
        for place, subject in enumerate(subjects)
    ]
    each, more = divmod(instants, len(takes))
    views, richer = divmod(n, instants)
    plans, instant = [], 0
    for number, (subject, action, part) in enumerate(takes):
        count = each + (number < more)
        offset = derive(seed, "when", subject, action, part) % 1000 / 1000
        shots = []
        for i in range(count):
            seen = views + (instant < richer)
            cameras = tuple(CAMERAS[(instant + view) % len(CAMERAS)] for view in range(seen))
            shots.append(Shot(frame=int((i + offset) * TAKE_FRAMES / count), cameras=tuple(sorted(cameras))))
            instant += 1
        if shots:
            plans.append(TakePlan(subject=subject, action=action, part=part, shots=tuple(shots)))
    return sorted(plans, key=lambda plan: plan.name)
