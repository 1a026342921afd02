"""The provenance of a run or a blend: hashes of its data, versions of libraries, commit of the code."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from competition.common.files import sha256_file, sha256_lines
from competition.data.labels import Labels, TestSet


def provenance(
    data: Path, test: TestSet, labels: Labels | None = None, folds_sha256: str | None = None
) -> dict[str, Any]:
    """Return the versions, the commit and the hashes of the data; None for data that weren't used."""
    return {
        "folds_sha256": folds_sha256,
        "images_sha256": labels and labels.images_sha256,
        "labels_sha256": labels and sha256_file(data / "annot" / "train.h5"),
        "test_images_sha256": sha256_lines(test.images),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "timm", "numpy")},
        },
        "git": code_commit(),
    }


def code_commit() -> str | None:
    """Return the commit of this code; None outside a repository or without git."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return None
    return found.stdout.strip() or None
