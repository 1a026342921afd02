"""Writes the pose in a photo as CSV, as a PNG picture and as an HTML page with a 3D view."""

from pathlib import Path
from typing import NamedTuple

from competition.common.arrays import Float64, Image
from competition.common.choices import Box
from competition.common.console import printable
from competition.common.files import write_bytes, write_text
from competition.common.skeleton import AXES, JOINTS
from competition.common.table_csv import table_csv
from competition.report.blocks import Numbers, Paragraph, Photo, Section, Table
from competition.report.markup import page
from competition.report.pictures import draw_enlarged, pose_picture
from competition.report.viewer import Viewer, as_data_url, shown_pose


class Written(NamedTuple):
    """The files written for a photo."""

    table: Path
    picture: Path
    page: Path  # HTML


def write_photo(
    folder: Path, photo: Path, box: Box | None, trained: str, crop: Image, pose_px: Float64, pose_mm: Float64
) -> Written:
    """Write a photo's pose to `folder`; file names consist of the photo's name and its `box`."""
    place = "" if box is None else "_" + "-".join(f"{value:g}" for value in box)
    stem = f"{photo.stem}{place}_pose"
    csv_file, picture, page_file = (folder / f"{stem}.{ending}" for ending in ("csv", "png", "html"))
    drawn = pose_picture(crop, pose_px, pose_mm, f"{photo.name}: {trained}")
    write_text(csv_file, pose_csv(pose_mm))
    write_bytes(picture, drawn)
    write_text(page_file, photo_page(printable(photo.name), printable(trained), crop, pose_px, pose_mm))
    return Written(csv_file, picture, page_file)


def pose_csv(pose_mm: Float64) -> str:
    """Format a pose [17, 3] as CSV, one row per joint: joint,x,y,z in mm."""
    rows = zip(JOINTS, pose_mm.tolist(), strict=True)
    return table_csv(("joint", *AXES), ((joint, *(f"{v + 0.0:.3f}" for v in of_joint)) for joint, of_joint in rows))


def photo_page(name: str, trained: str, crop: Image, pose_px: Float64, pose_mm: Float64) -> str:
    """Build the page of a photo: RGB crop [S, S, 3], and the pose in pixels of the crop [17, 2] and in mm [17, 3]."""
    drawn = draw_enlarged(crop, pose_px)
    photo = Photo(
        picture=as_data_url(drawn),
        side_px=len(drawn),
        alternative="The input of the networks, with the predicted pose drawn over it",
        caption="The input of the networks. They don't predict where the person is in it: the pose is scaled and "
        "centred to fit the crop.",
        viewer=Viewer(poses=[shown_pose("mean of the networks", pose_mm, None)]),
    )
    text = (
        "Relative to the pelvis, in camera axes: x right, y down, z away. The distance to the camera is not estimated."
    )
    rows = [(joint, *of_joint) for joint, of_joint in zip(JOINTS, pose_mm.tolist(), strict=True)]
    numbers = Numbers(table=Table(caption="Joints, mm", headings=("joint", *AXES), rows=rows, digits=1))
    section = Section(key="pose", title="Pose", blocks=[photo, Paragraph(text), numbers])
    return page(name, [Paragraph(f"Predicted by {trained}.")], [section])
