"""The cameras that show each instant: which images have the same take and frame, by their names.

Frames are those of one clock, so that images of one take and frame show the same pose. An image may use only some of
the other cameras, so that training images have as many as test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from competition.common.arrays import Bools, Int64, Intp
from competition.common.errors import UserError
from competition.common.seeds import generator
from competition.data.names import SCHEMES, ImageName, parse_name

LEAST_SHARED: Final = 5  # instants of two cameras, to estimate the rotation between them


@dataclass(frozen=True, kw_only=True, eq=False)
class Views:
    """The subject, instant and camera of N images, as numbers, and which of C cameras each may use."""

    subject: Int64  # [N]
    instant: Int64  # [N]
    camera: Int64  # [N]
    usable: Bools  # [N, C], the own camera included

    def take(self, rows: Intp) -> Views:
        """Return the views of some images, given by their indices."""
        return Views(
            subject=self.subject[rows],
            instant=self.instant[rows],
            camera=self.camera[rows],
            usable=self.usable[rows],
        )

    def images(self) -> Intp:
        """Return the images [N, C] of each image's instant by camera, the own one included; -1 where there is none."""
        instants, of_row = np.unique(self.instant, return_inverse=True)
        table = np.full((len(instants), self.usable.shape[1]), -1)
        table[of_row, self.camera] = np.arange(len(self.instant))
        return table[of_row]

    def usable_images(self) -> Intp:
        """Return the images as in `images`, -1 also where they may not be used."""
        return np.where(self.usable, self.images(), -1)

    def others(self) -> Int64:
        """Return the number of other cameras [N] whose images each image may use."""
        return np.asarray((self.usable_images() >= 0).sum(axis=1) - 1)

    def most_shared(self, subject: int) -> int:
        """Return the largest number of instants of a subject that have images of the same two cameras."""
        rows = self.subject == subject
        cameras = self.usable.shape[1]
        shared = np.zeros((cameras, cameras), np.int64)
        np.add.at(shared, self.camera[rows], self.images()[rows] >= 0)
        np.fill_diagonal(shared, 0)
        return int(shared.max())

    def limited_like(self, test: Views) -> Views:
        """Choose at random which other cameras each image may use: as many as images of `test` have, if there are."""
        random = generator(0, "views")
        rows, cameras = self.usable.shape
        limit = random.choice(test.others(), rows)
        own = self.camera[:, None] == np.arange(cameras)
        order = np.where(self.usable_images() < 0, 2.0, random.random((rows, cameras)))
        order[own] = -1
        return Views(
            subject=self.subject,
            instant=self.instant,
            camera=self.camera,
            usable=self.usable & (order.argsort(axis=1).argsort(axis=1) <= limit[:, None]),
        )


def concatenate_views(parts: Sequence[Views]) -> Views | None:
    """Join the views of images of different instants; None for no parts."""
    if not parts:
        return None
    return Views(
        subject=np.concatenate([part.subject for part in parts]),
        instant=np.concatenate([part.instant for part in parts]),
        camera=np.concatenate([part.camera for part in parts]),
        usable=np.concatenate([part.usable for part in parts]),
    )


def views_of(images: Sequence[str], where: str) -> Views:
    """Find the images of the same instants by their names, listed in the file `where`.

    Raises UserError for a name without subject, take, camera or frame, for two images of the same instant and camera,
    and for a subject without two cameras that share LEAST_SHARED instants.
    """
    parsed = [_parse(image, where) for image in images]
    subjects, subject = np.unique([name.subject for name in parsed], return_inverse=True)
    cameras, camera = np.unique([name.camera for name in parsed], return_inverse=True)
    numbers: dict[tuple[str, int], int] = {}
    instant = [numbers.setdefault((name.sequence, name.frame), len(numbers)) for name in parsed]
    views = Views(
        subject=subject.astype(np.int64),
        instant=np.array(instant, np.int64),
        camera=camera.astype(np.int64),
        usable=np.ones((len(parsed), len(cameras)), bool),
    )
    shown = views.images()
    kept = shown[np.arange(len(parsed)), camera]
    if len(doubled := np.flatnonzero(kept != np.arange(len(parsed)))):
        raise _error(where, f"{images[doubled[0]]} and {images[kept[doubled[0]]]} have the same take, frame and camera")
    for number, name in enumerate(subjects):
        shared = views.most_shared(number)
        if not shared:
            raise _error(where, f"subject {name}: no take and frame has images of two cameras")
        if shared < LEAST_SHARED:
            found = f"at most {shared} of its takes and frames have images of the same two cameras"
            raise _error(where, f"subject {name}: {found}, expected at least {LEAST_SHARED} to find their rotation")
    return views


def predicted_views(train: Views, test: Views, rows: Intp) -> Views:
    """Return the views of the training images that were predicted, which use as many other cameras as test images.

    Raises UserError if too few of these images show the same instants.
    """
    predicted = train.take(rows)
    if all(predicted.most_shared(subject) < LEAST_SHARED for subject in np.unique(predicted.subject)):
        what = "--views: too few out-of-fold images show the same take and frame from two cameras"
        raise UserError(what, fix="train on folds by subject or sequence, or blend without --views")
    return predicted.limited_like(test)


def _parse(image: str, where: str) -> ImageName:
    """Parse a name; raise UserError if it lacks a part."""
    parsed = parse_name(image)
    if parsed is None:
        example = next(iter(SCHEMES))
        raise _error(where, f"{image!r} doesn't contain subject, take, camera and frame, as {example} does")
    return parsed


def _error(where: str, what: str) -> UserError:
    return UserError(f"--views: {where}: {what}", fix="blend without --views")
