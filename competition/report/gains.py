"""What each cause of errors costs: how much lower the out-of-fold errors would be without it."""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from competition.common.arrays import Bools, Float64, Floats
from competition.common.metrics import joint_errors, mpjpe
from competition.common.seeds import sample_rows
from competition.common.skeleton import BONES, JOINTS, MIRROR
from competition.report.blocks import Chart, Paragraph, Section, Table, skipped
from competition.report.charts import dots
from competition.report.evidence import Entry, Evidence
from competition.report.rare import Rarity

MOST_ROWS: Final = 20_000
HIDING_PX, HIDING_MM = 6.0, 60.0  # a bone hides a joint this close to it in the image and this far behind it
LEGS, ARMS = (1, 2, 3, 4, 5, 6), (11, 12, 13, 14, 15, 16)
Repair: TypeAlias = Callable[[Float64, Float64], Float64]  # (predicted, true) -> better poses, [n, 17, 3] in mm


def exact_depth(predicted_mm: Float64, true_mm: Float64) -> Float64:
    """Return the predicted x and y with the true z."""
    return np.concatenate([predicted_mm[..., :2], true_mm[..., 2:]], axis=2)


def exact_in_image(predicted_mm: Float64, true_mm: Float64) -> Float64:
    """Return the true x and y with the predicted z."""
    return np.concatenate([true_mm[..., :2], predicted_mm[..., 2:]], axis=2)


def exact_orientation(predicted_mm: Float64, true_mm: Float64) -> Float64:
    """Rotate each pose about the pelvis to fit the true pose best, by least squares (Kabsch 1976)."""
    u, _, v = np.linalg.svd(np.einsum("nji,njk->nik", predicted_mm, true_mm))
    u[..., -1] *= np.sign(np.linalg.det(u @ v))[:, None]  # no reflections
    rotated: Float64 = predicted_mm @ (u @ v)
    return rotated


def exact_facing(predicted_mm: Float64, true_mm: Float64) -> Float64:
    """Rotate each pose about the camera's y axis to fit the true pose best, by least squares."""
    predicted, true = (poses[..., 0] + 1j * poses[..., 2] for poses in (predicted_mm, true_mm))
    turn = (predicted.conj() * true).sum(axis=1, keepdims=True)
    turned = predicted * turn / np.maximum(np.abs(turn), 1e-9)
    return np.stack([turned.real, predicted_mm[..., 1], turned.imag], axis=2)


def exact_size(predicted_mm: Float64, true_mm: Float64) -> Float64:
    """Scale each pose to fit the true pose best, by least squares."""
    square = np.square(predicted_mm).sum(axis=(1, 2))
    scale = (predicted_mm * true_mm).sum(axis=(1, 2)) / np.maximum(square, 1e-9)
    scaled: Float64 = predicted_mm * scale[:, None, None]
    return scaled


def exact_sides(predicted_mm: Float64, true_mm: Float64) -> Float64:
    """Exchange left and right of a pose's legs, arms or both where this lowers its error."""
    best_mm = predicted_mm
    for joints in (LEGS, ARMS, LEGS + ARMS):
        order = [MIRROR[joint] if joint in joints else joint for joint in range(len(JOINTS))]
        exchanged = predicted_mm[:, order]
        better = joint_errors(exchanged, true_mm).mean(axis=1) < joint_errors(best_mm, true_mm).mean(axis=1)
        best_mm = np.where(better[:, None, None], exchanged, best_mm)
    return best_mm


REPAIRS: Final[dict[str, Repair]] = {
    "exact depth (z)": exact_depth,
    "exact x and y": exact_in_image,
    "exact orientation": exact_orientation,
    "exact facing direction": exact_facing,
    "exact size": exact_size,
    "no exchanged sides": exact_sides,
}
VISIBLE, COMMON = "hidden joints like visible ones", "rarest third like the rest"


