"""The data are opened once per command, and a loader's error is the same with and without worker processes."""

from pathlib import Path

import pytest
import torch

from competition.common.errors import Command as Next
from competition.common.errors import DataError
from competition.data import dataset
from competition.data.dataset import Dataset
from competition.training import parallel
from competition.training.loader import KeyedBatches, PoseImages, batches, make_loader
from tests.helpers import N_TEST, TINY, Command, N

WAYS = {"one after another": (), "in parallel": ("--parallel", "2"), "on several GPUs": ("--gpus", "2")}


@pytest.mark.parametrize("way", WAYS)
def test_labels_and_images_are_checked_once_for_all_folds_and_processes(
    command: Command, folds: None, own_data: Path, monkeypatch: pytest.MonkeyPatch, way: str
):
    """After the check the lists and labels are moved away, so that no process could read them again."""
    labels, images = [], []
    read, check = dataset.read_labels, parallel.check_images

    def count_read(folder: Path) -> object:
        labels.append(folder)
        return read(folder)

    def check_and_move(folder: Path, names: list[str]) -> None:
        check(folder, names)
        images.append(len(names))
        (own_data / "annot").rename(own_data / "moved")

    monkeypatch.setattr(dataset, "read_labels", count_read)
    monkeypatch.setattr(parallel, "check_images", check_and_move)
    assert command("train", *TINY, "--epochs", "1", *WAYS[way], data=own_data) == 0
    assert labels == [own_data]
    assert images == [N + N_TEST]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_the_same_error_from_a_worker_process(own_data: Path, workers: int):
    test = Dataset(own_data).test
    (own_data / "images" / test.images[3]).unlink()
    keys = KeyedBatches(test.id - 1, 8)
    loader = make_loader(PoseImages(own_data, test, size=64), keys, workers=workers, device=torch.device("cpu"))
    with pytest.raises(DataError) as caught:
        list(batches(loader))
    assert caught.value.what == f"{own_data / 'images' / test.images[3]} does not exist"
    assert caught.value.command == Next("check")
