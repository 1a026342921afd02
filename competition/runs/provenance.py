"""The provenance of a run or a blend: hashes of its data, versions of libraries, commit of the code."""

import platform
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from competition.data.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Hashes of the data, None for data that weren't used, the versions of libraries and the commit of the code."""

    folds_sha256: str | None = None
    images_sha256: str | None = None
    labels_sha256: str | None = None
    test_images_sha256: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    git: str | None = None


def provenance(dataset: Dataset, folds_sha256: str | None = None, *, with_labels: bool = True) -> Provenance:
    """Return the provenance of results from a data set; without labels, only of its test images."""
    return Provenance(
        folds_sha256=folds_sha256,
        images_sha256=dataset.images_sha256 if with_labels else None,
        labels_sha256=dataset.labels_sha256 if with_labels else None,
        test_images_sha256=dataset.test_images_sha256,
        versions={
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "timm", "numpy")},
        },
        git=code_commit(),
    )


def code_commit() -> str | None:
    """Return the commit of this code; None outside a repository or without git."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return None
    return found.stdout.strip() or None
