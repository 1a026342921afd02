"""The plan of images: their number, cameras and takes."""

import pytest

from competition.common import skeleton
from competition.synthetic import (
    generate,
    plan,
)


def test_the_public_part_is_30_percent_of_the_takes():
    takes = plan.plan_takes(0, 1500, skeleton.TEST_SUBJECTS)
    assert len(generate.public_takes(0, takes)) == round(0.3 * len(takes))


@pytest.mark.parametrize("n", [1, 3, 7, 40, 599, 1501])
def test_a_plan_has_exactly_the_requested_number_of_images(n: int):
    takes = plan.plan_takes(0, n, skeleton.TRAIN_SUBJECTS)
    names = [name for take in takes for _, _, name in take.images()]
    assert len(set(names)) == len(names) == n
    subjects = [name.split("_")[0] for name in names]
    assert len(set(subjects)) == min(n, 5)
    if n >= 40:
        assert len({name.split("_")[1] for name in names}) >= 8
        counts = [subjects.count(subject) for subject in skeleton.TRAIN_SUBJECTS]
        assert max(counts) - min(counts) <= 8


def test_every_instant_is_recorded_by_all_four_cameras():
    for take in plan.plan_takes(0, 1500, skeleton.TRAIN_SUBJECTS):
        assert all(shot.cameras == tuple(sorted(skeleton.CAMERAS)) for shot in take.shots)
