"""The data of a competition, opened once: labels, test list and hashes are read and validated when first used."""

from functools import cached_property

import numpy as np

from competition.common.files import AnyPath, sha256_file, sha256_lines, to_path
from competition.common.manifest import Manifest
from competition.common.pose_csv import Poses
from competition.common.records import read_record
from competition.data.labels import TEST_LIST, TRAIN_LIST, Labels, TestSet, read_labels, read_test
from competition.data.names import subjects_and_sequences
from competition.data.views import Views, views_of


class Dataset:
    """A competition's data folder; a command opens it once and passes it down. Errors are those of the readers."""

    def __init__(self, folder: AnyPath) -> None:
        self.folder = to_path(folder)

    @cached_property
    def labels(self) -> Labels:
        """The labelled training images."""
        return read_labels(self.folder)

    @cached_property
    def test(self) -> TestSet:
        """The images to predict."""
        return read_test(self.folder)

    @cached_property
    def true(self) -> Poses:
        """The labelled poses in mm by training Id, in float64."""
        return Poses(self.labels.id, self.labels.pose_mm.astype(np.float64))

    @cached_property
    def groups(self) -> tuple[list[str] | None, list[str] | None]:
        """The subject and the sequence of each training image; None for either when a name doesn't contain it."""
        return subjects_and_sequences(self.labels.images)

    @cached_property
    def views(self) -> tuple[Views, Views]:
        """The cameras of the training and of the test images."""
        test = views_of(self.test.images, TEST_LIST)
        return views_of(self.labels.images, TRAIN_LIST), test

    @cached_property
    def images_sha256(self) -> str:
        """The hash of the list of training images."""
        return self.labels.images_sha256

    @cached_property
    def labels_sha256(self) -> str:
        """The hash of the file of labels."""
        return sha256_file(self.folder / "annot" / "train.h5")

    @cached_property
    def test_images_sha256(self) -> str:
        """The hash of the list of test images."""
        return sha256_lines(self.test.images)

    @cached_property
    def is_synthetic(self) -> bool:
        """Whether the toolkit generated the images."""
        path = self.folder / "manifest.json"
        return path.exists() and read_record(Manifest, path, what="manifest").synthetic
