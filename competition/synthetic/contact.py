"""The contact sheet: one row per action, with the projected skeleton on every second image."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from competition.common.arrays import Floats
from competition.common.drawing import draw_pose
from competition.common.skeleton import ACTIONS

COLUMNS = 8
TILE_PX = 160
LABEL_PX = 110


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
                    image = draw_pose(image, pose_px[index], sides=True)
                tile = cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
            tiles.append(tile)
        rows.append(np.hstack(tiles))
    done, code = cv2.imencode(".jpg", np.vstack(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done, "JPEG encoding failed"
    return bytes(code)