def hidden_joints(pose2d_px: Floats, pose_mm: Floats) -> Bools:
    """Return a mask [n, 17] of the joints that another part of the body hides from the camera, by its bones.

    pose2d_px [n, 17, 2], pixels; pose_mm [n, 17, 3], camera axes. A bone hides a joint that lies within HIDING_PX of
    it in the image and at least HIDING_MM behind it.
    """
    hidden = np.zeros(pose2d_px.shape[:2], bool)
    for start, end in BONES:
        bone_px = pose2d_px[:, [end]] - pose2d_px[:, [start]]
        from_start_px = pose2d_px - pose2d_px[:, [start]]
        length2 = np.maximum(np.square(bone_px).sum(axis=2), 1e-6)
        along = np.clip((from_start_px * bone_px).sum(axis=2) / length2, 0, 1)
        distance_px = np.linalg.norm(from_start_px - along[..., None] * bone_px, axis=2)
        depth_mm = pose_mm[:, [start], 2] * (1 - along) + pose_mm[:, [end], 2] * along
        behind = (distance_px < HIDING_PX) & (pose_mm[..., 2] > depth_mm + HIDING_MM)
        behind[:, [start, end]] = False
        hidden |= behind
    return hidden


def visible_gain(error_mm: Float64, hidden: Bools) -> float:
    """Return how much lower the mean of errors [n, 17] is if each hidden joint has the mean of the visible ones.

    A joint that is never visible keeps its error.
    """
    hidden = hidden & ~hidden.all(axis=0)
    visible_mm = np.where(hidden, 0, error_mm).sum(axis=0) / (~hidden).sum(axis=0)
    return float((error_mm - visible_mm)[hidden].sum() / error_mm.size) if hidden.any() else 0.0


def gains(evidence: Evidence) -> Section:
    """Draw how much lower the out-of-fold error of each run would be if one cause of errors were removed."""
    key, title = "gains", "What the errors consist of"
    if not evidence.entries or evidence.labels is None:
        return skipped(key, title, evidence.why_empty)
    columns = [_gains(evidence, entry) for entry in evidence.entries]
    causes = sorted(columns[0], key=lambda cause: -columns[0][cause])
    values = [[column.get(cause) for cause in causes] for column in columns]
    labels = [entry.name for entry in evidence.entries]
    first, second = (f"{cause}, {columns[0][cause]:.1f} mm" for cause in causes[:2])
    sentence = f"The largest gains of {labels[0]}: {first}, and {second}."
    text = (
        "How much lower the out-of-fold MPJPE of each run would be if one thing were right and everything else stayed "
        f"as predicted. The gains overlap, so they don't add up. {sentence} A joint counts as hidden if, in the "
        f"labels, a bone passes at least {HIDING_MM:.0f} mm in front of it, within {HIDING_PX:.0f} pixels."
    )
    terms = (
        "Orientation: the whole pose is rotated about the pelvis as fits the true pose best. Facing direction: it is "
        "rotated about the vertical only. Size: the whole pose is scaled. Exchanged sides: left and right of the legs "
        "or arms are mixed up. Depth (z): the distance from the camera; x and y are the position in the image. Rarest "
        "third: the poses that differ most from all poses of other subjects."
    )
    unit = "gain, mm of MPJPE"
    numbers = Table(caption=unit, headings=("part", *labels), rows=list(zip(causes, *values, strict=True)), digits=1)
    chart = Chart(name=key, figure=dots(labels, values, causes, unit), alternative=sentence, numbers=numbers)
    return Section(key=key, title=title, blocks=[Paragraph(text), Paragraph(terms), chart])


def _gains(evidence: Evidence, entry: Entry) -> dict[str, float]:
    """Return by cause how much lower an entry's MPJPE would be without it, in mm."""
    labels = evidence.labels
    assert labels is not None
    poses = evidence.read_poses(entry)
    chosen = sample_rows(len(poses.id), MOST_ROWS)
    rows, predicted_mm = poses.id[chosen] - 1, poses.pose_mm[chosen].astype(np.float64)
    true_mm = labels.pose_mm[rows].astype(np.float64)
    error_mm = joint_errors(predicted_mm, true_mm)
    found = {
        cause: error_mm.mean() - mpjpe(repair(predicted_mm, true_mm), true_mm) for cause, repair in REPAIRS.items()
    }
    found[VISIBLE] = visible_gain(error_mm, hidden_joints(labels.pose2d_px[rows], true_mm))
    rare = evidence.rarity
    if isinstance(rare, Rarity):
        known = np.isin(rare.id, entry.id)
        row_mm, distance_mm = entry.row_mm[np.searchsorted(entry.id, rare.id[known])], rare.distance_mm[known]
        if known.any():  # the first entry may have other folds
            common = distance_mm <= np.quantile(distance_mm, 2 / 3)
            found[COMMON] = float(row_mm.mean() - row_mm[common].mean())
    return {cause: float(gain) for cause, gain in found.items()}
