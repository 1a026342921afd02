"""Best, median and worst out-of-fold images of the best run: the picture, and both skeletons for the viewer."""

import base64
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from competition.dataset import check_images, parse_name, read_image
from competition.errors import DataError
from competition.page.evidence import Evidence
from competition.page.markup import Section, escape, paragraph, skipped
from competition.skeleton import BONES, JOINTS, LEFT, RIGHT

EACH: Final = 4  # images of each kind
JPEG_QUALITY: Final = 82
SUBPIXEL_BITS: Final = 4  # OpenCV draws at sixteenths of a pixel

HELP: Final = (
    "Turn it with the mouse or a finger, or focus it and press the arrow keys; + and − zoom, Home puts it back."
)
VIEWER: Final = (
    '<div class="viewer"><div id="viewer-plot" tabindex="0" role="application" aria-label="3D skeletons" '
    'aria-describedby="viewer-help"></div>'
    '<p id="viewer-caption" aria-live="polite"></p>'
    '<ul class="legend"><li class="left">predicted, left</li><li class="right">predicted, right</li>'
    '<li class="middle">predicted, middle</li><li class="truth">truth</li></ul>'
    f'<p id="viewer-help" class="aside">{HELP}</p></div>'
)


def choose_rows(row_mm: npt.NDArray[np.float64], each: int = EACH) -> dict[str, list[int]]:
    """Choose rows of the lowest, the middle and the highest error [n], `each` of them, fewer where n is small."""
    order = np.argsort(row_mm, kind="stable")
    each = min(each, len(order) // 3)
    start = (len(order) - each) // 2
    return {
        "Best": order[:each].tolist(),
        "Median": order[start : start + each].tolist(),
        "Worst": order[::-1][:each].tolist(),
    }


def draw_pose(image: npt.NDArray[np.uint8], pose_px: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Draw a pose [17, 2], pixels of the image, over a copy of an RGB image [H, W, 3]: white lines with a dark rim."""
    drawn = image.copy()
    points = [tuple(int(v) for v in point) for point in np.rint(pose_px * (1 << SUBPIXEL_BITS))]
    for colour, width, radius in (((20, 20, 20), 4, 3.5), ((245, 245, 245), 2, 2.2)):
        for parent, joint in BONES:
            cv2.line(drawn, points[parent], points[joint], colour, width, cv2.LINE_AA, SUBPIXEL_BITS)
        for point in points:
            cv2.circle(drawn, point, int(radius * (1 << SUBPIXEL_BITS)), colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)
    return drawn


def as_data_url(image: npt.NDArray[np.uint8]) -> str:
    """Encode an RGB image as a JPEG that HTML can hold."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def gallery(evidence: Evidence) -> Section:
    """Show images of the best run with the true pose drawn over them, and a viewer for the poses in space."""
    key, title = "gallery", "Gallery"
    labels = evidence.labels
    if not evidence.entries or labels is None:
        return skipped(key, title, evidence.lacking)
    entry = evidence.entries[0]
    chosen = choose_rows(entry.row_mm)
    if not chosen["Best"]:
        return skipped(key, title, f"{len(entry.id)} out-of-fold images are too few for a best, a median and a worst.")
    predicted = evidence.read_poses(entry)
    groups: list[str] = []
    shown: list[dict[str, Any]] = []
    try:
        check_images(
            evidence.workspace.data, [labels.images[entry.id[row] - 1] for rows in chosen.values() for row in rows]
        )
        for kind, rows in chosen.items():
            cards = []
            for row in rows:
                place = int(entry.id[row]) - 1  # row i has Id i + 1
                name, error_mm = labels.images[place], float(entry.row_mm[row])
                picture = _picture(evidence.workspace.data / "images" / name, labels.pose2d_px[place])
                cards.append(_card(len(shown), kind, place + 1, name, error_mm, picture))
                shown.append(
                    {
                        "caption": f"Id {place + 1}, {_words(name)}: {error_mm:.1f} mm",
                        "truth": np.round(labels.pose_mm[place].astype(np.float64), 1).tolist(),
                        "predicted": np.round(predicted.pose_mm[row], 1).tolist(),
                    }
                )
            groups.append(f'<h3>{kind}</h3><div class="cards">{"".join(cards)}</div>')
    except DataError as error:
        return skipped(key, title, f"An image can't be shown: {error}.")
    body = paragraph(
        f"Out-of-fold images of the best run ({entry.name}), by their error. Drawn over each is the true pose; "
        "choose one to see prediction and truth in space."
    )
    body += f'<div class="gallery"><div class="groups">{"".join(groups)}</div>{VIEWER}</div>'
    poses: dict[str, Any] = {"poses": shown, "joints": JOINTS, "bones": BONES, "left": LEFT, "right": RIGHT}
    return Section(key=key, title=title, body=body, gallery=poses)


def _picture(path: Path, pose_px: npt.NDArray[np.float32]) -> str:
    return as_data_url(draw_pose(read_image(path), pose_px))


def _words(name: str) -> str:
    """Say what an image's name tells: subject, action and camera; the name itself where it follows no pattern."""
    parsed = parse_name(name)
    return name if parsed is None else f"{parsed.subject} {parsed.action}, camera {parsed.camera}"


def _card(number: int, kind: str, id_: int, name: str, error_mm: float, picture: str) -> str:
    alternative = f"{kind}: {_words(name)}, with the true pose drawn over it"
    return (
        f'<button type="button" class="card" data-pose="{number}" aria-pressed="{"true" if number == 0 else "false"}" '
        f'title="{escape(name)}"><img src="{picture}" width="256" height="256" alt="{escape(alternative)}">'
        f"<span><b>{error_mm:.1f} mm</b> Id {id_}</span></button>"
    )
