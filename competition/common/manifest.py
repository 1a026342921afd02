"""manifest.json: what determines the images of a synthetic competition."""

from dataclasses import dataclass
from typing import ClassVar, Final

NOTE: Final = "synthetic images: scores on them are not Human3.6M scores"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """manifest.json of a complete folder; the marker of an incomplete one has no hash of the labels yet."""

    FORMAT: ClassVar[int] = 1

    synthetic: bool = False
    version: str | None = None  # of the generator
    seed: int | None = None
    n: int | None = None
    n_test: int | None = None
    labels_sha256: str | None = None  # of names and poses
    note: str = NOTE
