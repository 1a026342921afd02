"""The contact sheet: one row per action, with the projected skeleton on every second image."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from competition.common.arrays import Floats, Image
from competition.common.skeleton import ACTIONS, BONES, LEFT, RIGHT

COLUMNS = 8
TILE_PX = 160
LABEL_PX = 110
_LEFT_RGB, _RIGHT_RGB, _MIDDLE_RGB = (255, 140, 0), (0, 160, 255), (255, 255, 255)


def draw_skeleton(image: Image, pose_px: Floats) -> None:
    """Draw a skeleton, joints [17, 2] in pixels, onto an RGB image: the subject's left orange, its right blue."""
    for parent, joint in BONES:
        colour = _LEFT_RGB if joint in LEFT else _RIGHT_RGB if joint in RIGHT else _MIDDLE_RGB
        ends = [tuple(round(value * 16) for value in pose_px[end].tolist()) for end in (parent, joint)]
        cv2.line(image, ends[0], ends[1], colour, 2, cv2.LINE_AA, 4)


def draw_sheet(folder: Path, names: Sequence[str], pose_px: Floats) -> bytes:
    """Draw the contact sheet of images `names` in `folder`, with joints [N, 17, 2] in pixels; return a JPEG."""
    rows = []
    for action in ACTIONS:
        found = [index for index, name in enumerate(names) if name.split(".")[0].split("_")[1] == action]
        if not found:
            continue
        label = np.full((TILE_PX, LABEL_PX, 3), 24, np.uint8)
        cv2.putText(label, action, (6, TILE_PX // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
        tiles = [label]
        for column in range(COLUMNS):
            tile = np.full((TILE_PX, TILE_PX, 3), 24, np.uint8)
            if column < len(found):
                index = found[column * len(found) // min(COLUMNS, len(found))]
                image = cv2.imread(str(folder / names[index]), cv2.IMREAD_COLOR_RGB)
                assert image is not None, names[index]
                if column % 2:
                    draw_skeleton(image, pose_px[index])
                tile = cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
            tiles.append(tile)
        rows.append(np.hstack(tiles))
    done, code = cv2.imencode(".jpg", np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done, "JPEG encoding failed"
    return bytes(code)
