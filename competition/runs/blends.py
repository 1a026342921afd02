"""The folder of a blend: its files, the keys of blend.json, and the weights. `blending` writes it, others read it."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Final, TypeAlias

import numpy as np

from competition.common.arrays import Float64
from competition.common.errors import UserError
from competition.common.files import read_json, read_text, sha256_facts, sha256_file, write_json
from competition.common.skeleton import AXES, JOINTS

FILES: Final = (
    "blend.json", "submission.csv.gz", "submission_mean.csv.gz", "submission_coordinate.csv.gz", "study.journal",
    "weights.csv", "weights.png",
)  # fmt: skip
KEYS: Final = (
    "method", "granularity", "shrink", "candidates", "n_rows", "groups", "mpjpe_mean", "mpjpe_blend_in_sample",
    "mpjpe_nested", "gain_nested", "gain_nested_se", "mpjpe_optimum", "gap_percent", "shipped", "why", "seconds",
    "best_single", "gain_joint", "gain_axis", "table", "provenance", "inputs", "outputs", "facts_sha256",
)  # fmt: skip
Needs: TypeAlias = Mapping[str, type | UnionType]  # required types by key of blend.json
SCORE_KEYS: Final[Needs] = {
    "method": str,
    "mpjpe_nested": int | float | None,
    "mpjpe_blend_in_sample": int | float | None,
}
VERIFY_KEYS: Final[Needs] = {"inputs": dict, "candidates": list, "provenance": dict | None, "outputs": dict | None}


def is_blend(folder: Path) -> bool:
    """Return whether a folder holds a blend."""
    return (folder / "blend.json").exists()


def blend_folders(submissions: Path) -> list[Path]:
    """List the folders of all blends, sorted by name."""
    return [path.parent for path in sorted(submissions.glob("*/blend.json"))]


def read_facts(folder: Path, needs: Needs | None = None) -> dict[str, Any]:
    """Read blend.json; raise UserError if it is missing, damaged or has values of other types than `needs`."""
    return read_json(folder / "blend.json", what="blend", needs=needs)


def write_facts(out: Path, facts: dict[str, Any]) -> None:
    """Write blend.json with the hashes of itself and of the other files, except the journal, which contains times."""
    existing = [name for name in FILES[1:] if name != "study.journal" and (out / name).exists()]
    facts["outputs"] = {name: sha256_file(out / name) for name in existing}
    facts["facts_sha256"] = sha256_facts({key: value for key, value in facts.items() if key != "facts_sha256"})
    write_json(out / "blend.json", facts)


def weights_csv(names: Sequence[str], shipped: Float64) -> str:
    """Write weights [17, 3, M] as CSV at full precision: joint, axis, and one column per candidate."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["joint", "axis", *names])
    for joint, of_joint in zip(JOINTS, shipped.tolist(), strict=True):
        writer.writerows([joint, axis, *row] for axis, row in zip(AXES, of_joint, strict=True))
    return text.getvalue()


def read_weights(path: Path) -> tuple[list[str], Float64]:
    """Read a blend's weights.csv: the candidates' names [M] and the weights [17, 3, M]; UserError if it is damaged."""
    rows = list(csv.reader(io.StringIO(read_text(path, what="weights"))))
    expected = [[joint, axis] for joint in JOINTS for axis in AXES]
    if [row[:2] for row in rows] != [["joint", "axis"], *expected]:
        raise UserError(f"{path}: expected columns joint,axis, {len(expected)} coordinates: run `make blend` again")
    names = rows[0][2:]
    try:
        values = np.array([row[2:] for row in rows[1:]], np.float64).reshape(len(JOINTS), len(AXES), len(names))
    except ValueError:
        raise UserError(f"{path}: expected {len(names)} numbers in every row: run `make blend` again") from None
    if not np.isfinite(values).all():
        raise UserError(f"{path}: a weight is not finite: run `make blend` again")
    return names, values
