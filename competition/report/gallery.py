"""Shows the best, median and worst out-of-fold images of the best run, with both skeletons in a 3D viewer."""

from pathlib import Path
from typing import Final

import numpy as np

from competition.common.arrays import Float32, Float64
from competition.common.drawing import draw_pose
from competition.common.errors import DataError
from competition.data.images import check_images, read_image
from competition.data.names import parse_name
from competition.report.blocks import Card, Gallery, Paragraph, Section, skipped
from competition.report.evidence import Evidence
from competition.report.viewer import ShownPose, Viewer, as_data_url, shown_pose

EACH: Final = 4  # images of each kind


def choose_rows(row_mm: Float64, each: int = EACH) -> dict[str, list[int]]:
    """Choose the rows with the lowest, median and highest error [n]: `each` of a kind, fewer if n is small."""
    order = np.argsort(row_mm, kind="stable")
    each = min(each, len(order) // 3)
    start = (len(order) - each) // 2
    return {
        "Best": order[:each].tolist(),
        "Median": order[start : start + each].tolist(),
        "Worst": order[::-1][:each].tolist(),
    }


def gallery(evidence: Evidence) -> Section:
    """Show images of the best run with the true pose drawn over them, and a 3D viewer for the poses."""
    key, title = "gallery", "Gallery"
    labels = evidence.labels
    if not evidence.entries or labels is None:
        return skipped(key, title, evidence.why_empty)
    entry = evidence.entries[0]
    chosen = choose_rows(entry.row_mm)
    if not chosen["Best"]:
        return skipped(key, title, f"There are only {len(entry.id)} out-of-fold images, too few for a gallery.")
    predicted = evidence.read_poses(entry)
    groups: list[tuple[str, list[Card]]] = []
    shown: list[ShownPose] = []
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
                caption = f"Id {place + 1}, {_description(name)}: {error_mm:.1f} mm"
                shown.append(shown_pose(caption, predicted.pose_mm[row], labels.pose_mm[place].astype(np.float64)))
            groups.append((kind, cards))
    except DataError as error:
        return skipped(key, title, f"An image can't be shown: {error}.")
    text = (
        f"Out-of-fold images of the best run ({entry.name}), sorted by error, with the true pose drawn over each. "
        "Choose an image to see its predicted and true poses in 3D."
    )
    return Section(key=key, title=title, blocks=[Paragraph(text), Gallery(groups=groups, viewer=Viewer(poses=shown))])


def _picture(path: Path, pose_px: Float32) -> str:
    return as_data_url(draw_pose(read_image(path), pose_px))


def _description(name: str) -> str:
    """Return subject, action and camera of an image, or the name itself if it doesn't follow the pattern."""
    parsed = parse_name(name)
    return name if parsed is None else f"{parsed.subject} {parsed.action}, camera {parsed.camera}"


def _card(pose: int, kind: str, id_: int, name: str, error_mm: float, picture: str) -> Card:
    alternative = f"{kind}: {_description(name)}, with the true pose drawn over it"
    score = f"{error_mm:.1f} mm"
    return Card(pose=pose, name=name, picture=picture, alternative=alternative, score=score, label=f"Id {id_}")
